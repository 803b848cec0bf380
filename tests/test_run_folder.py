"""A run folder that is used again: another run is refused, the same one continued or found complete."""

import csv
import json
import logging
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file, save_file

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.finished_run import run as measure
from kdexp.experiment.run import run
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find, find_control
from kdexp.training import checkpoints
from kdexp.training.distiller import Distiller

CONTROL = ["experiment=smoke", "tracking=none", "alpha=1", "trainer.max_epochs=3"]


def composed(folder, store, *overrides, **settings):
    return compose([*CONTROL, *overrides], output_dir=folder, store_dir=store, **settings)


def experiment(folder, store, *overrides, **settings):
    return run(composed(folder, store, *overrides, **settings))


@pytest.fixture
def cut_off(monkeypatch):
    """Run an experiment that is interrupted as its last epoch begins."""

    def interrupted(config):
        def stop(self):
            if self.current_epoch == 2:
                raise KeyboardInterrupt
            begin(self)

        begin = Distiller.on_train_epoch_start
        with monkeypatch.context() as patch:
            patch.setattr(Distiller, "on_train_epoch_start", stop)
            with pytest.raises((KeyboardInterrupt, SystemExit)):
                run(config)
        assert results.read(Path(config.output_dir), "run")["status"] == "interrupted"
        assert signal.getsignal(signal.SIGINT) is not signal.SIG_IGN, "a notebook's next cell is interrupted, too"

    return interrupted


@pytest.fixture(scope="module")
def whole(tmp_path_factory, store):
    """A complete run; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    return folder, experiment(folder, store)


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole[0], tmp_path / "run")


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# Another run


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["alpha=0.5"], "alpha=1.0 (now 0.5)"),
        (["optimizer.lr=0.1"], "optimizer.lr=0.001 (now 0.1)"),
        (["seed=5"], "seed=0 (now 5), dataset.subset_seed=0 (now 5), augment.seed=0 (now 5); choose"),
        (["student=mlp"], "with another one: student=cnn_small (now mlp); choose"),
        (["alpha=0.5", "loss=dkd"], "with another one: loss=kd (now dkd), alpha=1.0 (now 0.5)"),
        (["dataset.train_fraction=0.5"], "dataset.train_fraction=1.0 (now 0.5)"),
        (
            ["trainer.max_epochs=9", "label_smoothing=0.1", "optimizer.lr=1", "scheduler.warmup_ratio=0.1"],
            " and 1 more; choose",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_folder_with_another_run_is_refused_with_what_differs_and_left_as_it_is(copied, store, overrides, said):
    before = content(copied)
    with pytest.raises(ValueError, match=r"^output_dir must be empty or hold the same run, got ") as caught:
        experiment(copied, store, *overrides)
    assert said in str(caught.value)
    assert str(caught.value).endswith("; choose another output_dir, or rerun=all to set it aside")
    assert "\n" not in str(caught.value)
    assert content(copied) == before


def test_rerun_all_sets_another_run_aside_and_runs_this_one(copied, store):
    before = content(copied)
    found = experiment(copied, store, "optimizer.lr=0.1", "rerun=all")
    assert found["config"]["optimizer"]["lr"] == 0.1
    aside = copied.parent / "superseded" / f"run-{json.loads(before['results.json'])['wandb_id']}"
    assert content(aside) == {name: data for name, data in before.items() if name != ".lock"}


def test_an_interrupted_run_of_other_settings_can_still_be_resumed(tmp_path, store, cut_off):
    cut_off(composed(tmp_path / "run", store))
    with pytest.raises(ValueError, match=r"optimizer.lr=0.001 \(now 0.1\); resume=\S+/run continues it; choose"):
        experiment(tmp_path / "run", store, "optimizer.lr=0.1")
    assert experiment(tmp_path / "run", store, resume=tmp_path / "run")["status"] == "completed"


# The same run


@pytest.mark.parametrize("watched", [[], ["tracking=csv"], ["alpha=1", "temperature=2"]], ids=" ".join)
def test_the_same_run_is_found_complete_and_that_is_said(copied, whole, store, watched, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    before = content(copied)
    assert experiment(copied, store, *watched)["metrics"] == whole[1]["metrics"]
    assert f"this run is complete already: {copied}" in caplog.messages
    assert content(copied) == before


def test_a_robustness_report_that_a_complete_run_lacks_is_said_how_to_get(copied, store, caplog):
    experiment(copied, store, "robustness=calibration")
    assert f"warning: it has no robustness report: kdexp-eval run={copied} robustness=... makes one" in caplog.messages


def test_the_same_run_is_continued_where_it_was_interrupted_to_the_same_bits(tmp_path, whole, store, cut_off, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    folder = tmp_path / "run"
    cut_off(composed(folder, store))
    found = experiment(folder, store)
    assert f"continuing this run, which ended as interrupted: {folder}" in caplog.messages
    assert found["metrics"] == whole[1]["metrics"]
    for name in ("student.safetensors", "metrics.csv"):
        assert (folder / name).read_bytes() == (whole[0] / name).read_bytes()


# The same settings, other data


@pytest.fixture
def arrays(tmp_path):
    """Settings of a run on arrays of one's own, and what writes them with these labels, or the opposite ones."""
    inputs, target = torch.rand(40, 4).numpy(), (torch.arange(40) % 2).numpy()

    def write(*, swapped=False):
        np.savez(tmp_path / "my.npz", x=inputs, y=1 - target if swapped else target)

    write()
    return [
        "dataset=arrays", f"dataset.source.file={tmp_path}/my.npz", "dataset.batch_size=8", "student=mlp",
        "teacher=mlp_large", "teacher.recipe.batch_size=8", "teacher.recipe.max_epochs=1",
    ], write  # fmt: skip


