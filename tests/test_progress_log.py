"""What takes long says how far it is."""

import gc
import logging
import time
from dataclasses import replace
from types import SimpleNamespace

import pytest

from kdexp import progress_log
from kdexp.config.compose import compose
from kdexp.experiment.run import run
from kdexp.sweeps import progress
from kdexp.sweeps.progress import Progress
from kdexp.sweeps.sweep import Job, State
from kdexp.training import epoch_table


@pytest.fixture
def clock(monkeypatch):
    """Four seconds pass between two looks at the clock."""
    seconds = iter(range(0, 4000, 4))
    monkeypatch.setattr(progress_log, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))


def test_a_line_every_ten_seconds_with_how_many_are_done(clock, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    assert list(progress_log.paced(range(10), "measuring")) == list(range(10))
    assert caplog.messages == [f"measuring: {done} batches" for done in (2, 5, 8)]


@pytest.mark.parametrize(
    ("seconds", "said"), [(4.24, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.7, "1 min 0 s")]
)
def test_a_time_for_people(seconds, said):
    assert progress_log.duration(seconds) == said


@pytest.mark.slow
def test_inside_a_long_epoch_a_training_says_how_far_it_is(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(epoch_table, "EVERY_SECONDS", 0.0)
    caplog.set_level(logging.INFO, "kdexp")
    settings = ["experiment=smoke", "tracking=none", "alpha=0.5", "teacher.recipe.max_epochs=1", "trainer.max_epochs=2"]
    run(compose(settings, output_dir=tmp_path / "run", store_dir=tmp_path / "store"))
    said = " | ".join(caplog.messages)
    assert "teacher: epoch 1/1, batch 1/" in said
    assert "student: epoch 1/2, batch 1/" in said
    assert "student: epoch 2/2, validation batch 1/" in said


def test_a_sweep_says_what_its_jobs_do_where_nothing_else_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.0)
    line = "[2026-11-29 08:00:00,000][kdexp.training.fit][INFO] teacher: epoch 3/30, batch 5/9, about 4 min 2 s left"
    states = [
        State(number, Job((f"seed={number}",), f"seed-{number}", "k", 4), "running", log_tail=(line,))
        for number in range(2)
    ]
    states.append(replace(states[0], number=2, log_tail=()))
    states.append(replace(states[0], number=3, log_tail=("[2026-11-29][kdexp.experiment][WARNING] near chance",)))
    shown = Progress(tmp_path, "")
    for _ in range(2):
        shown.show(states)
    lines = capsys.readouterr().out.splitlines()
    told = ["job 0: teacher: epoch 3/30, batch 5/9, about 4 min 2 s left", "job 2: starting", "job 3: near chance"]
    assert lines[4:] == [*told, *told]


def test_what_takes_long_is_said_and_what_is_quick_is_not(monkeypatch, caplog):
    caplog.set_level(logging.INFO, "kdexp")
    with progress_log.said_meanwhile("quick"):
        pass
    monkeypatch.setattr(progress_log, "_PATIENCE_SECONDS", 0.01)
    with progress_log.said_meanwhile("long"):
        while not caplog.messages:
            time.sleep(0.01)
    assert set(caplog.messages) == {"long"}


@pytest.mark.parametrize("is_on", [True, False])
def test_the_garbage_collector_rests_while_there_are_imports_and_is_as_before_then(is_on):
    if not is_on:
        gc.disable()
    try:
        with progress_log.importing():
            assert not gc.isenabled()
        assert gc.isenabled() == is_on
    finally:
        gc.enable()
