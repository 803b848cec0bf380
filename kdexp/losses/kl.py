"""The Kullback-Leibler divergence, one value for each pair of distributions."""

from torch import Tensor

from kdexp.losses.shapes import check_shapes


def kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """``KL(p || q) = sum_c p_c (log p_c - log q_c)``, over dimension 1.

    Args:
        log_p: (N, C, ...) log-probabilities; the logarithm keeps those finite whose probability rounds to 0.
        log_q: the same shape.

    Returns:
        (N, ...), >= 0, in nats.

    Raises:
        ValueError: shapes that differ.
    """
    check_shapes("N C ..., N C ...", log_p=log_p, log_q=log_q)
    # Not F.kl_div, which is bitwise the same, but which vmap has no rule for.
    return (log_p.exp() * (log_p - log_q)).sum(1)
