"""What a configuration gives a function against the types of its arguments."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, Union

import pytest
from torch import Tensor

from kdexp.config.typed import wrong_argument
from kdexp.experiment.dry_build import dry_build
from kdexp.experiment.experiment import Experiment


def called(
    count: int = 1,
    rate: float = 0.5,
    name: str = "",
    on: bool = True,
    sizes: Sequence[int] = (),
    pair: tuple[Union[float, Tensor], ...] = (),  # noqa: UP007 as torch writes it
    settings: Mapping[str, object] = {},
    limit: float | None = None,
    seen: Callable[[int], int] | None = None,
    kind: Literal["a", "b"] = "a",
    untyped=None,
):
    pass


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": "x"}, "count must be a whole number, got x"),
        ({"count": 1.5}, "count must be a whole number, got 1.5"),
        ({"count": True}, "count must be a whole number, got True"),
        ({"rate": "x"}, "rate must be a number, got x"),
        ({"name": 3}, "name must be a text, got 3"),
        ({"on": 1}, "on must be true or false, got 1"),
        ({"sizes": 3}, "sizes must be a list of whole numbers, got 3"),
        ({"sizes": [1, "a"]}, "sizes must be a list of whole numbers, got [1, 'a']"),
        ({"pair": 0.9}, "pair must be a list of numbers, got 0.9"),
        ({"pair": ["x"]}, "pair must be a list of numbers, got ['x']"),
        ({"settings": "x"}, "settings must be settings, got x"),
        ({"limit": "x"}, "limit must be null or a number, got x"),
        ({"count": 1, "limit": "x"}, "limit must be null or a number, got x"),
    ],
)
def test_the_argument_of_another_type_is_named(values, message):
    assert wrong_argument(called, values) == message


def test_what_fits_or_has_no_plain_type_is_not_named():
    fits = {"count": 2, "rate": 1, "name": "a", "on": False, "sizes": [1], "pair": [0.9, 1], "settings": {}}
    assert wrong_argument(called, fits | {"limit": None, "seen": "x", "kind": "c", "untyped": 3, "other": 4}) is None


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("student.hidden=64", "student.hidden must be a list of whole numbers, got 64"),
        ("student.hidden=[a]", r"student.hidden must be a list of whole numbers, got \['a'\]"),
        ("optimizer.betas=0.9", "optimizer.betas must be a list of numbers, got 0.9"),
        ("teacher.recipe.optimizer.betas=x", "teacher.recipe.optimizer.betas must be a list of numbers, got x"),
        ("scheduler.warmup_ratio=x", "scheduler.warmup_ratio must be a number, got x"),
        ("+loss.eps=x", "kdexp.losses.kd.KD: .* unexpected keyword argument 'eps'"),
    ],
)
def test_a_setting_of_another_type_is_one_line(setting, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        dry_build(Experiment.compose(setting, output_dir="unused"))


def test_a_feature_loss_has_its_settings_name():
    overrides = ("feature_loss=rkd", "feature_loss.rkd.angle_weight=x")
    with pytest.raises(ValueError, match=r"^feature_loss.rkd.angle_weight must be a number, got x$"):
        dry_build(Experiment.compose(*overrides, output_dir="unused"))
