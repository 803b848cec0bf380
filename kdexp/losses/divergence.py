"""The Kullback-Leibler divergence, one value for each pair of distributions."""

import torch.nn.functional as F
from torch import Tensor


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q) = sum_c p_c (log p_c - log q_c)``, over dimension 1.

    Args:
        log_p: (N, C, ...) log-probabilities; the logarithm keeps those finite whose probability rounds to 0.
        log_q: the same shape.

    Returns:
        (N, ...), >= 0, in nats.
    """
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(1)
