"""How alpha, the temperature and the learning rate move over a training.

Every schedule is a closed form in the step, so a resumed run continues exactly where it stopped.
"""

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


def anneal(start: float, end: float, progress: float, kind: str) -> float:
    """A value on its way from start to end.

    Args:
        start: the value at progress 0.
        end: the value at progress 1; without effect when kind is constant.
        progress: fraction of the training done, in [0, 1].
        kind: constant, linear, or cosine (half a cosine wave: slow, fast, slow).

    Raises:
        ValueError: another kind.
    """
    match kind:
        case "constant":
            return start
        case "linear":
            share = progress
        case "cosine":
            share = (1 - math.cos(math.pi * progress)) / 2
        case _:
            raise ValueError(f"schedule kind must be constant, linear or cosine, got {kind}")
    return (1 - share) * start + share * end


def constant(optimizer: Optimizer, total_steps: int, warmup_ratio: float = 0.0) -> LambdaLR:
    """The optimizer's own learning rate throughout, after the warmup.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps in the whole training.
        warmup_ratio: fraction of the training, in [0, 1), over which the rate rises linearly to its full value; its
            first step already has a rate above 0.

    Raises:
        ValueError: a value outside its range.
    """
    return _scheduler(optimizer, total_steps, warmup_ratio, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup_ratio: float = 0.0, min_lr_ratio: float = 0.0) -> LambdaLR:
    """Half a cosine wave from the full rate down to a minimum (Loshchilov and Hutter 2017, equation 5, no restarts).

    Args:
        optimizer: see `constant`.
        total_steps: see `constant`.
        warmup_ratio: see `constant`; the cosine begins where it ends.
        min_lr_ratio: fraction of the full rate, in [0, 1], that is reached after the last step.

    Raises:
        ValueError: a value outside its range.
    """
    _require(0 <= min_lr_ratio <= 1, "min_lr_ratio", "must be in [0, 1]", min_lr_ratio)
    start = _warmup_steps(total_steps, warmup_ratio)
    return _scheduler(
        optimizer,
        total_steps,
        warmup_ratio,
        lambda step: anneal(1.0, min_lr_ratio, min((step - start) / (total_steps - start), 1.0), "cosine"),
    )


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestone_fractions: Sequence[float] = (0.625, 0.75, 0.875),
    gamma: float = 0.1,
    warmup_ratio: float = 0.0,
) -> LambdaLR:
    """The rate drops by a factor at each milestone.

    The defaults are those of the CIFAR-100 benchmark (Tian et al., ICLR 2020): epochs 150, 180 and 210 of 240.

    Args:
        optimizer: see `constant`.
        total_steps: see `constant`.
        milestone_fractions: fractions of the training, in (0, 1).
        gamma: the factor, > 0.
        warmup_ratio: see `constant`.

    Raises:
        ValueError: a value outside its range.
    """
    _require(
        all(0 < fraction < 1 for fraction in milestone_fractions),
        "milestone_fractions",
        "must be in (0, 1)",
        milestone_fractions,
    )
    _require(gamma > 0, "gamma", "must be > 0", gamma)
    steps = [round(fraction * total_steps) for fraction in milestone_fractions]
    return _scheduler(optimizer, total_steps, warmup_ratio, lambda step: gamma ** sum(step >= drop for drop in steps))


def _scheduler(
    optimizer: Optimizer, total_steps: int, warmup_ratio: float, after_warmup: Callable[[int], float]
) -> LambdaLR:
    _require(0 <= warmup_ratio < 1, "warmup_ratio", "must be in [0, 1)", warmup_ratio)
    rise = _warmup_steps(total_steps, warmup_ratio)
    return LambdaLR(optimizer, lambda step: (step + 1) / (rise + 1) if step < rise else after_warmup(step))


def _warmup_steps(total_steps: int, warmup_ratio: float) -> int:
    return min(round(warmup_ratio * total_steps), total_steps - 1)


def _require(rule_holds: bool, setting: str, rule: str, value: object) -> None:
    if not rule_holds:
        raise ValueError(f"scheduler.{setting} {rule}, got {value}")
