"""What the doctor measures without a training."""

import pytest
import torch
from torch import nn

from kdexp.contracts import UNLABELED, Batch, Outputs, Split, Splits
from kdexp.data.data_module import DataModule
from kdexp.doctor.measurements import (
    Moments,
    NetworkSize,
    batch_dependence,
    compares_samples,
    input_moments,
    network_size,
    teacher_state,
)
from kdexp.losses.dist import DIST
from kdexp.losses.kd import KD
from kdexp.tasks.classification import Classification
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.terms import Term


def sorted_data(split):
    return DataModule(
        Splits(split, split, split),
        augment=[],
        mean=[0.0],
        std=[1 / 255],
        batch_size=10,
        eval_batch_size=5,
        drop_last=True,
        seed=0,
    )


def test_the_measured_inputs_are_of_all_classes_though_the_samples_are_sorted():
    target = torch.arange(300) // 100
    split = Split((target * 100).view(-1, 1, 1, 1).to(torch.uint8), target, torch.arange(300))
    data = sorted_data(split)
    student, teachers = input_moments(data, None, torch.device("cpu"), per_channel=False, samples=30)
    mean, std = student.compute()
    assert (float(mean), float(std)) == pytest.approx((100, 81.65), rel=1e-4)  # of 0, 100 and 200, ten times each
    assert teachers == []


def test_moments_are_those_of_all_batches_together():
    images, features = torch.randn(7, 3, 4, 4), torch.randn(7, 5)
    for inputs, dims in ((images, (0, 2, 3)), (features, (0,))):
        moments = Moments(per_channel=True)
        for part in inputs.split(3):
            moments.add(part)
        mean, std = moments.compute()
        assert torch.allclose(mean, inputs.double().mean(dims))
        assert torch.allclose(std, inputs.double().std(dims, correction=0))
    moments = Moments(per_channel=False)
    moments.add(images)
    assert moments.compute()[0] == pytest.approx([float(images.mean())], abs=1e-6)


def on_logits(loss):
    return lambda student, teacher, batch: loss(student.logits, teacher.logits, batch.target)


class Rate(nn.Module):
    """Keeps a state: each call has another value."""

    calls = 0

    def forward(self, student, teacher, batch):
        Rate.calls += 1
        return student.logits.square().mean() * self.calls


def similarity(student, teacher, batch):
    def gram(x):
        return x @ x.T

    return (gram(student.features["f"]) - gram(teacher.features["f"])).square().mean()


def distance(student, teacher, batch):
    return (student.features["f"] - teacher.features["f"]).square().mean()


@pytest.mark.parametrize(
    ("loss", "compares"),
    [
        (on_logits(KD(4.0)), False),
        (on_logits(DIST(4.0)), True),
        (similarity, True),
        (distance, False),
        (Rate(), None),
    ],
    ids=["kd", "dist", "similarity", "distance", "state"],
)
def test_a_loss_that_compares_samples_is_known_by_what_it_does(loss, compares):
    torch.manual_seed(0)
    student, teacher = (Outputs(torch.randn(16, 5), {"f": torch.randn(16, 6)}) for _ in range(2))
    batch = Batch(torch.zeros(16, 1), torch.randint(5, (16,)), torch.arange(16))
    assert compares_samples(loss, student, teacher, batch) is compares


def test_inputs_of_a_teacher_are_measured_after_its_own_normalization():
    split = Split(torch.arange(40.0).view(40, 1) / 40, torch.arange(40) % 2, torch.arange(40))
    teacher = Teacher([nn.Linear(1, 2)], data=([0.0], [1.0]), expects=[([0.5], [0.25])])
    data = DataModule(
        Splits(split, split, split),
        augment=[],
        mean=[0.0],
        std=[1.0],
        batch_size=8,
        eval_batch_size=7,
        drop_last=True,
        seed=0,
    )
    student, (of_teacher,) = input_moments(data, teacher, torch.device("cpu"), per_channel=True)
    (mean, std), (seen, spread) = student.compute(), of_teacher.compute()
    assert torch.allclose(mean, split.inputs.double().mean(0))
    assert torch.allclose(seen, (mean - 0.5) / 0.25)
    assert torch.allclose(spread, std / 0.25)


class Noisy(nn.Linear):
    def forward(self, inputs):
        return nn.functional.dropout(super().forward(inputs), 0.5)  # whatever the mode


def test_the_state_of_a_teacher_is_that_after_the_training():
    teacher, inputs = Teacher([nn.Linear(4, 3)]), torch.randn(8, 4)
    before = teacher(inputs).logits
    teacher.networks[0].train()
    teacher.networks[0].bias.requires_grad_(True)
    teacher.networks[0].bias.data += 0.1
    state = teacher_state(teacher, before, inputs)
    assert (state.training_modules, state.trainable_parameters) == (1, 1)
    assert torch.allclose(state.after[0], before + 0.1)
    assert torch.equal(*state.after)
    noisy = Teacher([Noisy(4, 3)])
    assert not torch.allclose(*teacher_state(noisy, before, inputs).after)


def test_the_size_of_several_networks_is_their_sum():
    networks = [nn.Linear(4, 3), nn.Linear(4, 2, bias=False)]
    assert network_size(networks, [4]) == NetworkSize(parameters=15 + 8, macs=12 + 8)


class Foreign(nn.Module):
    """Compares samples, and is no part of kdexp."""

    student_paths = teacher_paths = ()

    def forward(self, student, teacher, batch=None):
        return (student.logits.mean(0) - teacher.logits.mean(0)).square().mean()


def test_losses_that_compare_samples_are_named_by_whose_they_are():
    torch.manual_seed(0)
    rate = Rate()
    rate.student_paths = rate.teacher_paths = ()
    distiller = Distiller(
        nn.Linear(4, 3),
        torch.optim.SGD,
        task=Classification(3),
        teacher=nn.Linear(4, 3),
        soft_loss=DIST(4.0),
        feature_losses={"mine": Term(Foreign()), "state": Term(rate)},
    )
    batch = Batch(torch.randn(16, 4), torch.arange(16) % 3, torch.arange(16))
    found = batch_dependence(distiller, batch)
    assert (found.own, found.foreign, found.unknown) == (["soft"], ["mine"], ["state"])
    batch.target[3:] = UNLABELED
    assert batch_dependence(distiller, batch) is None
