"""The commands, as they are installed: signals count from the first moment on, while what they need is imported."""

from importlib import import_module

from kdexp import signals


def _run(program: str) -> None:
    with signals.obeyed():
        import_module(f"kdexp.{program}").main()


def train() -> None:
    """``kdexp-train``."""
    _run("train")


def evaluate() -> None:
    """``kdexp-eval``."""
    _run("eval")


def doctor() -> None:
    """``kdexp-doctor``."""
    _run("doctor")


def compare() -> None:
    """``kdexp-compare``."""
    _run("compare")


def cache() -> None:
    """``kdexp-cache``."""
    _run("cache")
