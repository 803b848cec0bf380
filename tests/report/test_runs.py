import csv
import json

import pytest

from kdexp.report.runs import find, matching, write_csv
from kdexp.sweeps.sweep import Job, Sweep


def names(runs):
    return [run.folder.name for run in runs]


def test_runs_are_found_in_run_folders_sweeps_and_folders_of_sweeps_once(tmp_path, write_run):
    write_run(tmp_path / "outputs" / "day" / "a")
    for job in (0, 2, 10):
        write_run(tmp_path / "multirun" / "sweep" / f"{job}", seed=job)
    write_run(tmp_path / "outputs" / "day" / "a" / "prior_runs" / "assistant")  # a prior run is no run to compare
    assert names(find([tmp_path])[0]) == ["0", "2", "10", "a"]
    assert names(find([tmp_path / "outputs" / "day" / "a"])[0]) == ["a"]
    assert names(find([tmp_path / "multirun", tmp_path])[0]) == ["0", "2", "10", "a"]


def test_what_cannot_be_read_is_one_line_and_the_rest_is_read(tmp_path, write_run):
    write_run(tmp_path / "good")
    for name, content in (("damaged", "{"), ("other", '{"a": 1}'), ("later", None)):
        write_run(tmp_path / name)
        file = tmp_path / name / "results.json"
        file.write_text(content or json.dumps(json.loads(file.read_text()) | {"schema_version": 99}))
    runs, unread = find([tmp_path])
    assert names(runs) == ["good"]
    assert len(unread) == 3
    assert all(
        "\n" not in line and name in line for line, name in zip(unread, ("damaged", "later", "other"), strict=True)
    )


def test_a_folder_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"^folders must exist, got .*nowhere$"):
        find([tmp_path / "nowhere"])


def test_the_sweeps_index_knows_what_results_do_not(tmp_path, write_run):
    """Which runs are its jobs, and jobs that left nothing behind, or only what another one did in their folder."""
    jobs = [
        Job(("alpha=0.5", "seed=0"), "done", "k0", 3),
        Job(("alpha=0.5", "seed=1"), "killed", "k1", 3),
        Job(("alpha=0.5", "seed=2"), "never", "k2", 3),
        Job(("alpha=0.5", "seed=3"), "changed", "k3", 3),
    ]
    write_run(tmp_path / "done", key="k0")
    write_run(tmp_path / "killed", key="k1", seed=1, status="running")  # and no process holds its lock
    write_run(tmp_path / "changed", key="k of older code", seed=3)
    write_run(tmp_path / "superseded" / "done-0123", key="k0")
    with Sweep(tmp_path, jobs, "kdexp-train -m alpha=0.5 seed=0,1,2,3").watched(lambda states: None):
        done, killed, never, changed = find([tmp_path])[0]
    assert (done.status, done.seed) == ("completed", 0)
    assert killed.status == "killed"
    assert "killed" in killed.error
    for run, seed in ((never, 2), (changed, 3)):
        assert (run.status, run.command) == ("waiting", f"kdexp-train alpha=0.5 seed={seed}")
    assert names(matching([done, killed, never], ["alpha=0.5"])) == ["never"]
    (tmp_path / "sweep.json").write_text("{")  # damaged: the folders are looked at
    assert names(find([tmp_path])[0]) == ["changed", "done", "killed"]


def test_a_failed_run_has_its_reason_and_the_end_of_its_log(sweep):
    (failed,) = [run for run in find([sweep])[0] if not run.completed]
    assert failed.status == "diverged"
    assert failed.error == "Diverged: the loss is not finite"
    assert failed.log_tail == "epoch 1\nthe loss is not finite"
    assert failed.command == "kdexp-train temperature=16.0 seed=0"


