"""What the doctor measures in a few steps."""

import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from kdexp.contracts import Split, Splits
from kdexp.data.data_module import DataModule
from kdexp.doctor.inspection import CHECKED_BATCHES, InspectionCallback, caught_warnings, take_steps
from kdexp.losses.kd import KD
from kdexp.tasks.classification import Classification
from kdexp.training.distiller import Distiller
from kdexp.training.settings import Trainer


def test_warnings_are_caught_once_and_not_printed(recwarn):
    caught = []
    for _ in range(2):
        with caught_warnings(caught):
            warnings.warn("loss=mine: half of it is void", stacklevel=1)
    assert caught == ["loss=mine: half of it is void"]
    assert not recwarn.list


def small_run(samples=320, soft_loss=None):
    """A run of linear networks on random data, as far as `take_steps` wants it."""
    torch.manual_seed(0)
    splits = [Split(torch.randn(n, 4), torch.arange(n) % 3, torch.arange(n)) for n in (samples, 30, 30)]
    data = DataModule(
        Splits(*splits),
        augment=[],
        mean=[0.0],
        std=[1.0],
        batch_size=10,
        eval_batch_size=10,
        drop_last=True,
        seed=0,
    )
    student, teacher = nn.Linear(4, 3), nn.Linear(4, 3)
    distiller = Distiller(
        student,
        lambda p: torch.optim.Adam(p, 1e-3),
        task=Classification(3),
        teacher=teacher,
        soft_loss=soft_loss or KD(4.0),
    )
    caught: list[str] = []
    callback = InspectionCallback(caught, torch.randn(8, 4))
    stopped = take_steps(distiller, data, Trainer(accelerator="cpu", max_epochs=3), callback, val_batches=3)
    return distiller, callback, stopped


def test_the_first_batches_are_measured_and_later_steps_timed_until_there_are_enough():
    distiller, callback, stopped = small_run()
    assert stopped == ""
    assert callback.cost.steps == CHECKED_BATCHES + 20
    assert callback.cost.epoch_steps == 32
    assert callback.cost.step_seconds > 0
    assert callback.cost.optimizer_bytes == 2 * 15 * 4 + 2 * 4  # Adam: two moments of 15 weights, a step count a tensor
    most = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    assert callback.cost.peak_bytes == pytest.approx(1024 * int(most.split()[1]), rel=0.2)
    assert list(callback.terms) == ["hard", "soft"]
    assert [len(term.values) for term in callback.terms.values()] == [CHECKED_BATCHES, CHECKED_BATCHES]
    assert [term.weight for term in callback.terms.values()] == pytest.approx([0.1, 0.9])
    assert torch.cat(callback.student_logits).shape == torch.cat(callback.teacher_logits).shape == (50, 3)
    assert torch.equal(callback.teacher_before, distiller.teacher(callback.val_inputs).logits)
    assert callback.unused == []
    assert callback.teacher_seconds(distiller) > 0


def test_a_run_that_is_too_short_to_time_is_measured_all_the_same():
    _, callback, _ = small_run(samples=10)
    assert callback.cost.steps == 3
    assert len(callback.terms["soft"].values) == 1


def test_a_run_that_diverges_says_why_it_stopped():
    class NaN(nn.Module):
        def forward(self, student_logits, teacher_logits, target):
            return student_logits.mean() * float("nan")

    _, callback, stopped = small_run(soft_loss=NaN())
    assert stopped.startswith("the soft loss became NaN or Inf at step 0")
    assert str(callback.terms["soft"].values) == "[nan]"
