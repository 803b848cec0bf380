"""What the doctor says of the run."""

import math

import pytest
import torch
from torch import nn

from kdexp.data.settings import Dataset
from kdexp.doctor.finding import Finding
from kdexp.doctor.inspection import Cost
from kdexp.doctor.measurements import NetworkSize
from kdexp.doctor.training_checks import (
    batch_and_ranks,
    memory_and_disk,
    nan_or_inf,
    network_sizes,
    speed,
    unused_parameters,
)
from kdexp.training.settings import Trainer


def trainer(devices, **changed) -> Trainer:
    return Trainer(**({"accelerator": "cpu", "strategy": "ddp", "max_epochs": 3, "devices": devices} | changed))


@pytest.mark.parametrize(
    ("devices", "drop_last", "verdicts"),
    [
        (1, True, ["ok"]),
        (2, True, ["note", "note"]),
        (3, True, ["error"]),
        (3, False, ["note", "note"]),
        ([0, 1], True, ["note", "note"]),
    ],
)
def test_a_batch_must_be_divided_evenly_among_the_ranks(devices, drop_last, verdicts):
    dataset = Dataset(batch_size=64, drop_last=drop_last)
    assert [f.verdict for f in batch_and_ranks(dataset, trainer(devices), nn.BatchNorm1d(3))] == verdicts
    assert len(batch_and_ranks(dataset, trainer(devices), nn.LayerNorm(3))) == 1
    assert len(batch_and_ranks(dataset, trainer(devices, sync_batchnorm=True), nn.BatchNorm1d(3))) == 1


def test_unused_parameters_are_an_error_under_several_ranks_alone():
    names = ["a", "b", "c", "d"]
    assert unused_parameters([], trainer(2)) == Finding("parameters without a gradient", "none")
    assert unused_parameters(names, trainer(1)).verdict == "note"
    assert unused_parameters(names, trainer(2)).verdict == "error"
    assert unused_parameters(names, trainer(2, strategy="ddp_find_unused_parameters_true")).verdict == "note"
    assert unused_parameters(names, trainer(2), in_stages=True).verdict == "note"
    assert unused_parameters(names, trainer(2, strategy="auto"), in_stages=True).verdict == "error"
    assert unused_parameters(names, trainer(1)).found == "4: a, b, c, ..."


def test_sizes_are_compared_and_a_smaller_teacher_is_noted():
    small, large = NetworkSize(1000, 2_000_000), NetworkSize(4000, 3_000_000)
    finding = network_sizes(small, large, why_no_teacher="")
    assert finding.found == "student 1k parameters, 2M MACs; teacher 4k, 3M (4.0 and 1.5 times)"
    assert finding.verdict == "ok"
    assert network_sizes(large, small, why_no_teacher="").verdict == "note"
    assert network_sizes(small, None, why_no_teacher="the control").found.endswith("MACs; no teacher: the control")


def test_nan_and_inf_are_errors_that_name_where_they_are():
    tensors = {name: torch.zeros(2) for name in "abcd"}
    assert nan_or_inf(tensors, steps=5, stopped="").verdict == "ok"
    finding = nan_or_inf(tensors | dict.fromkeys("abcd", torch.tensor([1.0, math.inf])), steps=5, stopped="")
    assert finding.verdict == "error"
    assert finding.found == "NaN or Inf in a, b, c, ..."
    assert nan_or_inf(tensors, steps=5, stopped="the soft loss became NaN").found == "the soft loss became NaN"


def test_the_duration_of_the_training_is_that_of_its_steps_and_validations():
    cost = Cost(steps=25, epoch_steps=100, step_seconds=0.01, val_seconds=0.05)
    options = {"batch_size": 64, "val_batches": 4}
    rate, whole = speed(cost, trainer(1), **options, teacher_seconds=0.004)
    assert rate.found == "6400 samples/s, 10.0 ms a step, 40% of it the teacher's forward pass"
    assert whole.found == "about 3.6 s: 3 epochs of 100 steps and 4 validation batches"  # 3 * (100 * 0.01 + 4 * 0.05)
    rate, whole = speed(cost, trainer(2, compile=True), **options, teacher_seconds=None)
    assert rate.found == "6400 samples/s, 10.0 ms a step, without trainer.compile"
    assert whole.found.endswith("on one device; the run has 2")
    (unknown,) = speed(Cost(steps=1), trainer(1), **options, teacher_seconds=None)
    assert unknown.found == "unknown: too few steps to time (1)"


def test_a_checkpoint_has_the_optimizer_state_too():
    memory, disk = memory_and_disk(
        Cost(peak_bytes=3_000_000, optimizer_bytes=4000), student_bytes=1000, weights_bytes=2000
    )
    assert memory.found.startswith("3 MB, ")
    assert disk.found == "student 1 kB, two checkpoints of 6 kB"
