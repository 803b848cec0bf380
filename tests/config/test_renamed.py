"""Keys that older files lack: read with them, known without them."""

from pathlib import Path

import pytest

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.config.renamed import before, upgrade
from kdexp.config.schema import with_defaults
from kdexp.report.runs import Run

SCHEMES = [path.stem for path in sorted((Path(__file__).parents[2] / "conf" / "scheme").glob("*.yaml"))]


def composed(*overrides):
    return plain(compose(["experiment=smoke", *overrides], output_dir="x"))


@pytest.mark.parametrize("name", SCHEMES)
def test_a_scheme_of_a_file_that_knows_it_by_its_name_is_that_of_today(name):
    today = composed(f"scheme={name}", "alpha=1")
    old = before(today)
    assert old["scheme"] == {key: v for key, v in today["scheme"].items() if key not in ("_target_", "teacher")}
    assert with_defaults(old)["scheme"] == upgrade(old)["scheme"] == today["scheme"] == upgrade(today)["scheme"]
    assert Identity(upgrade(old)).fingerprint == Identity(today).fingerprint
    assert (Identity(upgrade(old)).is_control, Identity(upgrade(old)).is_attacked) == (
        Identity(today).is_control,
        Identity(today).is_attacked,
    )
    assert Identity(today).is_control == (name not in ("pgd_at", "trades"))
    settings = Run(Path("x"), {"config": today, "overrides": []}, "completed").settings
    assert settings["scheme.name"] == name
    assert not {"scheme._target_", "scheme.teacher"} & settings.keys()


@pytest.mark.parametrize("teacher", ["cnn", "ensemble"])
def test_so_are_those_of_teachers_recipes(teacher):
    where = "teacher.members.first.recipe" if teacher == "ensemble" else "teacher.recipe"
    today = composed(
        f"teacher={teacher}",
        f"+scheme@{where}.scheme=trades" if teacher == "ensemble" else f"scheme@{where}.scheme=trades",
    )
    old = before(today)
    assert old != today == upgrade(old)


def test_a_scheme_of_ones_own_is_known_by_its_target():
    values = composed("scheme=ema")
    one, other = (
        {**values, "scheme": {**values["scheme"], "_target_": f"mine.{name}", "name": name}} for name in ("A", "ema")
    )
    for own in (one, other):
        assert before(own) == own == upgrade(own)
    another = {**other, "scheme": {**other["scheme"], "_target_": "mine.B"}}
    assert Identity(another).fingerprint != Identity(other).fingerprint != Identity(values).fingerprint
