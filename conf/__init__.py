"""Everything Hydra composes; installed as ``kdexp.conf`` (``pkg://`` needs this file)."""
