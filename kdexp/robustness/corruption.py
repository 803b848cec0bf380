"""A corruption: an operator, its published severities, and what it applies to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)

Kind = Literal["images", "colour", "tabular", "texts"]
"""What a perturbation is for: images; those with three channels; what is neither image nor text; texts."""

LARGE = 64
"""Images whose shorter side has more pixels than this are corrupted with the severities for large images."""


@dataclass(frozen=True)
class Corruption:
    """A corruption as a yaml in conf/corruption describes it.

    Attributes:
        operator: see `kdexp.robustness`.
        family: noise, blur, weather, digital, geometric, tabular, typos, words or case: what it is averaged with.
        small: parameter -> its value at each of the five severities; for images up to `LARGE`, tables and texts.
        large: the same for larger images; None: the same values.
        applies_to: see `Kind`.
        moves: whether it moves what is in the image. Its operator then takes masks, too: (N, 1, H, W) int64, of which
            each pixel gets the nearest one, and `kdexp.contracts.ABSENT` where something comes in from outside.
    """

    operator: Callable[..., Tensor]
    family: str
    small: Mapping[str, Sequence[float]]
    large: Mapping[str, Sequence[float]] | None = None
    applies_to: Kind = "images"
    moves: bool = False

    def why_not(self, shape: Sequence[int], *, is_text: bool = False) -> str | None:
        """What speaks against this corruption for samples of a shape, or texts; None: nothing."""
        return _why_not(self.applies_to, shape, is_text)

    def parameters(self, severity: int, shape: Sequence[int]) -> dict[str, float]:
        """The operator's parameters.

        Raises:
            ValueError: severity is not 1 to 5.
        """
        if severity not in SEVERITIES:
            raise ValueError(f"severity must be 1, 2, 3, 4 or 5, got {severity}")
        is_large = len(shape) == 3 and min(shape[1:]) > LARGE
        table = self.large if is_large and self.large is not None else self.small
        return {name: values[severity - 1] for name, values in table.items()}

    def __call__(self, inputs: Tensor, index: Tensor, *, severity: int, seed: int) -> Tensor:
        """Corrupt a batch.

        Args:
            inputs: (N, C, H, W) in [0, 1]; (N, ...) standardised columns of tables; (N, L) int32
                code points of texts; or masks, see `moves`.
            index: (N,) int64, the samples' ids.
            severity: 1 to 5.
            seed: of the random numbers.

        Raises:
            ValueError: severity is not 1 to 5.
        """
        return self.operator(inputs, index, seed=seed, **self.parameters(severity, inputs.shape[1:]))


@dataclass(frozen=True)
class LevelCurve:
    """A perturbation at rising levels.

    Attributes:
        operator: see `kdexp.robustness`.
        parameter: the operator's, which is the level.
        levels: rising, each > 0; the undisturbed data are level 0.
        applies_to: see `Corruption`.

    Raises:
        ValueError: levels that do not rise from above 0.
    """

    operator: Callable[..., Tensor]
    parameter: str
    levels: Sequence[float]
    applies_to: Kind = "images"

    def __post_init__(self) -> None:
        if not self.levels or any(high <= low for low, high in pairwise([0.0, *self.levels])):
            raise ValueError(f"levels must rise, each > 0, got {list(self.levels)}")

    def why_not(self, shape: Sequence[int], *, is_text: bool = False) -> str | None:
        """What speaks against it for samples of a shape, or texts; None: nothing."""
        return _why_not(self.applies_to, shape, is_text)


def _why_not(kind: Kind, shape: Sequence[int], is_text: bool) -> str | None:
    if kind == "texts":
        return None if is_text else "for texts"
    is_image = len(shape) == 3
    if kind == "tabular" and is_text:
        return "for tables"
    if kind == "tabular":
        return "for tables" if is_image else None
    if not is_image:
        return f"for {kind}"
    if kind == "colour" and shape[0] != 3:
        return "for images in colour"
    return None
