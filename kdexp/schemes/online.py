"""Distillation without a trained teacher: from the student's own average, or among students that learn together."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from kdexp.contracts import Batch, Outputs
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller


class EMADistiller(Distiller):
    """The teacher is the exponential moving average of the student's own weights.

    Mean Teacher of Tarvainen and Valpola 2017 (arXiv 1703.01780), whose consistency term here is the chosen soft loss.
    After step s the average moves by ``1 - min(1 - 1 / (s + 1), decay)`` towards the student, as in the authors' code,
    so that it is not made of initial weights for long. It is run in eval mode; batch norm's statistics are averaged
    like weights. The checkpoints have it, so that a resumed run does; the exported student does not.

    Args:
        student: see `Distiller`; `Distiller` takes all other arguments but teacher and feature_losses.
        decay: of the average, in [0, 1).
        settings: see `Distiller`.
    """

    def __init__(self, student: nn.Module, *args: Any, decay: float, **settings: Any) -> None:
        def move(averages: Any, current: Any, updates: Tensor | int) -> None:
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, current, 1 - min(1 - 1 / (int(updates) + 1), decay))
            else:  # batch norm's count of batches
                torch._foreach_copy_(averages, current)

        average = AveragedModel(student, multi_avg_fn=move, use_buffers=True)
        super().__init__(student, *args, teacher=Teacher([average]), **settings)
        self._averaged = [average]  # in a list: not a module of this one, like any teacher

    @property
    def average(self) -> AveragedModel:
        """The averaged network; its ``module`` is of the student's architecture."""
        return self._averaged[0]

    def validation_teacher_outputs(self, batch: Batch, batch_idx: int, temperature: float) -> Outputs | None:
        """The average's outputs, by a forward pass."""
        return self.teacher_outputs(batch.inputs)  # it moves: nothing is remembered

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Move the average."""
        self.average.update_parameters(self.student)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the average with the student."""
        checkpoint["average"] = self.average.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue with the average as it was."""
        self.average.load_state_dict(checkpoint["average"])


class MutualDistiller(Distiller):
    """Students that learn from the labels and from each other at the same time, with no teacher.

    Zhang et al. 2018, "Deep Mutual Learning" (arXiv 1706.00384): each of the K networks has the loss ``alpha * L_hard +
    (1 - alpha) * mean over the others of L_soft``, in which the others' logits are constants: equation 8, with the
    chosen soft loss for KL. The paper updates one network after another, each against the others' fresh predictions;
    here all take their step at once from one forward pass, which costs 1 / K of that.

    The student and its metrics are those of any run; a peer's terms are logged as ``hard_NAME`` and ``soft_NAME``.

    Args:
        student: see `Distiller`; `Distiller` takes all other arguments but teacher and feature_losses.
        peers: name -> network that learns along.
        settings: see `Distiller`.
    """

    _has_peers = True

    def __init__(self, student: nn.Module, *args: Any, peers: Mapping[str, nn.Module], **settings: Any) -> None:
        super().__init__(student, *args, **settings)
        self.peers = nn.ModuleDict(peers)

    def training_terms(self, batch: Batch) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """The student's logits, and the terms of everybody."""
        logits = self.student(batch.inputs)
        everyone = {"": logits} | {f"_{name}": peer(batch.inputs) for name, peer in self.peers.items()}
        terms: dict[str, tuple[float, Tensor]] = {}
        for suffix, own in everyone.items():
            others = [other.detach() for name, other in everyone.items() if name != suffix]
            terms |= {f"{part}{suffix}": term for part, term in self._among(own, others, batch.target).items()}
        return logits, terms

    def validation_terms(self, logits: Tensor, batch: Batch, batch_idx: int) -> dict[str, tuple[float, Tensor]]:
        """The student's own terms; its peers are its teachers."""
        return self._among(logits, [peer(batch.inputs) for peer in self.peers.values()], batch.target)

    def _among(self, own: Tensor, others: Sequence[Tensor], target: Tensor) -> dict[str, tuple[float, Tensor]]:
        each = [self.logit_terms(own, Outputs(other), target) for other in others]
        weight, _ = each[0]["soft"]
        return {"hard": each[0]["hard"], "soft": (weight, torch.stack([terms["soft"][1] for terms in each]).mean())}