def test_a_command_is_quoted_for_the_shell_and_absent_for_a_run_from_python(tmp_path, write_run):
    write_run(tmp_path / "a")
    path = tmp_path / "a" / "results.json"
    record = json.loads(path.read_text())
    path.write_text(json.dumps(record | {"overrides": ["feature_loss=[at,rkd]", "student.name=it's"]}))
    assert find([tmp_path])[0][0].command == "kdexp-train 'feature_loss=[at,rkd]' 'student.name=it'\"'\"'s'"
    path.write_text(json.dumps(record | {"overrides": []}))
    assert find([tmp_path])[0][0].command is None
    (tmp_path / "a" / ".hydra").mkdir()  # kdexp-train without arguments
    assert find([tmp_path])[0][0].command == "kdexp-train"


@pytest.mark.parametrize(
    ("where", "left"),
    [
        (["loss=dkd"], ["dkd"]),
        (["loss=dkd,kd", "seed=1"], ["kd-1"]),
        (["alpha=0.10"], ["dkd", "kd-0", "kd-1"]),  # numbers are numbers
        (["dataset.num_classes=3", "temperature=4"], ["dkd", "failed", "kd-0", "kd-1"]),
        (["status=failed"], ["failed"]),
        (["optimizer.lr=0.1"], ["failed"]),
        (["dataset.classes=null", "seed=1"], ["kd-1"]),
    ],
    ids=str,
)
def test_where_holds_for_settings_choices_and_the_status(tmp_path, write_run, where, left):
    write_run(tmp_path / "dkd", loss="dkd")
    write_run(tmp_path / "kd-0")
    write_run(tmp_path / "kd-1", seed=1)
    write_run(tmp_path / "failed", alpha=0.5, status="failed", optimizer={"lr": 0.1})
    assert names(matching(find([tmp_path])[0], where)) == left


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("loss", r"^where must be SETTING=VALUE, got loss$"),
        ("colour=red", r"^where must name a setting of a run, or status, got colour$"),
        ("loss=nkd", r"^where must hold for at least one run, got loss=nkd$"),
    ],
)
def test_a_wrong_condition_is_refused(sweep, where, message):
    with pytest.raises(ValueError, match=message):
        matching(find([sweep])[0], [where])


def test_the_csv_has_a_row_a_run_and_says_everything_in_flat_columns(sweep, tmp_path):
    runs = find([sweep])[0]
    write_csv(runs, tmp_path / "out" / "compare.csv")
    with (tmp_path / "out" / "compare.csv").open(newline="") as file:
        rows = {row["folder"].rpartition("/")[2]: row for row in csv.DictReader(file)}
    assert rows.keys() == {run.folder.name for run in runs}
    one = rows["one-1"]
    expected = {
        "status": "completed",
        "seed": "1",
        "temperature": "1.0",
        "alpha": "0.1",
        "student": "mlp",
        "is_control": "False",
        "chosen": "False",
        "test/acc": "0.92",
        "test_last/acc": "0.91",
        "val/acc": "0.9",
        "teacher/test/auc": "0.99",
        "model/parameters": "1000",
        "cost/seconds/fit": "3.0",
        "samples/test": "200",
        "epoch/best": "1",
        "command": "kdexp-train temperature=1.0 seed=1",
    }
    assert one.items() >= expected.items()
    assert (rows["sixteen-0"]["status"], rows["sixteen-0"]["test/acc"]) == ("diverged", "")
    assert "not finite" in rows["sixteen-0"]["error"]


def test_epochs_of_a_missing_or_damaged_table_are_none(sweep):
    runs = {run.folder.name: run for run in find([sweep])[0]}
    assert [row["epoch"] for row in runs["one-0"].epochs] == [0, 1, 2]
    assert "val/loss" not in runs["one-0"].epochs[0]  # an empty field
    (sweep / "one-1" / "metrics.csv").write_text("epoch,val/acc\n0,zero\n")
    (sweep / "four-0" / "metrics.csv").unlink()
    assert runs["one-1"].epochs == runs["four-0"].epochs == []
