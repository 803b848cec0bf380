"""Results from somebody else: a report reads and writes nothing outside, and a terminal obeys none of their words."""

import json
import shutil

import pytest

from kdexp.cli.cache import show as show_caches
from kdexp.report.artifacts import write
from kdexp.report.comparison import Comparison
from kdexp.report.robustness_terminal import show as show_robustness
from kdexp.report.runs import control_folder, find, read_reports
from kdexp.report.terminal import show_comparison, show_run
from kdexp.run_folder import log_tail
from kdexp.sweeps.progress import Progress, show_left
from kdexp.sweeps.sweep import Job, State, Sweep

SECRET = "root:x:0:0"
HOSTILE = "a\x1b]0;owned\x07\x1b[2J\x9bb[link=http://x]c[/link]:smile:"
SHOWN = r"a\x1b]0;owned\x07\x1b[2J\x9bb[link=http://x]c[/link]:smile:"


def nested(depth):
    return "[" * depth + "]" * depth


@pytest.fixture
def outside(tmp_path):
    """A file that is none of theirs."""
    path = tmp_path / "outside" / "passwd"
    path.parent.mkdir()
    path.write_text(f"{SECRET}\n")
    return path


@pytest.fixture
def theirs(tmp_path, write_run):
    """A sweep of a control, a student and a job that failed, with its index."""
    folder = tmp_path / "theirs"
    write_run(folder / "control", alpha=1.0, key="k")
    write_run(folder / "student", alpha=0.5, key="k")
    write_run(folder / "failed", alpha=0.2, key="k", status="failed")
    index(folder, "control", "student", "failed")
    return folder


def index(folder, *names):
    jobs = [
        {"number": number, "folder": name, "key": "k", "overrides": [], "status": "waiting", "error": None, "epochs": 1}
        for number, name in enumerate(names)
    ]
    (folder / "sweep.json").write_text(json.dumps({"schema_version": 1, "jobs": jobs}))


def changed(folder, **values):
    path = folder / "results.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


NOT_OF_A_RUN = {  # what stands in a results.json in whose place, and what is said of it
    "config": [({}, "config.dataset must be given, got nothing"), ([], "config must be")],
    "config.dataset": [(5, "config.dataset must have settings, got 5")],
    "config.dataset.source": [("x", "config.dataset.source must be")],
    "config.dataset.num_classes": [(2, "curves.roc must have"), ("3", "config.dataset.num_classes must be int, got")],
    "config.teacher": [(5, "config.teacher must be")],
    "config.alpha_schedule": [(None, "config.alpha_schedule must have settings, got None")],
    "config.student.width": [(nested(60), "it is nested more than 50 deep"), (nested(5000), "nested more than")],
    "choices.teacher": [([1], "choices must be")],
    "teacher": [(5, "teacher must have settings, got 5"), ({"test": {}}, "teacher.val must be given")],
    "teacher.test": [({"f1": 0.5}, "teacher.test.acc must be given"), ({"acc": "x"}, "teacher.test must be")],
    "teacher.model.macs": [(None, "teacher.model.macs must be int, got None")],
    "metrics.test": [({"best": {"acc": "x"}}, "metrics must be")],
    "curves.roc.macro": [([0.5], "curves.roc must have a class's 202 rates"), (["x"] * 202, "curves.roc must be")],
    "curves.auc": [({}, "curves.roc must have")],
    "curves.confusion": [([[1]], "curves.confusion must have 3 rows and columns")],
    "cost.seconds": [({"fit": "x"}, "cost.seconds must be")],
    "samples": [({"test": None}, "samples must be")],
    "epochs.best": [("x", "epochs.best must be int | None, got 'x'")],
    "overrides": [([5], "overrides must be list[str], got [5]")],
    "seed": [("x", "seed must be int, got 'x'"), (True, "seed must be int, got True")],
}


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [(setting, value, message) for setting, several in NOT_OF_A_RUN.items() for value, message in several],
    ids=lambda value: str(value)[:30],
)
def test_one_run_that_cannot_be_read_is_named_and_the_others_are_compared(theirs, setting, value, message):
    path = theirs / "student" / "results.json"
    content = json.loads(path.read_text())
    *parents, name = setting.split(".")
    node = content
    for parent in parents:
        node = node[parent]
    node[name] = "HERE"
    path.write_text(json.dumps(content).replace('"HERE"', value if "[[[" in str(value) else json.dumps(value)))
    found, unread = find([theirs])
    assert [run.folder.name for run in found] == ["control", "failed"]
    assert len(unread) == 1
    assert str(path) in unread[0]
    assert message in unread[0]


