"""Run folders that kdexp 0.1.0 wrote are still compared, evaluated and resumed: see tests/old_runs/README.md."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest

from kdexp import results
from kdexp.config.identity import Identity
from kdexp.experiment.measured_conditions import read_condition
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison
from kdexp.report.runs import find

ARCHIVES = Path(__file__).parent / "old_runs"


def unpack(name, folder):
    """The folders of an archive, as if they had been written where they lie."""
    with zipfile.ZipFile(ARCHIVES / name) as archive:
        archive.extractall(folder)
    for path in folder.rglob("*"):
        if path.suffix in (".json", ".yaml", ".log"):
            path.write_text(path.read_text().replace("/tmp/old", str(folder)))
    return folder


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    return unpack("0.1.0.zip", tmp_path_factory.mktemp("old"))


@pytest.fixture
def old(unpacked, tmp_path):
    """A copy that a test may change."""
    folder = tmp_path / "old"
    shutil.copytree(unpacked, folder)
    for path in folder.rglob("*.json"):
        path.write_text(path.read_text().replace(str(unpacked), str(folder)))
    return folder


def test_they_are_compared(unpacked, tmp_path):
    runs, unread = find([unpacked / "runs", unpacked / "multirun"])
    assert not unread
    assert sorted(run.folder.name for run in runs if run.status == "completed") == [
        "alpha-0.1_seed-0-8222f8c9", "alpha-0.1_seed-1-14cecb56", "alpha-1_seed-0-8067497f", "alpha-1_seed-1-135e4dae",
        "born_again", "cached", "control", "distilled",
    ]  # fmt: skip
    comparison = Comparison([run for run in runs if "sweep" in run.folder.parts])
    assert [(setting.label, len(setting.runs)) for setting in comparison.groups] == [
        ("control", 2),
        ("alpha=0.1 temperature=4", 2),
    ]
    assert comparison.winner is not None
    assert comparison.winner.gain is not None
    assert comparison.winner.gain.differences == pytest.approx((0.0, -0.03125))
    whole = Comparison(runs)
    assert len(whole.reports) == 1
    for _, path in write(whole, tmp_path, source=["old"]):
        assert path.stat().st_size


def test_they_are_evaluated_and_their_teacher_is_found(command, old):
    teachers = sorted((old / "store" / "teachers").iterdir())
    for name in ("distilled", "born_again"):
        done = command("kdexp-eval", f"run={old / 'runs' / name}")
        assert "agreement" in done.stdout, "the teacher was not found"
    assert sorted((old / "store" / "teachers").iterdir()) == teachers


def test_an_interrupted_one_is_resumed(command, old):
    folder = old / "runs" / "interrupted"
    before = (folder / "metrics.csv").read_text().splitlines()
    command("kdexp-train", f"resume={folder}")
    after = (folder / "metrics.csv").read_text().splitlines()
    assert after[:150] == before[:150]
    # The last row was written after the last checkpoint: it is made again, with metrics that are rounded otherwise now.
    again, old_row = ([float(value or "nan") for value in rows[150].split(",")] for rows in (after, before))
    assert again == pytest.approx(old_row, rel=1e-6, nan_ok=True)
    assert len(after) == 201
    assert results.read(folder, "run")["status"] == "completed"
    assert len(list((old / "store" / "teachers").iterdir())) == 1, "the teacher was trained again"


def test_a_report_on_robustness_is_read(unpacked):
    report = json.loads((unpacked / "runs" / "distilled" / "robustness.json").read_text())
    runs, _ = find([unpacked / "runs" / "distilled"])
    (found,) = Comparison(runs).reports.values()
    assert found["settings"]["confidence_level"] == report["settings"]["confidence"] == 0.95
    assert " robustness.n_resamples=100 " in f"{runs[0].command} ", "what to type today"
    assert found["metrics"]["clean"]["acc"] == report["measures"]["clean"]["acc"]
    of_noise = found["metrics"]["noise_levels"]["gaussian_noise"]
    assert of_noise["mean_acc"] == report["measures"]["noise_dose"]["gaussian_noise"]["area"]
    assert found["metrics"]["calibration"]["ece_adaptive"] == report["measures"]["calibration"]["ace"]
    assert [row["level"] for row in found["conditions"]] == [row["dose"] for row in report["cells"]]


def test_what_was_measured_is_read(unpacked):
    files = (unpacked / "store" / "teacher-robustness").rglob("*.safetensors")
    names = {name for file in files for name in read_condition(file).values}
    assert names >= {"acc", "ece_adaptive", "max_calibration_error_scaled"}
    assert not names & {"ace", "largest_gap_scaled"}


@pytest.fixture
def prior_runs(tmp_path):
    """Of scheme=teacher_assistant, with its control."""
    return unpack("0.1.0-prior-runs.zip", tmp_path / "old")


def kept(folder):
    """Names of what lies in the store, by kind."""
    return {path.name: sorted(one.name for one in path.iterdir()) for path in (folder / "store").iterdir()}


@pytest.mark.parametrize("archive", ["0.1.0-prior-runs.zip", "0.1.0-interrupted.zip"])
def test_fingerprints_in_the_files_are_those_that_their_configurations_have_now(archive, tmp_path):
    paths = sorted(unpack(archive, tmp_path).rglob("results.json"))
    assert paths
    for path in paths:
        written, config = json.loads(path.read_text()), results.read(path.parent, "run")["config"]
        assert Identity(config).fingerprint == written["fingerprint"]
        assert Identity(config).control_fingerprint == written["control_fingerprint"]


def test_one_with_prior_runs_is_compared_with_its_control(prior_runs, tmp_path):
    runs, unread = find([prior_runs / "runs"])
    assert not unread
    assert [run.folder.name for run in runs] == ["control", "prior_runs"]
    comparison = Comparison(runs)
    (setting,) = comparison.distilled
    assert setting.gain is not None
    saved = [json.loads((run.folder / "results.json").read_text())["metrics"]["test"]["best"]["acc"] for run in runs]
    assert setting.gain.differences == pytest.approx((saved[1] - saved[0],))
    for _, path in write(comparison, tmp_path, source=["old"]):
        assert path.stat().st_size


def test_one_with_prior_runs_is_evaluated_with_the_assistant_for_a_teacher(command, prior_runs):
    before = kept(prior_runs)
    for folder in (prior_runs / "runs" / "prior_runs", prior_runs / "runs" / "prior_runs" / "steps" / "first"):
        done = command("kdexp-eval", f"run={folder}")
        assert "agreement" in done.stdout, "the teacher was not found"
        assert "equal within 1e-05" in done.stdout
    assert kept(prior_runs) == before, "a teacher was trained or measured again"


def test_an_interrupted_one_with_crd_is_evaluated_and_resumed(command, tmp_path):
    old = unpack("0.1.0-interrupted.zip", tmp_path / "old")
    folder, teachers = old / "runs" / "interrupted", kept(old)["teachers"]
    before = (folder / "metrics.csv").read_text().splitlines()
    assert results.read(folder, "run")["status"] == "interrupted"
    command("kdexp-train", f"resume={folder}")
    after = (folder / "metrics.csv").read_text().splitlines()
    assert after[: len(before)] == before
    assert len(after) == 51
    assert results.read(folder, "run")["status"] == "completed"
    assert "agreement" in command("kdexp-eval", f"run={folder}").stdout
    assert kept(old)["teachers"] == teachers, "the teacher was trained again"
