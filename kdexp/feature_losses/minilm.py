"""The feature distillation term of Wang et al. (NeurIPS 2020, arXiv 2002.10957).

"MiniLM: Deep Self-Attention Distillation for Task-Agnostic Compression of Pre-Trained Transformers". Relations of any
number of heads are as in Wang et al. 2021, "MiniLMv2" (arXiv 2012.15828).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor, nn

from kdexp.contracts import Batch, NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.tokens import ComparedTokens, mean_of_tokens
from kdexp.features import find
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes

_PARTS = ("query", "key", "value")


def minilm(
    student_queries: Tensor,
    student_keys: Tensor,
    teacher_queries: Tensor,
    teacher_keys: Tensor,
    mask: Tensor,
    heads: int = 1,
) -> Tensor:
    """``mean KL(softmax(q_t k_t / sqrt(d_t)) || softmax(q_s k_s / sqrt(d_s)))`` over heads, tokens and texts.

    With queries and keys it is the paper's equation 7, the attention; with the values for both, equation 9, their
    relation. Features are cut into so many heads of d each. Only tokens are attended to, and only they are counted.

    Args:
        student_queries: (N, L, F).
        student_keys: (N, L, F).
        teacher_queries: (N, L, F'); gets no gradient.
        teacher_keys: (N, L, F'); gets no gradient.
        mask: (N, L), above 0 where there is a token; each text has at least one.
        heads: of both; divides F and F'.

    Returns:
        Scalar >= 0; 0 where the two networks' relations are the same.

    Raises:
        ValueError: shapes that do not fit.
    """
    named = {
        "student_queries": student_queries,
        "student_keys": student_keys,
        "teacher_queries": teacher_queries,
        "teacher_keys": teacher_keys,
        "mask": mask,
    }
    check_shapes("N L F, N L F, N L F', N L F', N L", "minilm", **named)
    is_token = mask > 0
    with torch.autocast(mask.device.type, enabled=False):  # it would do the products in half precision
        log_p = _relation(teacher_queries.detach(), teacher_keys.detach(), is_token, heads)
        log_q = _relation(student_queries, student_keys, is_token, heads)
    kept = is_token[:, None, None]
    divergence = (log_p.exp() * (log_p - log_q).where(kept, 0)).sum(3)
    return mean_of_tokens(divergence.mean(1), mask)


def _relation(queries: Tensor, keys: Tensor, is_token: Tensor, heads: int) -> Tensor:
    """(N, heads, L, L) logarithms, over the last dimension; padding has next to none."""
    n, length, features = queries.shape
    size = (n, length, heads, features // heads)
    parts = [at_least_fp32(each).reshape(size).transpose(1, 2) for each in (queries, keys)]
    scores: Tensor = parts[0] @ parts[1].transpose(2, 3) / size[3] ** 0.5
    seen: Tensor = scores.masked_fill(~is_token[:, None, None], torch.finfo(scores.dtype).min)
    return seen.log_softmax(3)


class MiniLM(nn.Module):
    """`minilm` of the attention and of the values of the last layers, added.

    No layers are matched and no widths: the student may have any. What is read are the linear layers ``query``, ``key``
    and ``value`` of an attention in the last stage.

    Args:
        pair: see `kdexp.contracts.TeacherStudentPair`.
        heads: of the relations, in both networks; None: those of the teacher's attention, which the student then has
            in the paper. With another number they are relations of other parts of the features (MiniLMv2).

    Raises:
        ValueError: a network without such layers, other tokens, or a number that does not divide both widths.
    """

    def __init__(self, pair: TeacherStudentPair, *, heads: int | None = None) -> None:
        super().__init__()
        own, goal = (_attention(side) for side in (pair.student, pair.teacher))
        paths = [[f"{attention}.{part}" for part in _PARTS] for attention in (own, goal)]
        sides = [_with_shapes(side, of) for side, of in zip((pair.student, pair.teacher), paths, strict=True)]
        self._tokens = ComparedTokens("minilm", replace(pair, student=sides[0], teacher=sides[1]), *paths)
        self.student_paths, self.teacher_paths = self._tokens.student_paths, self._tokens.teacher_paths
        module = find(pair.teacher.network, goal)
        named = (getattr(module, name, None) for name in ("heads", "num_attention_heads"))
        found = heads if heads is not None else next((number for number in named if number is not None), 1)
        widths = [side.shapes[of[0]][2] for side, of in zip(sides, paths, strict=True)]
        if found < 1 or any(width % found for width in widths):
            rule = f"must divide the widths of student and teacher, {widths[0]} and {widths[1]}"
            raise ValueError(f"feature_loss.minilm.heads {rule}, got {found}")
        self._heads: int = found

    def forward(self, student: Outputs, teacher: Outputs, batch: Batch | None = None) -> Tensor:
        """Scalar; see `minilm`. The batch is not used."""
        own, goal, mask = self._tokens(student, teacher)
        (query, key, value), (goal_query, goal_key, goal_value) = own, goal
        attention = minilm(query, key, goal_query, goal_key, mask, self._heads)
        return attention + minilm(value, value, goal_value, goal_value, mask, self._heads)


def _attention(side: NetworkFeatures) -> str:
    """The path of the attention in the last stage."""
    last = side.layers.stages[-1]
    within = last.partition(":")[0]
    found: dict[str, nn.Module] = dict(find(side.network, within).named_modules(prefix=within))
    for path, module in found.items():
        if all(isinstance(module._modules.get(part), nn.Linear) for part in _PARTS):
            return path
    raise ValueError(
        f"feature_loss=minilm needs linear layers {', '.join(_PARTS)} in the last stage, got none in {last!r}"
    )


def _with_shapes(side: NetworkFeatures, paths: Sequence[str]) -> NetworkFeatures:
    """The network with the shapes of what its linear layers give for each token of the last stage."""
    tokens = side.shapes[side.layers.stages[-1]][:2]
    shapes = {path: (*tokens, cast(nn.Linear, find(side.network, path)).out_features) for path in paths}
    return replace(side, shapes={**side.shapes, **shapes})
