"""Logits of teachers that give probabilities."""

import torch
from torch import Tensor

from kdexp.contracts import Kind

FLOOR = 1e-7
"""Probabilities below it count as it (of yes/no outputs those above 1 - FLOOR as that), so that logits are finite."""
HOLDS = ("logits", "probabilities")
"""What a teacher may give."""
_SUM = 1e-3
"""So far from 1 may the probabilities of a row be in sum: half precision, a few digits of text."""


def check_holds(holds: str) -> None:
    """See that a setting is one of `HOLDS`."""
    if holds not in HOLDS:
        raise ValueError(f"holds must be {' or '.join(HOLDS)}, got {holds}")


def kind_of(kind: Kind, outputs: int) -> Kind:
    """What a teacher's rows mean for a data set of this kind: two outputs for yes and no are classes."""
    return "multiclass" if kind == "binary" and outputs == 2 else kind


def wrong_rows(rows: Tensor, kind: Kind) -> tuple[Tensor, str]:
    """Which rows are no probabilities, and the rule that they break.

    Args:
        rows: (N, C, ...) float.
        kind: what a row means.

    Returns:
        (N,) bool, and the rule.
    """
    outside = ((rows < 0) | (rows > 1)).flatten(1).any(1)
    if outside.any() or kind != "multiclass":
        return outside, "must be probabilities in [0, 1]"
    return ((rows.sum(1) - 1).abs() > _SUM).view(len(rows), -1).any(1), "must be probabilities that sum to 1"


def logits_of(rows: Tensor, kind: Kind) -> Tensor:
    """The logits of (N, C, ...) probabilities: ``log(max(p, FLOOR))``, or ``log(p / (1 - p))`` of yes/no outputs.

    Returns:
        Like rows, float32.
    """
    exact = rows.double()
    found = exact.clamp(min=FLOOR).log() if kind == "multiclass" else exact.clamp(FLOOR, 1 - FLOOR).logit()
    return found.to(torch.float32)
