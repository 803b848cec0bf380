"""``quick=true``: every part of an experiment small, to see that it runs; its numbers mean nothing."""

from collections.abc import Collection
from fnmatch import fnmatchcase

from kdexp.config.leaves import leaves
from kdexp.config.require import Values

TRAIN_BATCHES = 2
"""Training batches of a student and of a teacher, each of the batch size that is set."""
EVALUATED = 64
"""Samples of val and of test."""
EVALUATED_MASKS = 1
"""The same of images with masks, which may be large."""
NOTE = (
    f"quick run: {TRAIN_BATCHES} training batches, at most {EVALUATED} samples of val and of test (one image with "
    "masks), few epochs: its numbers mean nothing (quick=true)"
)
_STEPS = "trainer.max_steps"
"""Of whole epochs; where an epoch has two batches, as many would take minutes."""
_SETTINGS: dict[str, int | str | None] = {
    "trainer.max_epochs": 2,
    _STEPS: None,
    "teacher*.recipe.max_epochs": 1,
    "*scheme.attack.steps": 2,
    "robustness.samples": 16,
    "robustness.attacks.samples": 8,
    "robustness.attacks.kinds.*.steps": 2,
    "robustness.corruptions.published": False,  # they are of the whole test split
    "robustness.n_resamples": 100,
    "hydra.sweeper.n_trials": 4,
    "hydra.sweeper.params.seed": "0,1",
}
"""Pattern of settings -> the most that a quick run takes; `*` is any text, also several levels."""


def mark(is_quick: bool) -> dict[str, list[int]]:
    """What the key of something in the store has of a quick run, so that it is not taken for that of the whole data."""
    return {"quick": [TRAIN_BATCHES, EVALUATED]} if is_quick else {}


def shortened(values: Values, typed: Collection[str]) -> dict[str, int | str | None]:
    """The settings that take long, by their dotted names, with what a quick run has in their place.

    Args:
        values: a composed configuration of a program that trains.
        typed: names of the settings that somebody typed: these stay as they are, but for ``trainer.max_steps``.
    """
    return {
        name: most
        for name, value in leaves(values)
        for pattern, most in _SETTINGS.items()
        if fnmatchcase(name, pattern) and (name not in typed or name == _STEPS) and not _is_within(value, most)
    }


def _is_within(value: object, most: int | str | None) -> bool:
    return value == most or (isinstance(value, int) and isinstance(most, int) and value <= most)
