"""The messages by hand; that every loss refuses what does not fit is in test_shape_laws.py."""

import re
from functools import partial

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from kdexp.losses.cross_entropy import cross_entropy
from kdexp.losses.kd import kd
from kdexp.losses.shapes import check_logits, check_scalars, check_shapes, check_target


@pytest.mark.parametrize(
    ("patterns", "shapes"),
    [
        ("N C H W, N C H W, C", [(6, 4, 3, 2), (6, 4, 3, 2), (4,)]),
        ("N C H W, N C' H' W'", [(6, 4, 3, 2), (6, 5, 1, 7)]),
        ("N C ..., N ...", [(6, 4), (6,)]),
        ("N C ..., N ...", [(6, 4, 3, 2), (6, 3, 2)]),
        ("N F *, N F' *", [(6, 4), (6, 5, 3, 2)]),
        ("N any 4, N any", [(6, 1, 4), (6, 2)]),
    ],
)
def test_a_word_is_one_size_wherever_it_stands(patterns, shapes):
    check_shapes(patterns, **{f"x{i}": torch.zeros(shape) for i, shape in enumerate(shapes)})


@pytest.mark.parametrize(
    ("patterns", "shapes", "message"),
    [
        (
            "N C H W, N C H W, C",
            [(6, 4, 3, 2), (6, 4, 3, 2), (1, 4, 1, 1)],
            "c must have shape (C,) with C = 4 of a, got (1, 4, 1, 1)",
        ),
        ("N C H W", [(6, 4)], "a must have shape (N, C, H, W), got (6, 4)"),
        ("N F, N F'", [(6, 4), (1, 5)], "b must have shape (N, F') with N = 6 of a, got (1, 5)"),
        ("N C ..., N C ...", [(6, 4), (6, 1)], "b must have shape (N, C, ...) with N = 6, C = 4 of a, got (6, 1)"),
        ("N ..., N ...", [(6, 3), (6,)], "b must have shape (N, ...) with N = 6, ... = (3,) of a, got (6,)"),
        ("N *", [()], "a must have shape (N, *), got ()"),
        ("N 4 any, N", [(6, 3, 2), (6,)], "a must have shape (N, 4, any), got (6, 3, 2)"),
        (
            "N I, N J, I J",
            [(6, 2), (6, 3), (3, 2)],
            "c must have shape (I, J) with I = 2 of a and J = 3 of b, got (3, 2)",
        ),
    ],
)
def test_what_does_not_fit_is_named_with_the_rule_and_with_whom_it_does_not_fit(patterns, shapes, message):
    with pytest.raises(ValueError, match="must have shape") as refused:
        check_shapes(patterns, **{name: torch.zeros(shape) for name, shape in zip("abc", shapes, strict=False)})
    assert str(refused.value) == message


@pytest.mark.parametrize("shapes", [[(6, 4, 3, 2)], [(6, 4), (6, 4, 3, 2)]])
def test_a_method_of_vectors_says_how_to_come_from_maps_to_vectors(shapes):
    tensors = {name: torch.zeros(shape) for name, shape in zip("ab", shapes, strict=False)}
    with pytest.raises(ValueError, match="must have shape") as refused:
        check_shapes(", ".join(["N F"] * len(shapes)), "rkd", **tensors)
    assert "for rkd, got (6, 4, 3, 2): .mean((2, 3)) pools maps to vectors, .flatten(1) keeps" in str(refused.value)


def test_a_method_of_maps_says_that_vectors_have_no_positions():
    with pytest.raises(
        ValueError, match=r"^a must have shape \(N, C, H, W\) for at, got \(6, 4\): vectors have no pos"
    ):
        check_shapes("N C H W", "at", a=torch.zeros(6, 4))


def test_binary_logits_have_one_class():
    check_logits("binary", logits=torch.zeros(6, 1))
    check_logits("multilabel", logits=torch.zeros(6, 4))
    with pytest.raises(ValueError, match=r"^logits must have shape \(N, 1, \.\.\.\), got \(6, 2\)$"):
        check_logits("binary", logits=torch.zeros(6, 2))


def test_numbers_and_scalar_tensors_are_scalars():
    check_scalars(margin=1.0, temperature=torch.tensor(2.0))
    with pytest.raises(ValueError, match=r"^temperature must be a scalar, got shape \(1,\)$"):
        check_scalars(margin=1.0, temperature=torch.ones(1))


NUMBERS = "int64 class numbers (6,), or after mixup floats (6, 4)"


@pytest.mark.parametrize(
    ("kind", "logits", "target", "said"),
    [
        ("multiclass", (6, 4), torch.zeros(6, 1, dtype=torch.int64), f"{NUMBERS}, got int64 (6, 1)"),
        ("multiclass", (6, 4), torch.zeros(6), f"{NUMBERS}, got float32 (6,)"),
        ("multiclass", (6, 4), torch.zeros(6, dtype=torch.int32), f"{NUMBERS}, got int32 (6,)"),
        ("binary", (6, 1), torch.zeros(1, 6), "(6,) or (6, 1), got float32 (1, 6)"),
        ("binary", (6, 1, 3, 2), torch.zeros(6, 2, 3), "(6, 3, 2) or (6, 1, 3, 2), got float32 (6, 2, 3)"),
        ("multilabel", (6, 4), torch.zeros(4, 6), "(6, 4), got float32 (4, 6)"),
    ],
)
def test_a_target_that_does_not_belong_to_the_logits_is_named_with_the_rule(kind, logits, target, said):
    for check in (partial(check_target, target, logits), partial(cross_entropy, torch.zeros(logits), target)):
        with pytest.raises(ValueError, match=rf"^target must be {re.escape(said)}$"):
            check(kind=kind)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.int64, torch.float32, torch.bool])
def test_a_binary_target_may_have_the_logits_shape_and_any_dtype(shape, dtype):
    logits, target = torch.randn(6, 1), torch.tensor([0, 1, 1, 0, 1, 0])
    expected = cross_entropy(logits, target, kind="binary")
    assert torch.equal(cross_entropy(logits, target.to(dtype).view(shape), kind="binary"), expected)


def test_shapes_of_a_symbolic_trace_are_checked_too():
    traced = make_fx(lambda x, y: kd(x, y, 2.0), tracing_mode="symbolic")(torch.randn(6, 4), torch.randn(6, 4))
    student, teacher = torch.randn(2, 9, 4)
    assert torch.equal(traced(student, teacher), kd(student, teacher, 2.0))
    with pytest.raises(ValueError, match=r"^teacher_logits must have shape "):
        make_fx(lambda x, y: kd(x, y, 2.0), tracing_mode="symbolic")(torch.randn(6, 4), torch.randn(1, 4))
