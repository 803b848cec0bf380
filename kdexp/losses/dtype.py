"""The number format that losses are computed in."""

import torch
from torch import Tensor


def at_least_fp32(logits: Tensor) -> Tensor:
    """Logits as float32, or as they are when they are float64.

    Half precision loses the small probabilities of a softened distribution, which are what distillation is about, and
    which operations autocast raises to float32 differs by device; so every loss begins with this.

    Args:
        logits: (*), logits or features of any shape.
    """
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
