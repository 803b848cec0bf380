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


def constant(optimizer: Optimizer, total_steps: int, warmup: float = 0.0) -> LambdaLR:
    """The optimizer's own learning rate throughout, after the warmup.

    Args:
        optimizer: whose learning rates are scaled.
        total_steps: optimizer steps in the whole training.
        warmup: fraction of the training, in [0, 1), over which the rate rises linearly to its full value; its first
            step already has a rate above 0.

    Raises:
        ValueError: a value outside its range.
    """
    return _scheduler(optimizer, total_steps, warmup, lambda step: 1.0)


def cosine(optimizer: Optimizer, total_steps: int, warmup: float = 0.0, final: float = 0.0) -> LambdaLR:
    """Half a cosine wave from the full rate down to final (Loshchilov and Hutter 2017, equation 5, no restarts).

    Args:
        optimizer: see `constant`.
        total_steps: see `constant`.
        warmup: see `constant`; the cosine begins where it ends.
        final: fraction of the full rate, in [0, 1], that is reached after the last step.

    Raises:
        ValueError: a value outside its range.
    """
    _require(0 <= final <= 1, "final", "must be in [0, 1]", final)
    start = _warmup_steps(total_steps, warmup)
    return _scheduler(
        optimizer,
        total_steps,
        warmup,
        lambda step: anneal(1.0, final, min((step - start) / (total_steps - start), 1.0), "cosine"),
    )


def multistep(
    optimizer: Optimizer,
    total_steps: int,
    milestones: Sequence[float] = (0.625, 0.75, 0.875),
    gamma: float = 0.1,
    warmup: float = 0.0,
) -> LambdaLR:
    """The rate drops by a factor at each milestone.

    The defaults are those of the CIFAR-100 benchmark (Tian et al., ICLR 2020): epochs 150, 180 and 210 of 240.

    Args:
        optimizer: see `constant`.
        total_steps: see `constant`.
        milestones: fractions of the training, in (0, 1).
        gamma: the factor, > 0.
        warmup: see `constant`.

    Raises:
        ValueError: a value outside its range.
    """
    _require(all(0 < milestone < 1 for milestone in milestones), "milestones", "must be in (0, 1)", milestones)
    _require(gamma > 0, "gamma", "must be > 0", gamma)
    steps = [round(milestone * total_steps) for milestone in milestones]
    return _scheduler(optimizer, total_steps, warmup, lambda step: gamma ** sum(step >= drop for drop in steps))


def _scheduler(optimizer: Optimizer, total_steps: int, warmup: float, after_warmup: Callable[[int], float]) -> LambdaLR:
    _require(0 <= warmup < 1, "warmup", "must be in [0, 1)", warmup)
    rise = _warmup_steps(total_steps, warmup)
    return LambdaLR(optimizer, lambda step: (step + 1) / (rise + 1) if step < rise else after_warmup(step))


def _warmup_steps(total_steps: int, warmup: float) -> int:
    return min(round(warmup * total_steps), total_steps - 1)


def _require(rule_holds: bool, setting: str, rule: str, value: object) -> None:
    if not rule_holds:
        raise ValueError(f"scheduler.{setting} {rule}, got {value}")