def test_a_run_whose_data_changed_where_they_lie_is_refused_until_they_are_back(tmp_path, store, arrays, cut_off):
    settings, write = arrays
    first = experiment(tmp_path / "whole", store, *settings)
    cut_off(composed(tmp_path / "part", store, *settings))
    before = content(tmp_path / "whole"), content(tmp_path / "part")
    write(swapped=True)
    rule = f"output_dir must hold a run of the same data and files, got {tmp_path}"
    ways = "choose another output_dir, or rerun=all to set it aside"
    with pytest.raises(ValueError, match="of the same data") as caught:
        experiment(tmp_path / "whole", store, *settings)
    assert str(caught.value) == f"{rule}/whole, completed: its data have changed since; {ways}"
    with pytest.raises(ValueError, match="of the same data") as caught:
        experiment(tmp_path / "part", store, *settings)
    assert str(caught.value) == (
        f"{rule}/part, interrupted: its data have changed since; resume={tmp_path}/part continues it; {ways}"
    )
    assert (content(tmp_path / "whole"), content(tmp_path / "part")) == before
    write()
    assert experiment(tmp_path / "whole", store, *settings) == first
    write(swapped=True)
    assert experiment(tmp_path / "whole", store, *settings, "rerun=all")["data_content"] != first["data_content"]


def test_data_that_also_set_other_settings_are_named_and_not_those(tmp_path, store, arrays):
    settings, _ = arrays
    experiment(tmp_path / "run", store, *settings)
    np.savez(tmp_path / "my.npz", x=torch.rand(40, 4).numpy() + 1, y=np.arange(40) % 2)  # with another mean
    with pytest.raises(
        ValueError, match=r"^output_dir must hold a run of the same data and files, got .*: its data have "
    ):
        experiment(tmp_path / "run", store, *settings)


