"""What watches training steps: values that are NaN or Inf, and how the gradients of the terms relate."""

import math
from collections.abc import Iterable, Mapping

import pytorch_lightning as pl
import torch
from torch import Tensor, nn


class Diverged(RuntimeError):
    """A part of the loss, a weight or a validation metric became NaN or Inf."""

    status = "diverged"  # in results.json


class DivergenceWatch:
    """Stops a training on a value that is NaN or Inf.

    On a GPU looking at a value waits for the device, and one of several ranks must not stop without the others. So
    there the first bad step is noted on the device and looked at only now and then, by all ranks at the same step, and
    always before a checkpoint is written.
    """

    def __init__(self) -> None:
        self._first_bad: Tensor | None = None
        self._names: tuple[str, ...] = ()

    def watch(self, values: Tensor, names: Iterable[str], trainer: pl.Trainer) -> None:
        """Look at the parts of the loss in this step.

        Args:
            values: (parts,) of this step.
            names: of the parts.
            trainer: of the training.

        Raises:
            Diverged: a part is NaN or Inf, in this step or one before.
        """
        at_once = values.device.type == "cpu" and trainer.world_size == 1
        if at_once and math.isfinite(float(values.sum())):
            return
        if self._first_bad is None:
            self._first_bad = torch.full_like(values, torch.inf)
        here = torch.full_like(values, float(trainer.global_step))
        self._first_bad = torch.where(values.isfinite(), self._first_bad, torch.minimum(self._first_bad, here))
        self._names = tuple(names)
        if at_once or trainer.global_step % 50 == 0:
            self.stop_if_loss_diverged(trainer)

    def stop_if_loss_diverged(self, trainer: pl.Trainer) -> None:
        """Stop, all ranks at once, if a part of the loss was NaN or Inf in any step.

        Raises:
            Diverged: names the part and the first such step.
        """
        if self._first_bad is None:
            return
        first, part = trainer.strategy.reduce(self._first_bad.clone(), reduce_op="min").min(0)
        if first.isfinite():
            name = self._names[int(part)]
            raise Diverged(f"the {name} loss became NaN or Inf at step {int(first)} (epoch {trainer.current_epoch})")


def stop_if_weights_diverged(tensors: Iterable[Tensor], metrics: Mapping[str, float], trainer: pl.Trainer) -> None:
    """Stop if weights or validation metrics are NaN or Inf: what an epoch's last step did is in no loss yet.

    Args:
        tensors: weights and buffers of the module.
        metrics: of this epoch.
        trainer: of the training.

    Raises:
        Diverged: they are not.
    """
    good = torch.stack([tensor.isfinite().all() for tensor in tensors]).all()
    bad = [] if trainer.strategy.reduce(good.float(), reduce_op="min") else ["the weights"]
    measured = [(name, value) for name, value in metrics.items() if name.startswith("val/")]
    bad += [name for name, value in measured if not math.isfinite(value)]
    if bad:
        step = trainer.global_step - 1
        raise Diverged(f"{bad[0]} became NaN or Inf at step {step} (epoch {trainer.current_epoch})")


def gradient_stats(terms: Mapping[str, tuple[float, Tensor]], parameters: list[nn.Parameter]) -> dict[str, Tensor]:
    """Norms of the weighted terms' gradients with respect to the student's parameters, and their cosines.

    ``grad_cosine`` is that of the soft and ``grad_cosine_NAME`` that of another term with the first, which is the hard
    term, unless it has no weight.

    Args:
        terms: name -> (weight, value).
        parameters: of the student, those that are trained.
    """
    stats: dict[str, Tensor] = {}
    first: Tensor | None = None
    for name, (weight, term) in terms.items():
        if weight == 0:
            continue
        gradients = torch.autograd.grad(
            weight * term, parameters, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        flat = torch.cat([g.float().flatten() for g in gradients])
        stats[f"grad_norm_{name}"] = flat.norm()
        if first is None:
            first = flat
        else:
            key = "grad_cosine" if name == "soft" else f"grad_cosine_{name}"
            stats[key] = nn.functional.cosine_similarity(first, flat, dim=0)
    return stats
