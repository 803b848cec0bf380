"""Distillation losses: one file a method, a pure function and a thin module."""