def test_a_complete_run_needs_no_data_any_more(tmp_path, store, caplog):
    settings = ["dataset=arrays", f"dataset.source.file={tmp_path}/my.npz", "dataset.batch_size=8", "student=mlp",
                "dataset.kind=multiclass", "dataset.num_classes=2", "dataset.input_shape=[4]", "dataset.mean=[0]",
                "dataset.std=[1]"]  # fmt: skip
    np.savez(tmp_path / "my.npz", x=torch.rand(40, 4).numpy(), y=np.arange(40) % 2)
    first = experiment(tmp_path / "run", store, *settings)
    (tmp_path / "my.npz").unlink()
    assert experiment(tmp_path / "run", store, *settings) == first
    assert "whether what a completed run was made of is still the same is not known: dataset.source.file" in caplog.text


def test_a_teachers_file_that_was_replaced_makes_it_another_run(tmp_path, store, arrays, cut_off, caplog):
    settings, _ = arrays
    files = {}
    for name in ("one", "other"):
        experiment(tmp_path / name, store, *settings, "student=mlp_large", f"seed={len(files)}")
        files[name] = (tmp_path / name / "student.safetensors").read_bytes()
    teacher = tmp_path / "teacher.safetensors"
    taught = [*settings, "alpha=0.5", f"teacher.weights={teacher}"]
    teacher.write_bytes(files["one"])
    first = experiment(tmp_path / "run", store, *taught)
    cut_off(composed(tmp_path / "part", store, *taught))
    assert experiment(tmp_path / "run", store, *taught) == first
    teacher.write_bytes(files["other"])
    rule = "output_dir must hold a run of the same data and files"
    for name in ("run", "part"):
        with pytest.raises(ValueError, match=rf"^{rule}, .*: the file of teacher.weights has changed since; "):
            experiment(tmp_path / name, store, *taught)
    experiment(tmp_path / "part", store, resume=tmp_path / "part")
    said = "warning: the file of teacher.weights has changed since: the results of this run are of both"
    assert said in caplog.messages


def test_other_data_of_a_source_domain_make_it_another_run(tmp_path, store):
    def images(place, shift):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / place / name).mkdir(parents=True, exist_ok=True)
            for i in range(20):
                Image.new("RGB", (8, 8), (100 * number + shift, 10 * i, 250)).save(tmp_path / place / name / f"{i}.png")

    images("source", 0)
    images("target", 5)
    settings = [
        "dataset=image_folder", f"dataset.source.root={tmp_path}/target", "dataset.source.size=8",
        "dataset.batch_size=8", "student=cnn", "teacher=cnn", "teacher.recipe.batch_size=8",
        "teacher.recipe.max_epochs=1", "alpha=0.5", "scheme=cross_domain", "dataset@scheme.source=image_folder",
        f"scheme.source.source.root={tmp_path}/source", "scheme.source.source.size=8",
    ]  # fmt: skip
    first = experiment(tmp_path / "run", store, *settings)
    assert experiment(tmp_path / "run", store, *settings) == first
    images("source", 9)
    with pytest.raises(ValueError, match="completed: the data of its prior run 'teacher' have changed since; "):
        experiment(tmp_path / "run", store, *settings)


def test_in_a_sweep_a_job_whose_data_changed_runs_again(tmp_path, store, arrays):
    settings, write = arrays
    first = experiment(tmp_path / "job", store, *settings, sweep_dir=tmp_path)
    assert experiment(tmp_path / "job", store, *settings, sweep_dir=tmp_path) == first
    write(swapped=True)
    again = experiment(tmp_path / "job", store, *settings, sweep_dir=tmp_path)
    assert again["started"] > first["started"]
    (aside,) = (tmp_path / "superseded").iterdir()
    assert results.read(aside, "run") == first


def test_what_came_before_a_run_is_trained_again_on_other_data(tmp_path, arrays):
    settings, write = arrays
    chain = ["alpha=0.5", "scheme=born_again", "scheme.generations=2"]
    first = experiment(tmp_path / "a", tmp_path / "store", *settings, *chain)
    write(swapped=True)
    again = experiment(tmp_path / "b", tmp_path / "store", *settings, *chain)
    prior = [results.read(tmp_path / name / "prior_runs" / "generation_1", "prior run") for name in "ab"]
    assert [one["data_content"] for one in prior] == [run["data_content"] for run in (first, again)]
    assert first["data_content"] != again["data_content"]


