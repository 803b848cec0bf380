import json
import os
import subprocess
import sys

import pytest
import torch
from mounts import small_disk

from kdexp import recording, results, signals
from kdexp.config.compose import compose, plain

CONFIG = plain(compose(output_dir=""))
FACTS = {"config": CONFIG, "overrides": [], "seed": 0, "is_control": False, "control_fingerprint": "c"}


def fail(folder, error):
    with recording.recording(folder, FACTS) as record:
        record["metrics"] = {"val": {"best": {"acc": 0.5}}}
        raise error


def ended(folder, error):
    with pytest.raises(type(error)):
        fail(folder, error)
    return results.read(folder, "run")


def interrupted_by_lightning():
    try:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise SystemExit(1)  # noqa: B904 - as Lightning does
    except SystemExit as error:
        return error


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("no"), "failed"),
        (SystemExit(3), "failed"),
        (torch.OutOfMemoryError("CUDA out of memory"), "oom"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"), "oom"),
        (MemoryError(), "oom"),
        (KeyboardInterrupt(), "interrupted"),
        (interrupted_by_lightning(), "interrupted"),
        (SystemExit(143), "interrupted"),
    ],
    ids=str,
)
def test_a_run_that_fails_says_how_and_keeps_what_it_had(tmp_path, error, status):
    stored = ended(tmp_path, error)
    assert stored["status"] == status
    assert stored["metrics"] == {"val": {"best": {"acc": 0.5}}}
    words = {130: "interrupted by Ctrl-C", 143: "told to end by a signal"}
    assert words.get(signals.interruption(error), type(error).__name__) in stored["error"]


def test_while_it_lasts_a_run_is_running(tmp_path):
    with recording.recording(tmp_path, FACTS):
        assert results.read(tmp_path, "run")["status"] == "running"
    assert results.read(tmp_path, "run")["status"] == "completed"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"^run must be the folder of a run \(with results.json in it\), got "),
        ("{", r"^run must hold a readable results.json, got "),
        ("[]", r"^run must hold the results.json of a run, got "),
        ('{"schema_version": 1}', r"^run must hold the results.json of a run, got "),
        (
            json.dumps(FACTS | {"schema_version": 99, "status": "completed"}),
            r"^run must hold the results.json of a run, got .*: schema_version must be at most 2, got 99$",
        ),
    ],
)
def test_what_is_not_a_run_is_said(tmp_path, content, message):
    if content is not None:
        (tmp_path / "results.json").write_text(content)
    with pytest.raises(ValueError, match=message) as caught:
        results.read(tmp_path, "run")
    assert "\n" not in str(caught.value)


def test_lists_of_numbers_and_words_are_lines_and_everything_is_read_back(tmp_path):
    content = FACTS | {
        "schema_version": 2,
        "status": "completed",
        "confusion": [[1, 2], [3, 4]],
        "overrides": ["alpha=0.1", "feature_loss=[at,rkd]", "x={a: [\n  1\n]}"],
        "words": ["a, b", "c\n  d"],
        "empty": [],
    }
    results.write(tmp_path, content)
    assert results.read(tmp_path, "run") == content
    text = (tmp_path / "results.json").read_text()
    assert "    [1, 2],\n    [3, 4]\n" in text
    assert '"words": ["a, b", "c\\n  d"]' in text


def test_one_of_an_older_kdexp_has_the_keys_of_today(tmp_path):
    results.write(tmp_path, FACTS | {"schema_version": 1, "status": "completed", "steps": ["first"]})
    found = results.read(tmp_path, "run")
    assert (found["schema_version"], found["prior_runs"]) == (2, ["first"])
    assert "steps" not in found


FULL_DISK = """
import json, sys
from pathlib import Path
from kdexp import recording, results

disk = Path(sys.argv[1])
facts = {"config": json.loads(sys.argv[2]), "overrides": [], "seed": 0, "is_control": False, "control_fingerprint": "c"}
try:
    with recording.recording(disk / "run", facts):
        with (disk / "filler").open("wb", buffering=0) as filler:
            while True:
                filler.write(bytes(4096))
except OSError as error:
    print(json.dumps([str(error), results.read(disk / "run", "run")]))
"""


@pytest.mark.slow
def test_on_a_full_disk_a_run_still_says_how_it_ended(tmp_path):
    before = small_disk(tmp_path, "1m")
    done = subprocess.run(
        [*before, sys.executable, "-c", FULL_DISK, str(tmp_path), json.dumps(CONFIG)],
        check=True,
        capture_output=True,
        text=True,
    )
    error, stored = json.loads(done.stdout)
    assert "No space left" in error
    assert (stored["status"], stored["error"]) == ("failed", f"OSError: {error}")


def test_what_a_killed_process_was_writing_is_removed_at_the_next_start(tmp_path):
    pid = os.fork()
    if pid == 0:
        with recording.recording(tmp_path, FACTS), results.atomic_path(tmp_path / "metrics.csv") as staged:
            staged.write_text("half of it")
            with results.atomic_path(tmp_path / "checkpoints" / "best.ckpt"):
                os._exit(9)
    os.waitpid(pid, 0)
    left = {path.name for path in tmp_path.rglob(".*-*")}
    assert {name.split("-")[0] for name in left} == {".metrics.kdexp", ".best.kdexp"}
    own = {tmp_path / ".travis-settings.yml", tmp_path / "checkpoints" / ".db-password"}
    for path in own:
        path.write_text("a person's own")
    with recording.recording(tmp_path, FACTS):
        assert set(tmp_path.rglob(".*-*")) == own
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json",
        "checkpoints",
        ".lock",
        ".travis-settings.yml",
    }


@pytest.mark.parametrize("lock", ["a pipe", "a loop"])
def test_a_lock_that_is_none_is_no_process(tmp_path, lock):
    results.write(tmp_path, FACTS | {"schema_version": 2, "status": "running"})
    if lock == "a pipe":
        os.mkfifo(tmp_path / ".lock")
    else:
        (tmp_path / ".lock").symlink_to(".lock")
    assert results.read(tmp_path, "run")["status"] == "killed"


def test_a_signal_after_the_last_word_does_not_take_it_back(tmp_path, monkeypatch):
    write = recording._write_last

    def write_and_be_interrupted(folder, record):
        write(folder, record)
        raise KeyboardInterrupt

    monkeypatch.setattr(recording, "_write_last", write_and_be_interrupted)
    with pytest.raises(KeyboardInterrupt), recording.recording(tmp_path, FACTS) as record:
        record["metrics"] = {}
    assert results.read(tmp_path, "run")["status"] == "completed"
