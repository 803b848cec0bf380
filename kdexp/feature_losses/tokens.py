"""What the losses of token states share: which tokens are there, and which layers of two encoders correspond."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.maps import unit
from kdexp.losses.dtype import at_least_fp32
from kdexp.losses.shapes import check_shapes


def token_mse(student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
    """``mean (s - t)^2`` over features, the tokens of a text, and texts.

    Every text counts alike, however many tokens it has: so the value is the mean of those of the batch's parts, on
    whatever ranks they are.

    Args:
        student_states: (N, L, F).
        teacher_states: the same shape; gets no gradient.
        mask: (N, L), above 0 where there is a token.

    Returns:
        Scalar >= 0; 0 where the states of all tokens are equal.

    Raises:
        ValueError: shapes that do not fit.
    """
    states = {"student_states": student_states, "teacher_states": teacher_states}
    check_shapes("N L F, N L F, N L", "token_mse", **states, mask=mask)
    student, teacher = at_least_fp32(student_states), at_least_fp32(teacher_states.detach())
    return mean_of_tokens((student - teacher).square().mean(2), mask)


def token_cosine(student_states: Tensor, teacher_states: Tensor, mask: Tensor) -> Tensor:
    """``1 - mean cos(s, t)`` over the tokens of a text, and texts.

    Args:
        student_states: (N, L, F).
        teacher_states: the same shape; gets no gradient.
        mask: (N, L), above 0 where there is a token.

    Returns:
        Scalar in [0, 2]; 0 where the two states of each token have one direction.

    Raises:
        ValueError: shapes that do not fit.
    """
    states = {"student_states": student_states, "teacher_states": teacher_states}
    check_shapes("N L F, N L F, N L", "token_cosine", **states, mask=mask)
    student, teacher = at_least_fp32(student_states), at_least_fp32(teacher_states.detach())
    return 1 - mean_of_tokens((unit(student) * unit(teacher)).sum(2), mask)


def mean_of_tokens(values: Tensor, mask: Tensor) -> Tensor:
    """The mean over the tokens of each text, and the mean of these: a scalar.

    Args:
        values: (N, L); those of padding may be anything.
        mask: (N, L), above 0 where there is a token; each text has at least one.

    Raises:
        ValueError: shapes that do not fit.
    """
    check_shapes("N L, N L", values=values, mask=mask)
    is_token = mask > 0
    return (values.where(is_token, 0).sum(1) / is_token.sum(1)).mean()


def spread_stages(pair: TeacherStudentPair) -> list[tuple[str, str]]:
    """(student path, teacher path) of stages that correspond, from input to output, their last ones as well.

    The stages of the deeper network are those at even distances: of 12 and a student's 4, the third, the sixth, the
    ninth and the last (Sun et al. 2019 call it skip, Jiao et al. 2020 uniform).
    """
    student, teacher = pair.student.layers.stages, pair.teacher.layers.stages
    both = min(len(student), len(teacher))
    return [(student[i * len(student) // both - 1], teacher[i * len(teacher) // both - 1]) for i in range(1, both + 1)]


def is_padded(side: NetworkFeatures, path: str) -> bool:
    """Whether what is read there are sequences with padding."""
    return side.layers.mask is not None and len(side.shapes[path]) == 3


class ComparedTokens:
    """Takes out of both networks' outputs the states that a loss compares token by token.

    A student in training may have shorter sequences than its teacher, whose padding is then cut.

    Args:
        method: for messages.
        pair: what the loss is built from.
        student_paths: of the student's states.
        teacher_paths: of the teacher's.

    Attributes:
        student_paths: what is to be read of the student: these and its mask.
        teacher_paths: likewise.

    Raises:
        ValueError: something else than sequences is read there, or the networks have other tokens.
    """

    def __init__(
        self, method: str, pair: TeacherStudentPair, student_paths: Sequence[str], teacher_paths: Sequence[str]
    ) -> None:
        self._method, self._states = method, ([*student_paths], [*teacher_paths])
        sides = (pair.student, pair.teacher)
        for side, paths in zip(sides, self._states, strict=True):
            for path in paths:
                shape = tuple(side.shapes[path][1:])
                if len(shape) != 2:
                    raise ValueError(f"feature_loss={method} needs sequences of tokens, got {shape} from {path!r}")
        self._masks = [side.layers.mask for side in sides]
        self._widths = [
            [side.shapes[path][2] for path in paths] for side, paths in zip(sides, self._states, strict=True)
        ]
        lengths = [side.shapes[paths[0]][1] for side, paths in zip(sides, self._states, strict=True)]
        if lengths[0] != lengths[1] or (self._masks[0] is None) != (self._masks[1] is None):
            self._refuse(f"{lengths[0]} and {lengths[1]} of a text")
        self.student_paths, self.teacher_paths = (
            [*paths, *([mask] if mask is not None else [])]
            for paths, mask in zip(self._states, self._masks, strict=True)
        )

    def __call__(self, student: Outputs, teacher: Outputs) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """The student's states and the teacher's, each (N, L, F), and which of them are tokens, (N, L) bool.

        Raises:
            ValueError: states with other dimensions or features than those that the loss was built for, not of the
                same samples, or of other tokens.
        """
        patterns: list[str] = []
        named: dict[str, Tensor] = {}
        found: list[list[Tensor]] = []
        masks: list[Tensor] = []
        for network, outputs, paths, widths, mask, length in zip(
            ("student", "teacher"),
            (student, teacher),
            self._states,
            self._widths,
            self._masks,
            ("L", "L'"),
            strict=True,
        ):
            patterns += [f"N {length} {width}" for width in widths]
            named |= {f"{network}.features[{path!r}]": outputs.features[path] for path in paths}
            found.append([outputs.features[path] for path in paths])
            if mask is not None:
                patterns.append(f"N {length}")
                named[f"{network}.features[{mask!r}]"] = outputs.features[mask]
                masks.append(outputs.features[mask] > 0)
        check_shapes(", ".join(patterns), **named)
        own, goal = found
        length = min(own[0].shape[1], goal[0].shape[1])
        mine, others = masks or (torch.ones_like(states[0][..., 0], dtype=torch.bool) for states in found)
        cut = mine[:, length:].sum() + others[:, length:].sum()
        if cut or not torch.equal(mine[:, :length], others[:, :length]):
            self._refuse("other numbers of them in a batch")
        return [each[:, :length] for each in own], [each[:, :length] for each in goal], mine[:, :length]

    def _refuse(self, got: str) -> None:
        rule = "needs a student and a teacher with the same tokens (tokenizer, vocab_size, max_tokens)"
        raise ValueError(f"feature_loss={self._method} {rule}, got {got}")
