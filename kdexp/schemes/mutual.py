"""Students that learn together."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kdexp.config.require import Values
from kdexp.contracts import Batch, Outputs
from kdexp.data.settings import Dataset
from kdexp.schemes.base import Scheme, SchemeContext, check_networks
from kdexp.training.distiller import Distiller, OptimizerFactory


@dataclass(frozen=True, kw_only=True)
class Mutual(Scheme):
    """Students that learn from the labels and from each other at the same time: see `MutualDistiller`.

    Attributes:
        peers: the settings of each peer's network, by its name; empty: a twin of the student.
    """

    peers: Mapping[str, Values] | None = None

    needs: ClassVar[str] = "own"

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the peers' outputs."""
        super().check(setting, dataset)
        check_networks(f"{setting}.peers", self.peers or {}, dataset)

    def peer_settings(self, student: Values) -> Mapping[str, Values]:
        """The peers, or a twin of the student."""
        return self.peers or {"twin": student}

    def distiller(self, context: SchemeContext) -> Callable[..., Distiller]:
        """See `MutualDistiller`."""
        return partial(MutualDistiller, peers=context.peers)


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

    def __init__(
        self, student: nn.Module, optimizer: OptimizerFactory, *, peers: Mapping[str, nn.Module], **settings: Any
    ) -> None:
        super().__init__(student, optimizer, **settings)
        self.peers = nn.ModuleDict(peers)

    def training_terms(self, batch: Batch) -> tuple[Tensor, dict[str, tuple[float, Tensor]]]:
        """The student's logits, and the terms of everybody."""
        logits = self.student(batch.inputs)
        everyone = {"": logits} | {f"_{name}": peer(batch.inputs) for name, peer in self.peers.items()}
        terms: dict[str, tuple[float, Tensor]] = {}
        for suffix, own in everyone.items():
            others = [other.detach() for name, other in everyone.items() if name != suffix]
            terms |= {f"{part}{suffix}": term for part, term in self._among(own, others, batch).items()}
        return logits, terms

    def validation_terms(self, student: Outputs, batch: Batch, batch_idx: int) -> dict[str, tuple[float, Tensor]]:
        """The student's own terms; its peers are its teachers."""
        return self._among(student.logits, [peer(batch.inputs) for peer in self.peers.values()], batch)

    def _among(self, own: Tensor, others: Sequence[Tensor], batch: Batch) -> dict[str, tuple[float, Tensor]]:
        each = [self.logit_terms(Outputs(own), Outputs(other), batch) for other in others]
        weight, _ = each[0]["soft"]
        return {"hard": each[0]["hard"], "soft": (weight, torch.stack([terms["soft"][1] for terms in each]).mean())}
