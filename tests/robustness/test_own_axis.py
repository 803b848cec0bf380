"""An axis of a user's own: one file and one yaml outside kdexp."""

import json
import shutil
from pathlib import Path

import pytest

from kdexp.config import trust
from kdexp.config.compose import compose, plain
from kdexp.robustness import configured
from kdexp.robustness.settings import recorded

AXIS = '''
from dataclasses import dataclass

import torch

from kdexp.config.require import require
from kdexp.robustness.axes.base import Axis


@dataclass(frozen=True)
class Darker(Axis):
    """Images with less light."""

    levels: list[float]
    place = 15

    def check(self):
        require(all(0 < level < 1 for level in self.levels), f"{self.setting}.levels", "must be in (0, 1)", self.levels)

    def conditions(self, grid, bed):
        bed.notes.append(f"{self.name}: {bed.own.name}")
        return [
            grid.perturbed("darker", "shade", level, "", lambda batch, level=level: batch.inputs * (1 - level))
            for level in self.levels
        ]

    def summarize(self, found, bootstrap):
        return {"darker": {"worst_acc": bootstrap.entry(bootstrap.under(found[-1][1]))}}

    def measure(self, found, bootstrap):
        return {"darker": bootstrap.under(found[-1][1])}

    def extra(self, found, bootstrap):
        return {"shades": [cell.level for cell, _ in found]}
'''

YAML = """
defaults: [base, noise_levels]
darker:
  _target_: my_axes.Darker
  levels: [0.2, 0.999]
"""


@pytest.fixture
def own(tmp_path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "my_axes.py").write_text(AXIS)
    (tmp_path / "conf" / "robustness").mkdir(parents=True)
    (tmp_path / "conf" / "robustness" / "darker.yaml").write_text(YAML)
    return tmp_path


def test_a_class_that_is_no_axis_is_refused_in_one_line(own, monkeypatch):
    (own / "code" / "my_axes.py").write_text("class Darker:\n    def __init__(self, name, levels):\n        pass\n")
    monkeypatch.syspath_prepend(own / "code")
    monkeypatch.setenv("KDEXP_TRUST", "my_axes")
    settings = {"seed": 0, "samples": None, "n_resamples": 100, "confidence_level": 0.9}
    node = {"_target_": "my_axes.Darker", "levels": [0.5]}
    with pytest.raises(
        ValueError, match=r"^robustness.darker._target_ must be a kdexp.robustness.axes.base.Axis, got "
    ):
        configured.check({**settings, "darker": node})
    monkeypatch.setenv("KDEXP_TRUST", "")
    with pytest.raises(ValueError, match=r"^robustness.darker._target_ must be an axis of kdexp.*KDEXP_TRUST names"):
        configured.check({**settings, "darker": node})
    with pytest.raises(
        ValueError, match=r"^robustness.darker must be the settings of an axis, with a _target_, got 3$"
    ):
        configured.check({**settings, "darker": 3})


def test_axes_of_files_that_are_older_than_their_targets_are_the_same():
    new = plain(compose(["experiment=smoke", "robustness=all"], output_dir="x").robustness)
    old = recorded(new)
    assert "_target_" in new["ood"]
    assert not any("_target_" in own for own in old.values() if isinstance(own, dict))
    trust.check({"robustness": old})
    configured.check(old)
    axes = configured.axes(old)
    assert axes == configured.axes(new)
    order = ["corruptions", "noise_levels", "attacks", "shift", "ood", "calibration", "representations"]
    assert [axis.name for axis in axes] == order
    old["corruptions"]["kinds"]["fog"]["operator"]["_target_"] = "os.system"
    with pytest.raises(ValueError, match=r"^robustness.corruptions.kinds.fog.operator._target_ must be an operator"):
        trust.check({"robustness": old})


def test_an_axis_of_ones_own_is_one_file_and_one_yaml_outside_of_kdexp(own, command):
    trusted = {"KDEXP_TRUST": "my_axes", "PYTHONPATH": str(own / "code")}
    given = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1", "alpha=1", "output_dir=run"]
    small = ["robustness.samples=40", "robustness.n_resamples=100"]
    train = ["kdexp-train", f"--config-dir={own / 'conf'}", *given, "robustness=darker", *small]
    untrusted = command(*train, rc=2)
    assert "robustness.darker._target_ must be an axis of kdexp.robustness.axes, or be defined" in untrusted.stderr
    wrong = command(*train, "robustness.darker.levels=[2]", rc=2, **trusted)
    assert "robustness.darker.levels must be in (0, 1), got [2]" in wrong.stderr
    command(*train, **trusted)
    report = json.loads((own / "run" / "robustness.json").read_text())
    assert list(dict.fromkeys(row["axis"] for row in report["conditions"])) == ["clean", "darker", "noise_levels"]
    assert report["shades"] == [0.2, 0.999]
    assert report["notes"][0] == "darker: synthetic"
    assert report["settings"]["darker"]["_target_"] == "my_axes.Darker"
    assert report["accuracy_under"]["darker"]["control"] == report["metrics"]["darker"]["worst_acc"]["control"] < 0.5
    shutil.rmtree(own / "run" / "robustness")
    evaluated = command(
        "kdexp-eval", f"--config-dir={own / 'conf'}", f"run={own / 'run'}", "robustness=darker", *small, **trusted
    )
    assert "darker" in evaluated.stdout
    again = json.loads((own / "run" / "robustness.json").read_text())
    assert {**again, "seconds": 0} == {**report, "seconds": 0}