def test_a_job_whose_results_are_gone_or_anothers_waits(theirs, tmp_path):
    index = json.loads((theirs / "sweep.json").read_text())
    for job in index["jobs"]:
        job["status"] = "completed"
    (theirs / "sweep.json").write_text(json.dumps(index))
    (theirs / "control" / "results.json").unlink()
    changed(theirs / "student", key="another")
    found, _, page = page_of(theirs, tmp_path / "out")
    assert [run.status for run in found] == ["waiting", "waiting", "failed"]
    assert "waiting" in page


def test_an_older_run_has_the_defaults_of_settings_that_are_younger(theirs):
    path = theirs / "student" / "results.json"
    content = json.loads(path.read_text())
    del content["config"]["dataset"]["train_fraction"], content["config"]["label_smoothing"]
    path.write_text(json.dumps(content))
    settings = {run.folder.name: run.settings for run in find([theirs])[0]}
    assert settings["student"]["dataset.train_fraction"] == 1.0
    assert settings["student"]["label_smoothing"] == 0.0


def page_of(folder, out):
    found, unread = find([folder])
    write(Comparison(found), out, source=[], unread=unread)
    return found, unread, (out / "report.html").read_text()


@pytest.mark.parametrize("axis", ["x/../../../y_c", "/y_c", "../y_c", "y_c" * 200 + "_c"])
def test_pictures_are_written_into_the_report_whatever_an_axis_is_called(theirs, tmp_path, write_report, axis):
    write_report(theirs / "student")
    path = theirs / "student" / "robustness.json"
    report = json.loads(path.read_text())
    for row in report["conditions"]:
        row["axis"] = axis if row["axis"] == "corruptions_lite" else row["axis"]
    path.write_text(json.dumps(report))
    out = tmp_path / "a" / "b" / "out"
    page_of(theirs, out)
    assert [path for path in tmp_path.rglob("*.png") if path.parent != out] == []
    assert len(list(out.glob("curve-*.png"))) == 1


def test_pictures_of_conditions_too(tmp_path, write_run):
    for share in (0.1, 1.0):
        for noise in ("0/../../../../x", "/y"):
            data = {"train_fraction": share, "label_noise_kind": noise}
            write_run(tmp_path / f"c-{share}-{len(noise)}", alpha=1.0, data=data)
            write_run(tmp_path / f"s-{share}-{len(noise)}", alpha=0.5, data=data)
    out = tmp_path / "a" / "b" / "out"
    page_of(tmp_path, out)
    assert len(list(out.glob("curve-*.png"))) == 2
    assert [path for path in tmp_path.rglob("*.png") if path.parent != out] == []


@pytest.mark.parametrize("name", ["../outside", "link", "{outside}"])
def test_jobs_lie_in_their_sweep(theirs, outside, tmp_path, name):
    shutil.move(theirs / "failed", tmp_path / "failed")
    shutil.copytree(tmp_path / "failed", outside.parent, dirs_exist_ok=True)
    (outside.parent / "train.log").write_text(SECRET)
    (theirs / "link").symlink_to(outside.parent)
    index(theirs, "control", "student", name.format(outside=outside.parent))
    found, unread, page = page_of(theirs, tmp_path / "out")
    assert [run.folder.name for run in found] == ["control", "student"]
    assert len(unread) == 1
    assert "must hold what its files name, got " in unread[0]
    assert SECRET not in page
    with pytest.raises(ValueError, match="must hold what its files name, got "):
        Sweep(theirs, [], "command")


