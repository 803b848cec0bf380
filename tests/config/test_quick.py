"""quick=true: every part runs, small; nothing of it is taken for the real thing."""

import json
import re
from pathlib import Path

import pytest
import torch
from teacher_keys import teacher_file

from kdexp.config import quick
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.contracts import UNLABELED, Split
from kdexp.data.splits import few_of_each_class
from kdexp.experiment.data import Data
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import build_network
from kdexp.experiment.run import run
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find
from kdexp.results import read

SMALL = ["quick=true", "tracking=none", "trainer.accelerator=cpu"]


def composed(*overrides: str):
    return compose(overrides, output_dir="run")


def test_what_takes_long_is_made_small():
    config = composed("quick=true", "teacher=ensemble", "robustness=all", "scheme=adaad")
    assert config.trainer.max_epochs == 2
    assert [member.recipe.max_epochs for member in config.teacher.members.values()] == [1, 1, 1]
    assert config.scheme.attack.steps == 2
    assert (config.robustness.samples, config.robustness.attacks.samples) == (16, 8)
    assert {kind.steps for kind in config.robustness.attacks.kinds.values()} == {1, 2}
    assert composed("quick=true", "+sweep=data_fractions").trainer.max_steps is None
    assert composed("quick=true", "scheme@teacher.recipe.scheme=pgd_at").teacher.recipe.scheme.attack.steps == 2


def test_what_is_typed_stays_and_nothing_grows():
    config = composed("quick=true", "trainer.max_epochs=3", "teacher.recipe.max_epochs=4", "robustness=attacks")
    assert (config.trainer.max_epochs, config.teacher.recipe.max_epochs) == (3, 4)
    assert config.robustness.attacks.kinds.fgsm.steps == 1
    assert composed("quick=true", "experiment=article_robustness").trainer.max_epochs == 2, "computed there, not typed"
    steps = composed("quick=true", "trainer.max_steps=2000").trainer
    assert (steps.max_epochs, steps.max_steps) == (2, None), "these count whole epochs, which a quick run does not have"


def test_without_it_nothing_changes():
    left = {key: value for key, value in plain(composed()).items() if key != "quick"}
    assert left == {key: value for key, value in plain(composed("quick=false")).items() if key != "quick"}
    assert (left["trainer"]["max_epochs"], left["teacher"]["recipe"]["max_epochs"]) == (300, 30)


@pytest.mark.parametrize("kind", ["fingerprint", "control_fingerprint"])
def test_fingerprints_of_old_runs_stay_and_a_quick_run_has_its_own(kind):
    def identity(values):
        return getattr(Identity(values), kind)

    real, asked = plain(composed()), plain(composed("quick=true"))
    before = {key: value for key, value in real.items() if key != "quick"}  # an older kdexp's
    assert identity(before) == identity(real)
    assert identity({**real, "quick": True}) != identity(real), "even with the same settings otherwise"
    assert identity(asked) != identity(real)


def data_of(*overrides: str) -> Data:
    return Experiment(composed("dataset=digits", *overrides)).data


def test_the_data_are_cut_alike_for_student_control_and_teacher():
    config = composed("quick=true", "teacher.recipe.batch_size=32")
    own, alone = Experiment(config).data.student.splits, data_of("quick=true", "alpha=1", "seed=1").student.splits
    teachers = Experiment(config).data.for_teacher(config.teacher).splits
    assert [len(part) for part in (own.train, own.val, own.test)] == [2 * 64, 64, 64]
    assert len(teachers.train) == 2 * 32
    whole = data_of().student.splits
    for part in ("val", "test"):
        index = getattr(own, part).index
        assert set(index.tolist()) < set(getattr(whole, part).index.tolist())
        for other in (alone, teachers):
            assert torch.equal(index, getattr(other, part).index)


def test_a_quick_teacher_is_not_the_real_one():
    same = ["teacher.recipe.max_epochs=1", "trainer.max_epochs=2"]
    keys = set()
    for more in ([], ["quick=true"]):
        config = composed(*same, *more)
        keys.add(teacher_file(config).parent.name)
    assert len(keys) == 2


@pytest.mark.slow
def test_what_is_measured_of_one_teacher_is_kept_apart(tmp_path):
    config = composed()
    weights = tmp_path / "teacher.pt"
    torch.save(build_network(config.teacher, "teacher", config.dataset, config.task).state_dict(), weights)
    settings = [f"teacher.weights={weights}", "tracking=none", "trainer.accelerator=cpu", "robustness=calibration",
                "robustness.samples=16", "trainer.max_epochs=1"]  # fmt: skip
    counts = []
    for name, more in (("real", []), ("quick", ["quick=true"])):
        run(compose([*settings, *more], output_dir=tmp_path / name, store_dir=tmp_path / "store"))
        counts.append([len(list(tmp_path.glob(f"store/{kind}")))
                       for kind in ("teacher-measures/*.json", "teacher-robustness/*/*.safetensors")])  # fmt: skip
    assert counts[1] == [2 * count for count in counts[0]]
    assert min(counts[0]) >= 1


