"""The feature distillation term of Sun et al., "Patient Knowledge Distillation for BERT Model Compression".

EMNLP 2019, arXiv 1908.09355.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import Batch, NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import Compared, map_shape, matched_stages, unit
from kdexp.feature_losses.tokens import is_padded, spread_stages
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def pkd(student_states: Tensor, teacher_states: Tensor) -> Tensor:
    """``mean (s / ||s|| - t / ||t||)^2`` over samples and features, of one layer.

    The paper's equation 7 has the sum over features and samples; the authors' code, and the weights that go with it,
    have the mean.

    Args:
        student_states: (N, F), one vector of each sample.
        teacher_states: the same shape; gets no gradient.

    Returns:
        Scalar in [0, 4 / F]; 0 when each sample's two vectors have one direction.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N F, N F", "pkd", student_states=student_states, teacher_states=teacher_states)
    return F.mse_loss(unit(at_least_fp32(student_states)), unit(at_least_fp32(teacher_states.detach())))


class PKD(nn.Module):
    """The mean of `pkd` over all stages but the last, whose part the soft term has.

    The paper's vector is the state of the first token, which its classifier reads. Where the classifier reads the mean
    over the tokens, that is the vector; maps are averaged over their positions. Where the two networks differ in their
    number of features, a trained linear layer brings the student's to the teacher's; the paper's student has the width
    of its teacher. The two may have other tokens.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        teacher_stages: ``skip``: at even distances, of 12 and a student of 6 the second, the fourth, ... the tenth;
            ``last``: the last ones but one, of 12 the seventh to the eleventh.
        states: what stands for a sequence: its ``mean`` or its ``first`` state.

    Raises:
        ValueError: a setting breaks a rule, or a network has a single stage.
    """

    def __init__(
        self,
        pair: TeacherStudentPair,
        *,
        teacher_stages: Literal["skip", "last"] = "skip",
        states: Literal["mean", "first"] = "mean",
    ) -> None:
        super().__init__()
        matched = {"skip": spread_stages, "last": matched_stages}.get(teacher_stages)
        if matched is None:
            raise ValueError(f"feature_loss.pkd.teacher_stages must be skip or last, got {teacher_stages}")
        if states not in ("mean", "first"):
            raise ValueError(f"feature_loss.pkd.states must be mean or first, got {states}")
        stages = matched(pair)[:-1]
        if not stages:
            counts = " and ".join(str(len(side.layers.stages)) for side in (pair.student, pair.teacher))
            raise ValueError(f"feature_loss=pkd needs at least 2 stages in student and teacher, got {counts}")
        self._own, self._goal = ([*paths] for paths in zip(*stages, strict=True))
        self._compared = Compared(pair, self._own, self._goal)
        self._of_first = states == "first"
        self._masks = (_mask(pair.student, self._own), _mask(pair.teacher, self._goal))
        self.student_paths, self.teacher_paths = (
            [*paths, *([mask] if mask is not None else [])]
            for paths, mask in zip((self._own, self._goal), self._masks, strict=True)
        )
        widths = [(map_shape(pair.student.shapes[o])[1], map_shape(pair.teacher.shapes[g])[1]) for o, g in stages]
        self.projections = nn.ModuleList(nn.Identity() if own == goal else nn.Linear(own, goal) for own, goal in widths)

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `pkd`. The batch is not used."""
        own, goal = self._compared(student, teacher)
        vectors = (
            [self._vector(network, outputs, path, each, mask) for path, each in zip(paths, features, strict=True)]
            for network, outputs, paths, features, mask in (
                ("student", student, self._own, own, self._masks[0]),
                ("teacher", teacher, self._goal, goal, self._masks[1]),
            )
        )
        terms = [pkd(project(s), t) for project, s, t in zip(self.projections, *vectors, strict=True)]
        return torch.stack(terms).mean()

    def _vector(self, network: str, outputs: Outputs, path: str, features: Tensor, mask: str | None) -> Tensor:
        """(N, F) of what was read at a path."""
        if features.ndim == 2:
            return features
        if features.ndim == 4:
            return features.mean((2, 3))
        if self._of_first:
            return features[:, 0]
        if mask is None:
            return features.mean(1)
        named = {f"{network}.features[{name!r}]": outputs.features[name] for name in (path, mask)}
        check_shapes("N L any, N L", **named)
        kept = (outputs.features[mask] > 0).unsqueeze(2)
        return at_least_fp32(features).where(kept, 0).sum(1) / kept.sum(1)


def _mask(side: NetworkFeatures, paths: list[str]) -> str | None:
    return side.layers.mask if any(is_padded(side, path) for path in paths) else None
