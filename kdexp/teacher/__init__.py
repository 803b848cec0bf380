"""The frozen teacher: its weights and its cached outputs."""