def test_few_samples_hold_every_class_though_it_be_rare():
    target = torch.tensor([0] * 90 + [1] * 5 + [2, 3] + [UNLABELED] * 3)
    part = few_of_each_class(Split(torch.zeros(100), target, torch.arange(100)), 8)
    assert sorted(part.target.tolist()) == [UNLABELED, UNLABELED, 0, 0, 1, 1, 2, 3]
    assert torch.equal(part.target, target[part.index])
    assert len(few_of_each_class(part, 100)) == 8


def test_as_many_samples_as_resampling_needs():
    counts = data_of(
        "quick=true", "dataset.batch_size=4", "dataset.class_sampling=balanced"
    ).student.splits.train.target
    assert len(counts) == 11
    assert set(counts.tolist()) == set(range(10))


@pytest.mark.slow
def test_a_quick_run_says_so_and_is_not_complete_already_for_the_real_one(tmp_path, capsys, caplog):
    def start(*overrides: str):
        with caplog.at_level("INFO", "kdexp"):
            return run(compose([*overrides, "tracking=none", "trainer.accelerator=cpu"],
                               output_dir=tmp_path / "run", store_dir=tmp_path / "store"))  # fmt: skip

    found = start("experiment=smoke", "quick=true", "robustness=calibration")
    assert quick.NOTE in caplog.messages
    assert quick.NOTE in capsys.readouterr().out, "under the table"
    assert found == read(tmp_path / "run", "run")
    assert (found["note"], found["config"]["quick"]) == (quick.NOTE, True)
    assert found["samples"] == {"train": 128, "val": 51, "test": 64}
    with pytest.raises(ValueError, match=r"^output_dir must .*hold the same run, .*: quick=True \(now False\)"):
        start("experiment=smoke")


@pytest.mark.slow
def test_the_real_runs_folder_is_not_taken_by_a_quick_one(tmp_path):
    settings = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1"]
    where = {"output_dir": tmp_path / "run", "store_dir": tmp_path / "store"}
    found = run(compose(settings, **where))
    assert "note" not in found
    with pytest.raises(ValueError, match=r"hold the same run, .*: quick=False \(now True\)"):
        run(compose([*settings, "quick=true"], **where))


@pytest.mark.slow
def test_a_limit_says_that_it_does_not_reach_the_teacher(tmp_path, caplog):
    settings = ["experiment=smoke", "tracking=none", "trainer.limit_train_batches=1", "trainer.max_epochs=1"]
    with caplog.at_level("INFO", "kdexp"):
        run(compose(settings, output_dir=tmp_path / "run", store_dir=tmp_path / "store"))
    said = [text for text in caplog.messages if "limit_train_batches=1 limits the student alone" in text]
    assert len(said) == 1


def test_a_quick_sweep_lies_beside_the_real_one(command, tmp_path):
    sweep = ["kdexp-train", "experiment=quickstart", "tracking=none"]
    out = command(*sweep, "quick=true", "hydra/launcher=fused").stdout
    assert out.splitlines()[0] == quick.NOTE
    assert "its numbers mean nothing (quick=true)." in out
    assert not re.search(r"is (better|worse) than the control", out)
    (folder,) = tmp_path.glob("multirun/*")
    jobs = json.loads((folder / "sweep.json").read_text())["jobs"]
    assert folder.name.startswith("quick_digits_alpha_seed-")
    assert [job["status"] for job in jobs] == ["completed"] * 4, "two seeds of the preset's five"
    assert all(job["folder"].startswith("quick_alpha-") for job in jobs)
    assert "its numbers mean nothing" in (folder / "report.html").read_text()
    real = command(*sweep, "seed=0", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1").stdout
    assert "completed before" not in real
    assert "numbers mean nothing" not in real
    assert {path.name[:6] for path in Path(tmp_path, "multirun").iterdir()} == {"quick_", "digits"}


def test_quick_runs_are_left_out_beside_real_ones(tmp_path, store, caplog):
    control = ["experiment=smoke", "tracking=none", "alpha=1", "trainer.max_epochs=1"]
    run(compose([*control, "quick=true"], output_dir=tmp_path / "quick", store_dir=store))
    assert Comparison(find([tmp_path])[0]).is_quick
    run(compose(control, output_dir=tmp_path / "real", store_dir=store))
    comparison = Comparison(find([tmp_path])[0])
    assert not comparison.is_quick
    assert [one.folder.name for one in comparison.runs] == ["real"]
    assert "warning: quick=true: left out, since their numbers mean nothing: 1 run" in caplog.messages


def test_typed_training_batches_stay(tmp_path):
    config = compose(["dataset=digits", "quick=true", "trainer.limit_train_batches=5"], output_dir=tmp_path)
    data = Experiment(config).data
    assert len(data.student.splits.train) == 5 * config.dataset.batch_size
    assert len(data.for_teacher(config.teacher).splits.train) == 2 * config.teacher.recipe.batch_size