@pytest.mark.parametrize("file", ["train.log", "metrics.csv", "robustness.json", "results.json"])
def test_files_of_a_run_that_are_links_to_others_are_not_read(theirs, outside, tmp_path, file):
    run = theirs / "failed"
    content = {
        "train.log": SECRET,
        "metrics.csv": "epoch,val/acc\n0,0.123456\n",
        "robustness.json": '{"schema_version": 2}',
    }
    outside.write_text(content.get(file, (run / "results.json").read_text().replace("Diverged", SECRET)))
    (run / file).unlink(missing_ok=True)
    (run / file).symlink_to(outside)
    found, unread, page = page_of(theirs, tmp_path / "out")
    assert SECRET not in page
    assert log_tail(run) == ()
    assert read_reports([run]) == {}
    assert (file == "results.json") == bool(unread)
    assert all(found.epochs == [] for found in found if found.folder == run and file == "metrics.csv")


def test_prior_runs_and_controls_are_looked_for_in_the_folder(theirs, write_run, tmp_path, capsys):
    write_run(tmp_path / "outside" / "run", alpha=1.0)
    changed(theirs / "student", prior_runs=["../../../outside/run"])
    with pytest.raises(ValueError, match="must hold what its files name, got "):
        show_run(theirs / "student")
    shutil.rmtree(theirs / "control")
    (theirs / "beside").symlink_to(tmp_path / "outside" / "run")
    record = json.loads((theirs / "student" / "results.json").read_text())
    assert control_folder(record, theirs) is None


def test_a_terminal_shows_what_it_would_obey(theirs, write_run, capsys):
    changed(theirs / "failed", overrides=[HOSTILE], error=HOSTILE)
    write_run(theirs / "other", alpha=0.5, loss=HOSTILE, teacher=HOSTILE, teacher_acc=0.5, key="k")
    index(theirs, "control", "student", "failed", "other")
    found, _ = find([theirs])
    show_comparison(Comparison(found))
    shown = "".join(capsys.readouterr().out.split())
    assert f"failed:{SHOWN}:{SHOWN}" in shown  # status, overrides, error
    assert f"loss={SHOWN}" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_a_sweeps_progress_shows_what_a_terminal_would_obey(tmp_path, capsys, monkeypatch):
    job = Job((HOSTILE,), "folder", "k", 3)
    states = [State(0, job, "failed", error=HOSTILE), State(1, job, HOSTILE, log_tail=(HOSTILE,))]
    with Progress(tmp_path, "sweep") as progress:
        progress.show(states)
        table = progress._table(states)
    show_left(tmp_path, states, HOSTILE)
    progress._console.print(table)
    shown = capsys.readouterr().out
    assert "owned" in shown
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_a_robustness_report_and_a_list_of_caches_show_it_too(tmp_path, write_report, capsys):
    write_report(tmp_path)
    report = json.loads((tmp_path / "robustness.json").read_text())
    report |= {"notes": [HOSTILE], "dataset": HOSTILE, "metrics": {HOSTILE: report["metrics"]["clean"]}}
    show_robustness(report, tmp_path)
    kept = tmp_path / "teacher-outputs" / "key"
    kept.mkdir(parents=True)
    made = {"teacher": HOSTILE, "dataset": HOSTILE}
    (kept / "metadata.json").write_text(
        json.dumps({"created_for": made, "split": HOSTILE, "samples": 1, "key": {}, "config": {}})
    )
    (kept / "checksums.bin").touch()
    show_caches(tmp_path)
    shown = capsys.readouterr().out
    assert "".join(shown.split()).count("owned") >= 4
    assert not {"\x1b", "\x07", "\x9b"} & set(shown)


def test_the_program_prints_no_escapes_on_either_stream(theirs, command):
    changed(theirs / "failed", overrides=[HOSTILE], error=HOSTILE)
    (theirs / f"x{HOSTILE.replace('/', '')}").mkdir()
    (theirs / f"x{HOSTILE.replace('/', '')}" / "results.json").write_text("{")
    (theirs / "sweep.json").unlink()
    done = command("kdexp-compare", theirs)
    assert "owned" in done.stdout
    assert "owned" in done.stderr
    assert not {"\x1b", "\x07", "\x9b"} & set(done.stdout + done.stderr)