def test_a_control_of_other_data_is_none(tmp_path, store, arrays):
    settings, write = arrays
    experiment(tmp_path / "alone", store, *settings)
    write(swapped=True)
    found = experiment(tmp_path / "one", store, *settings, "alpha=0.5")
    assert find_control(found, tmp_path) is None
    comparison = Comparison(find([tmp_path])[0])
    assert [setting.gain for setting in comparison.groups] == [None, None]
    assert "data" in comparison.axes
    write()
    found = experiment(tmp_path / "two", store, *settings, "alpha=0.5")
    assert find_control(found, tmp_path) is not None
    comparison = Comparison(find([tmp_path])[0])
    compared = {setting.runs[0].folder.name: setting.gain is not None for setting in comparison.distilled}
    assert compared == {"one": False, "two": True}


def test_eval_says_that_it_measures_on_other_data(tmp_path, store, arrays, caplog):
    settings, write = arrays
    experiment(tmp_path / "run", store, *settings)
    config = compose([f"run={tmp_path}/run"], "eval")
    said = "warning: the data are not those of the run: they have changed, or others lie in data_dir"
    measure(config)
    assert said not in caplog.messages
    write(swapped=True)
    measure(config)
    assert said in caplog.messages


def test_a_run_that_goes_on_with_other_data_says_so(tmp_path, store, arrays, cut_off, caplog):
    settings, write = arrays
    cut_off(composed(tmp_path / "run", store, *settings))
    shutil.copytree(tmp_path / "run", tmp_path / "same")
    experiment(tmp_path / "same", store, resume=tmp_path / "same")
    said = "warning: its data have changed since: the results of this run are of both"
    assert said not in caplog.messages
    write(swapped=True)
    experiment(tmp_path / "run", store, resume=tmp_path / "run")
    assert said in caplog.messages


def test_a_run_is_read_from_elsewhere_with_the_data_that_it_had(tmp_path, store, monkeypatch):
    for place, other in (("a", 0), ("b", 1)):
        (tmp_path / place / "data").mkdir(parents=True)
        np.savez(tmp_path / place / "data" / "my.npz", x=torch.rand(40, 4).numpy(), y=np.arange(40) % 2 == other)
    monkeypatch.chdir(tmp_path / "a")
    settings = ["dataset=arrays", "dataset.source.file=my.npz", "dataset.batch_size=8", "student=mlp"]
    found = experiment("run", store, *settings, data_dir="data")
    assert found["config"]["data_dir"] == str(tmp_path / "a" / "data")
    measured = measure(compose(["run=run"], "eval"))
    monkeypatch.chdir(tmp_path / "b")
    assert measure(compose(["run=../a/run"], "eval")) == measured


