"""A corruption: an operator, its published severities, and what it applies to."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

SEVERITIES = (1, 2, 3, 4, 5)

LARGE = 64
"""Images whose shorter side has more pixels than this are corrupted with the severities for large images."""


@dataclass(frozen=True)
class Corruption:
    """A corruption as a yaml in conf/corruption describes it.

    Attributes:
        operator: see `kdexp.robustness`.
        family: noise, blur, weather, digital, geometric or tabular: what it is averaged with.
        small: parameter -> its value at each of the five severities; for images up to `LARGE`, and for features.
        large: the same for larger images; None: the same values.
        applies_to: images; colour: those with three channels; features: everything that is not an image.
    """

    operator: Callable[..., Tensor]
    family: str
    small: Mapping[str, Sequence[float]]
    large: Mapping[str, Sequence[float]] | None = None
    applies_to: Literal["images", "colour", "features"] = "images"

    def why_not(self, shape: Sequence[int]) -> str | None:
        """What speaks against this corruption for samples of a shape, (C, H, W) for images; None: nothing."""
        if (self.applies_to == "features") == (len(shape) == 3):
            return f"is for {self.applies_to}"
        if self.applies_to == "colour" and shape[0] != 3:
            return "is for images in colour"
        return None

    def parameters(self, severity: int, shape: Sequence[int]) -> dict[str, Any]:
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
            inputs: (N, C, H, W) in [0, 1], or (N, ...) standardised features.
            index: (N,) int64, the samples' ids.
            severity: 1 to 5.
            seed: of the random numbers.

        Raises:
            ValueError: severity is not 1 to 5.
        """
        return self.operator(inputs, index, seed=seed, **self.parameters(severity, inputs.shape[1:]))
