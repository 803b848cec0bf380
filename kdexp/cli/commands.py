"""The commands, as they are installed: signals count from the first moment on, while what they need is imported."""

import gc
from importlib import import_module

from kdexp import signals


def _run(module: str) -> None:
    with signals.obeyed():
        try:
            import_module(module).main()
        finally:
            gc.freeze()  # the system takes all memory back; to search it for garbage first would take two seconds


def train() -> None:
    """``kdexp-train``."""
    _run("kdexp.cli.train")


def evaluate() -> None:
    """``kdexp-eval``."""
    _run("kdexp.cli.eval")


def doctor() -> None:
    """``kdexp-doctor``."""
    _run("kdexp.cli.doctor")


def compare() -> None:
    """``kdexp-compare``."""
    _run("kdexp.cli.compare")


def cache() -> None:
    """``kdexp-cache``."""
    _run("kdexp.cli.cache")


def export() -> None:
    """``kdexp-export``."""
    _run("kdexp.cli.export")


def predict() -> None:
    """``kdexp-predict``."""
    _run("kdexp.cli.predict")
