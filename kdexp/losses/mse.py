"""Logit matching: Ba and Caruana (arXiv 1312.6184); against KL: Kim et al. (arXiv 2105.08919)."""

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """``mean (z_s - z_t)^2`` over samples, classes and positions; the same for every task.

    Half of it is what KD with T^2 tends to when T grows and the logits of both have mean zero (Hinton et al. 2015,
    equation 4, where the sum over classes is divided by C as well). Unlike KL it also compares the logits' mean.

    Args:
        student_logits: (N, C) or dense (N, C, ...).
        teacher_logits: the same shape; gets no gradient.

    Returns:
        Scalar >= 0; 0 when student and teacher are equal.

    Raises:
        ValueError: shapes that do not fit (they would be broadcast).
    """
    check_shapes("N C ..., N C ...", student_logits=student_logits, teacher_logits=teacher_logits)
    return F.mse_loss(at_least_fp32(student_logits), at_least_fp32(teacher_logits.detach()))


class MSE(nn.Module):
    """`mse` as a module."""

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Scalar; see `mse`. The target is not used."""
        return mse(student_logits, teacher_logits)
