import json

import pytest
import torch

from kdexp import results
from kdexp.report.table import find_control, show_sweep

FACTS = {"config": {}, "overrides": [], "seed": 0, "is_control": False, "control_fingerprint": "c"}


def fail(folder, error):
    with results.recording(folder, FACTS) as record:
        record["metrics"] = {"val": 1}
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
    assert stored["metrics"] == {"val": 1}
    assert type(error).__name__ in stored["error"]


def test_while_it_lasts_a_run_is_running(tmp_path):
    with results.recording(tmp_path, FACTS):
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
            r"^run must hold a results.json of schema version 1, got 99 in ",
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
        "schema_version": 1,
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


def write_run(folder, *, alpha, seed, acc, status="completed", overrides=(), teacher=0.99):
    metrics = dict.fromkeys(("acc", "precision", "recall", "f1", "auc"), acc)
    results.write(
        folder,
        {
            "schema_version": 1, "status": status, "config": {}, "alpha": alpha, "seed": seed, "is_control": alpha == 1,
            "control_fingerprint": f"c{seed}", "overrides": [*overrides, f"seed={seed}"], "error": "went wrong",
            "metrics": {split: {"best": metrics, "last": metrics} for split in ("val", "test")},
            "teacher": dict.fromkeys(("val", "test"), dict.fromkeys(metrics, teacher)) if alpha < 1 else None,
        },
    )  # fmt: skip


def test_a_sweep_is_shown_with_seeds_together_and_paired_with_its_controls(tmp_path, capsys):
    for seed, (control, distilled) in enumerate([(0.80, 0.84), (0.90, 0.92)]):
        write_run(tmp_path / f"{seed}", alpha=1.0, seed=seed, acc=control)
        write_run(tmp_path / f"{seed + 2}", alpha=0.1, seed=seed, acc=distilled, overrides=["alpha=0.1"])
    show_sweep(tmp_path)
    shown = capsys.readouterr().out
    assert "85.00 ± 7.07" in shown  # control: mean and standard deviation (n - 1) of 80 and 90
    assert "88.00 ± 5.66" in shown  # distilled: of 84 and 92
    assert "+3.00 ± 1.41" in shown  # differences by seed: 4 and 2
    assert "99.00" in shown


@pytest.mark.parametrize(("teacher", "warned"), [(0.99, False), (0.5, True)])
def test_a_teacher_that_is_worse_than_the_control_is_pointed_out(tmp_path, capsys, teacher, warned):
    write_run(tmp_path / "0", alpha=1.0, seed=0, acc=0.8)
    write_run(tmp_path / "1", alpha=0.5, seed=0, acc=0.8, overrides=["alpha=0.5"], teacher=teacher)
    show_sweep(tmp_path)
    assert ("teacher is worse" in capsys.readouterr().out) == warned


def test_a_damaged_neighbour_is_not_taken_for_a_control(tmp_path):
    write_run(tmp_path / "run", alpha=0.1, seed=1, acc=0.9)
    run = json.loads((tmp_path / "run" / "results.json").read_text())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "results.json").write_text("{")
    assert find_control(run, tmp_path) is None


def test_a_control_is_found_by_its_fingerprint(tmp_path):
    write_run(tmp_path / "a", alpha=1.0, seed=0, acc=0.8)
    write_run(tmp_path / "b", alpha=1.0, seed=1, acc=0.9)
    write_run(tmp_path / "run", alpha=0.1, seed=1, acc=0.9)
    run = json.loads((tmp_path / "run" / "results.json").read_text())
    assert find_control(run, tmp_path)["seed"] == 1
    assert find_control(run | {"control_fingerprint": "other"}, tmp_path) is None