@pytest.mark.slow
@pytest.mark.parametrize("way", ["typed", "environment"])
def test_an_interrupted_run_goes_on_where_its_data_and_store_have_moved(tmp_path, cut_off, monkeypatch, way):
    for part in ("train", "test"):
        for number, name in enumerate(("cat", "dog")):
            (tmp_path / "a" / "base" / part / name).mkdir(parents=True)
            for i in range(16):
                Image.new("RGB", (8, 8), (100 * number, 10 * i, 250)).save(tmp_path / f"a/base/{part}/{name}/{i}.png")
    settings = [
        "dataset=image_folder", "dataset.source.root=base", "dataset.source.size=8", "dataset.num_classes=2",
        "dataset.batch_size=8", "alpha=0.5", "teacher=cnn", "teacher.recipe.max_epochs=1",
        "teacher.recipe.batch_size=8",
    ]  # fmt: skip
    folder = tmp_path / "run"
    cut_off(composed(folder, tmp_path / "store", *settings, data_dir=tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "store").rename(tmp_path / "moved")
    typed = [f"store_dir={tmp_path / 'moved'}"]
    if way == "typed":
        typed.append(f"data_dir={tmp_path / 'b'}")
    else:
        monkeypatch.setenv("KDEXP_DATA_DIR", str(tmp_path / "b"))
    found = run(compose([f"resume={folder}", *typed], output_dir=folder))
    assert found["status"] == "completed"
    assert found["config"]["data_dir"] == found["config"]["dataset"]["source"]["data_dir"] == str(tmp_path / "b")
    assert not (tmp_path / "store").exists()
    assert len(list((tmp_path / "moved" / "teachers").iterdir())) == 1, "the teacher is not trained again"


@pytest.mark.parametrize("status", ["completed", "interrupted"])
def test_a_run_of_other_code_is_named_as_such_and_resume_continues_it(copied, store, status):
    old = {"code_version": "0.1.0+0000", "key": "0" * 16, "status": status}
    results.write(copied, json.loads((copied / "results.json").read_text()) | old)
    with pytest.raises(
        ValueError, match=r"^output_dir must hold a run of the same code, got .*0\.1\.0\+0000 \(now "
    ) as e:
        experiment(copied, store)
    assert ("resume=" in str(e.value)) == (status == "interrupted")
    assert experiment(copied, store, resume=copied)["status"] == "completed"


@pytest.mark.parametrize("lost", ["gone", "cut short", "not JSON"])
@pytest.mark.parametrize("in_sweep", [False, True])
def test_a_run_whose_results_are_lost_is_refused_or_in_a_sweep_set_aside(copied, store, lost, in_sweep):
    text = (copied / "results.json").read_text()
    if lost == "gone":
        (copied / "results.json").unlink()
    else:
        (copied / "results.json").write_text(text[:100] if lost == "cut short" else "[1]")
    before = content(copied)
    if in_sweep and lost == "gone":
        assert experiment(copied, store, sweep_dir=copied.parent)["status"] == "completed"
        (aside,) = (copied.parent / "superseded").iterdir()
        assert content(aside) == {name: data for name, data in before.items() if name != ".lock"}
        return
    with pytest.raises(ValueError, match=r"results\.json") as caught:
        experiment(copied, store, **({"sweep_dir": copied.parent} if in_sweep else {}))
    assert content(copied) == before
    if not in_sweep:
        assert str(caught.value).endswith("; choose another output_dir, or rerun=all to set it aside")
        assert experiment(copied, store, "rerun=all")["status"] == "completed"


def test_a_folder_with_files_of_ones_own_is_no_run(tmp_path, store):
    (tmp_path / "notes.txt").write_text("mine")
    assert experiment(tmp_path, store, "trainer.max_epochs=1")["status"] == "completed"


def test_the_settings_of_a_refused_run_do_not_stay_in_hydras_files(command, tmp_path):
    words = ("kdexp-train", *CONTROL, "hydra.run.dir=fixed", "trainer.max_epochs=1")
    command(*words)
    done = command(*words, "optimizer.lr=0.1", rc=2)
    assert done.stderr.startswith("error: output_dir must be empty or hold the same run, got ")
    assert done.stderr.count("\n") == 1
    overrides = (tmp_path / "fixed" / ".hydra" / "overrides.yaml").read_text()
    assert "trainer.max_epochs=1" in overrides
    assert "lr=0.1" not in overrides
    assert "this run is complete already" in command(*words).stdout


# The table of epochs


DAMAGES = {
    "gone": lambda path: path.unlink(),
    "empty": lambda path: path.write_text(""),
    "a line cut short": lambda path: path.write_text(path.read_text()[:-30]),
    "binary": lambda path: path.write_bytes(b"\xff\xfe\x00epoch"),
    "other columns": lambda path: path.write_text("a,b\n1,2\n3,4\n"),
    "another run's": lambda path: path.write_text(path.read_text().replace(",0.", ",0.9")),
}


def older(folder):
    """Make checkpoints what an older kdexp wrote: without rows, owner and ties."""
    for path in (folder / "checkpoints").iterdir():
        checkpoint = torch.load(path, weights_only=True)
        del checkpoint["callbacks"]["EpochTable"]
        keeper = checkpoint["callbacks"]["Keeper"]
        checkpoint["callbacks"]["Keeper"] = {name: keeper[name] for name in ("best_epoch", "best_score")}
        torch.save(checkpoint, path)


def older_settings(folder):
    """Those of an older kdexp, which had one rule to choose the best epoch."""
    values = plain(compose(CONTROL, output_dir=folder))
    del values["trainer"]["monitor"], values["teacher"]["recipe"]["monitor"]
    return OmegaConf.create(values)


def rows(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("when", ["in the middle", "after the last epoch"])
def test_a_resumed_run_needs_no_metrics_csv(tmp_path, whole, store, cut_off, damage, when):
    folder = tmp_path / "run"
    if when == "in the middle":
        cut_off(composed(folder, store))
    else:
        shutil.copytree(whole[0], folder)
        results.write(folder, results.read(folder, "run") | {"status": "interrupted"})
    DAMAGES[damage](folder / "metrics.csv")
    found = experiment(folder, store)
    assert found["epochs"] == whole[1]["epochs"]
    assert (folder / "metrics.csv").read_bytes() == (whole[0] / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def whole_older(tmp_path_factory):
    folder = tmp_path_factory.mktemp("older") / "run"
    return folder, run(older_settings(folder))


@pytest.mark.parametrize("damage", [*DAMAGES, "none"])
@pytest.mark.parametrize("when", ["in the middle", "after the last epoch"])
def test_what_an_older_runs_table_lost_is_said_and_its_best_epoch_is_by_its_own_rule(
    tmp_path, whole_older, store, cut_off, damage, when, caplog
):
    folder, (reference, expected) = tmp_path / "run", whole_older
    if when == "in the middle":
        cut_off(older_settings(folder))
    else:
        shutil.copytree(reference, folder)
        results.write(folder, results.read(folder, "run") | {"status": "interrupted"})
    older(folder)
    DAMAGES.get(damage, lambda path: None)(folder / "metrics.csv")
    found = experiment(folder, store, resume=folder)
    accuracies = [float(row["val/acc"]) for row in rows(reference)]
    assert found["epochs"] == expected["epochs"]
    assert found["epochs"]["best"] == accuracies.index(max(accuracies))
    assert found["metrics"] == expected["metrics"]
    for row in rows(folder):  # nothing wrong is kept
        right = rows(reference)[int(row["epoch"])]
        assert {name: value for name, value in row.items() if value}.items() <= right.items()
    said = [message for message in caplog.messages if "has no readable rows of epochs" in message]
    assert len(said) == (damage != "none")
    if damage == "none":
        assert (folder / "metrics.csv").read_bytes() == (reference / "metrics.csv").read_bytes()
    elif damage == "a line cut short":
        assert f"of epochs {1 if when == 'in the middle' else 2};" in said[0]


# Whose the files are


def flip(path):
    """Change weights; the file can still be read."""
    weights = load_file(path)
    name = next(name for name, weight in weights.items() if weight.ndim == 4)
    save_file(weights | {name: weights[name].flip(0).contiguous()}, path)


def as_teacher(folder, store):
    teacher = ["alpha=0.5", "teacher=cnn_small", f"teacher.weights={folder}/student.safetensors"]
    return experiment(folder.parent / "next", store, *teacher)


@pytest.mark.parametrize(
    "use",
    [
        lambda folder, store: measure(compose([], "eval", run=folder, store_dir=store)),
        lambda folder, store: list(robustness(compose(["robustness=calibration"], "eval", run=folder))),
        as_teacher,
    ],
    ids=["run", "robustness", "teacher"],
)
def test_altered_weights_are_refused(copied, store, use):
    flip(copied / "student.safetensors")
    with pytest.raises(
        ValueError, match=r"corrupt file .*student.safetensors: its SHA-256 is not the one in results.j"
    ):
        use(copied, store)


def test_the_checksum_of_an_older_run_is_not_asked_for(copied, whole, store):
    record = results.read(copied, "run")
    del record["model"]["sha256"]
    results.write(copied, record)
    found = measure(compose([], "eval", run=copied, store_dir=store))
    assert found["acc"] == pytest.approx(whole[1]["metrics"]["test"]["best"]["acc"], abs=1e-6)


def test_an_altered_step_of_a_scheme_is_made_again_and_refused_by_kdexp_eval(tmp_path, store, caplog):
    settings = ["alpha=0.5", "scheme=born_again", "scheme.generations=2", "trainer.max_epochs=1"]
    first = experiment(tmp_path / "run", store, *settings)
    weights = tmp_path / "run" / "prior_runs" / "generation_1" / "student.safetensors"
    before = weights.read_bytes()
    flip(weights)
    with pytest.raises(ValueError, match=r"^teacher.weights: corrupt file .*generation_1/student.safetensors"):
        measure(compose([], "eval", run=tmp_path / "run", store_dir=store))
    results.write(tmp_path / "run", results.read(tmp_path / "run", "run") | {"status": "interrupted"})
    again = experiment(tmp_path / "run", store, *settings)
    assert again["metrics"] == first["metrics"]
    assert weights.read_bytes() == before
    assert any("corrupt file, made again" in message for message in caplog.messages)


def test_a_run_with_prior_runs_can_be_moved_and_resumed(tmp_path, store, cut_off):
    settings = ["alpha=0.5", "scheme=born_again", "scheme.generations=3"]
    cut_off(composed(tmp_path / "run", store / "of its own", *settings))  # in its first step
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    found = experiment(moved, store / "of its own", resume=moved)
    assert found["status"] == "completed"
    assert found["prior_runs"] == ["generation_1", "generation_2"]


@pytest.mark.parametrize("name", ["best.ckpt", "last.ckpt"])
def test_a_checkpoint_of_another_run_is_refused_one_of_an_older_kdexp_is_not(tmp_path, whole, store, cut_off, name):
    folder = tmp_path / "run"
    cut_off(composed(folder, store, "seed=1"))
    own = (folder / "checkpoints" / name).read_bytes()
    shutil.copy(whole[0] / "checkpoints" / name, folder / "checkpoints")
    with pytest.raises(
        ValueError, match=rf"/{name} is a checkpoint of another training: its fingerprint must be "
    ) as e:
        experiment(folder, store, resume=folder)
    assert "\n" not in str(e.value)
    (folder / "checkpoints" / name).write_bytes(own)
    older(folder)
    assert experiment(folder, store, resume=folder)["status"] == "completed"


@pytest.mark.slow
def test_a_checkpoint_of_another_teacher_is_refused(tmp_path):
    settings = ["experiment=smoke", "tracking=none", "trainer.max_epochs=1"]
    a, b = tmp_path / "a", tmp_path / "b"
    for store, seed in ((a, 1), (b, 2)):
        keep = pytest.MonkeyPatch()
        # Leaves the training's folder.
        keep.setattr("kdexp.teacher.trained_teachers.shutil.rmtree", lambda *arguments, **more: None)
        run(compose([*settings, f"teacher.recipe.seed={seed}"], output_dir=tmp_path / f"run{seed}", store_dir=store))
        keep.undo()
    (own,), (other,) = (list((store / "teachers").iterdir()) for store in (a, b))
    shutil.copytree(other / "training", own / "training", dirs_exist_ok=True)
    (own / "teacher.json").unlink()
    with pytest.raises(
        ValueError, match=rf"is a checkpoint of another training: its fingerprint must be {own.name}, got"
    ):
        run(compose([*settings, "teacher.recipe.seed=1"], output_dir=tmp_path / "run3", store_dir=a))
    assert checkpoints.newest_good(own / "training" / "checkpoints") is not None
