"""Adversarial examples: changes too small to matter, chosen to do the most harm.

Attacks work on what a person sees, images in [0, 1], so that eps means the same for every network; normalisation is a
part of the attacked network (`Normalized`). Features are attacked standardised, and have no bounds.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Kind
from kdexp.data.stateless_rng import RngStream, normal, uniform
from kdexp.losses.dtype import at_least_fp32

Objective = Callable[[Tensor], Tensor]
"""Inputs (N, ...) to what the attack raises: a scalar, to which each sample adds its own part."""

Network = Callable[[Tensor], Tensor]

PIXELS = (0.0, 1.0)


@dataclass(frozen=True)
class Attack:
    """Projected gradient ascent: Madry et al. 2018 (arXiv 1706.06083), equation for x^(t+1) in section 2.1.

    Each step goes abs_stepsize along the sign of the gradient (linf) or along the gradient (l2), then back into the
    ball around the clean input and into the bounds. One step of size eps from the clean input is FGSM (Goodfellow et
    al. 2015, arXiv 1412.6572). The last point is the result, so that a defender who is helped by more steps is seen.

    Attributes:
        norm: linf, or l2 over all values of a sample.
        eps: radius of the ball, > 0; for images at most 1, the range of a pixel, in linf.
        steps: >= 1.
        abs_stepsize: in (0, eps].
        random_start: begin at a uniformly random point of the ball, a function of (seed, epoch, index).
        bounds: least and largest value of an input; None: there are none.

    Raises:
        ValueError: a setting breaks its rule.
    """

    norm: Literal["linf", "l2"]
    eps: float
    steps: int
    abs_stepsize: float
    random_start: bool = True
    bounds: tuple[float, float] | None = PIXELS

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm of an attack must be linf or l2, got {self.norm}")
        widest = self.bounds[1] - self.bounds[0] if self.bounds and self.norm == "linf" else float("inf")
        if not 0 < self.eps <= widest:
            rule = f"in (0, {widest:g}], the range of a pixel" if widest < float("inf") else "> 0"
            raise ValueError(f"eps of an attack must be {rule}, got {self.eps:g}")
        if self.steps < 1:
            raise ValueError(f"steps of an attack must be at least 1, got {self.steps}")
        if not 0 < self.abs_stepsize <= self.eps:
            raise ValueError(f"abs_stepsize of an attack must be in (0, eps={self.eps:g}], got {self.abs_stepsize:g}")

    def __call__(self, objective: Objective, inputs: Tensor, index: Tensor, *, seed: int, epoch: int = 0) -> Tensor:
        """Adversarial inputs.

        Args:
            objective: what to raise.
            inputs: (N, ...) float, within the bounds.
            index: (N,) int64, the samples' ids.
            seed: of the random start.
            epoch: of the random start.

        Returns:
            Like inputs, at most eps from them, without a gradient.
        """
        inputs = inputs.detach()
        moved = self._start(inputs, index, seed, epoch) if self.random_start else inputs
        for _ in range(self.steps):
            at = moved.detach().requires_grad_()
            with torch.enable_grad():
                (gradient,) = torch.autograd.grad(objective(at), at)
            moved = self._projected(moved + self.abs_stepsize * self._direction(gradient), inputs)
        return moved

    def _start(self, inputs: Tensor, index: Tensor, seed: int, epoch: int) -> Tensor:
        count = inputs[0].numel()
        if self.norm == "linf":
            delta = (2 * uniform(seed, epoch, index, count, RngStream.ATTACK) - 1) * self.eps
        else:
            direction = normal(seed, epoch, index, count, RngStream.ATTACK)
            share = uniform(seed, epoch, index, 1, RngStream.ATTACK) ** (1 / count)
            delta = self.eps * share * direction / direction.norm(dim=1, keepdim=True)
        return self._projected(inputs + delta.view_as(inputs).to(inputs.dtype), inputs)

    def _direction(self, gradient: Tensor) -> Tensor:
        if self.norm == "linf":
            return gradient.sign()
        # A tiny gradient has a direction too; its square would not be a number that float32 knows.
        scaled = gradient / _of_sample(gradient.abs().flatten(1).amax(1).clamp(min=1e-38), gradient)
        return scaled / _of_sample(scaled.flatten(1).norm(dim=1).clamp(min=1e-12), gradient)

    def _projected(self, moved: Tensor, inputs: Tensor) -> Tensor:
        delta = moved - inputs
        if self.norm == "linf":
            delta = delta.clamp(-self.eps, self.eps)
        else:
            delta = delta * _of_sample((self.eps / delta.flatten(1).norm(dim=1).clamp(min=self.eps)), delta)
        moved = inputs + delta
        return moved if self.bounds is None else moved.clamp(*self.bounds)


def _of_sample(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))


def untargeted_loss(network: Network, target: Tensor, kind: Kind) -> Objective:
    """The attacker's usual objective, to be wrong: `log_cross_entropy` with the true labels.

    Args:
        network: inputs to logits (N, C, ...).
        target: see `kdexp.contracts.Kind`, all labelled; or masks.
        kind: what they mean.
    """
    return lambda inputs: log_cross_entropy(network(inputs), target, kind).sum()


def log_cross_entropy(logits: Tensor, target: Tensor, kind: Kind) -> Tensor:
    """The logarithm of each sample's cross entropy, in sigmoid tasks and of masks of the sum over its labels.

    A step of an attack depends on the direction of a sample's gradient alone, which is that of cross entropy, or of its
    mean over the labelled pixels. But that one rounds to zero where a network is certain of the truth, and an attack
    would stop there.

    Args:
        logits: (N, C), or (N, C, H, W) for masks.
        target: see `untargeted_loss`. Pixels without a class do not count; a mask without any has a gradient of 0.
        kind: what they mean.

    Returns:
        (N,) float32; -Inf of a mask without a class.
    """
    logits = at_least_fp32(logits)
    if kind == "multiclass":
        truth = target.clamp(min=0).unsqueeze(1)
        others = logits.scatter(1, truth, -torch.inf).logsumexp(1, keepdim=True)
        lost = others - logits.gather(1, truth)  # cross entropy is softplus of this
    else:
        lost = torch.where(target.view_as(logits) > 0.5, -logits, logits)
    far = -15.0  # below, softplus(x) is exp(x) to the last bit of float32
    each = torch.where(lost < far, lost, F.softplus(lost.clamp(min=far)).log())
    return each.masked_fill(target.view_as(each) < 0, -torch.inf).flatten(1).logsumexp(1)


class Normalized(nn.Module):
    """A network with the normalisation of its inputs: from images in [0, 1] to logits.

    Args:
        network: takes normalised images.
        mean: of each channel, or one for all.
        std: likewise.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: Network, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(-1, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) in [0, 1] to (N, classes)."""
        return self.network((images - self.mean) / self.std)


@contextmanager
def in_eval_mode(network: nn.Module) -> Iterator[None]:
    """Batch statistics and dropout as they are when the network is used; an attack must not move them."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def autoattack(
    network: Network,
    inputs: Tensor,
    target: Tensor,
    *,
    norm: Literal["linf", "l2"],
    eps: float,
    seed: int,
    attacks: Sequence[str] | None = None,
) -> tuple[Tensor, list[str]]:
    """AutoAttack: Croce and Hein 2020 (arXiv 2003.01690), by its authors' code (the package pyautoattack).

    Args:
        network: images in [0, 1] to logits (N, C).
        inputs: (N, C, H, W) in [0, 1].
        target: (N,) int64.
        norm: linf or l2.
        eps: radius of the ball.
        seed: of its random numbers.
        attacks: some of apgd-ce, apgd-dlr, apgd-t, fab, fab-t, square; None: the standard four, apgd-ce, apgd-t, fab-t
            and square, with nine target classes or as many as there are. The targeted ones need four classes; with
            fewer they are apgd-ce, fab and square.

    Returns:
        Adversarial inputs, the clean ones where the network is wrong already or nothing was found; and what the code
        warns of: each of these means that the result is not to be trusted.

    Raises:
        ValueError: the package is not installed.
    """
    try:
        from pyautoattack import AutoAttack
    except ImportError as error:
        raise ValueError("autoattack needs the package pyautoattack: pip install 'kdexp[attacks]'") from error
    with torch.no_grad():
        classes = network(inputs[:1]).shape[1]
    if attacks is None:
        attacks = ["apgd-ce", "apgd-t", "fab-t", "square"] if classes >= 4 else ["apgd-ce", "fab", "square"]
    names = {"linf": "Linf", "l2": "L2"}
    runner = AutoAttack(
        network, norm=names[norm], eps=eps, seed=seed, device=inputs.device, attacks=list(attacks), version="custom"
    )
    # The settings of its "standard" version, which is that of the leaderboard.
    runner.apgd.n_restarts = runner.fab.n_restarts = 1
    runner.apgd_targeted.n_target_classes = runner.fab.n_target_classes = min(9, classes - 1)
    flags = _Flags(logging.WARNING)
    runner.logger.addHandler(flags)
    try:
        adversarial, _ = runner.run_standard_evaluation(inputs, target, batch_size=len(inputs))
    finally:
        runner.logger.removeHandler(flags)
    return adversarial, flags.messages


class _Flags(logging.Handler):
    def __init__(self, level: int) -> None:
        super().__init__(level)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())
