import json
import multiprocessing
import os
import threading
import time

import numpy as np
import pytest
import timm
import torch
from scipy.special import expit, softmax
from torch import nn

from kdexp.models.cnn import cnn
from kdexp.models.mlp import mlp
from kdexp.models.mobilenetv2 import mobilenetv2_half
from kdexp.models.resnet_cifar import resnet8
from kdexp.models.rnn import rnn
from kdexp.models.shufflenetv2 import shufflenetv2
from kdexp.models.vgg_cifar import vgg8
from kdexp.teacher.teacher import Teacher
from kdexp.teacher.trained_teachers import load_or_train


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3))


def state(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def test_a_teacher_is_frozen_and_in_eval_and_asking_it_changes_nothing():
    network = with_batch_norm().train()
    teacher = Teacher([network])
    before = state(network)
    first, second = (teacher(torch.ones(5, 4)).logits for _ in range(2))
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
    assert not any(module.training for module in network.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_several_teachers_give_the_mean_of_their_probabilities_at_the_temperature_asked_for(temperature):
    torch.manual_seed(0)
    networks = [nn.Linear(4, 3) for _ in range(3)]
    inputs = torch.randn(6, 4) * 5
    members = [network(inputs).detach().numpy().astype(np.float64) for network in networks]
    wanted = np.mean([softmax(logits / temperature, axis=1) for logits in members], axis=0)
    logits = Teacher(networks)(inputs, temperature).logits
    assert softmax(logits.numpy().astype(np.float64) / temperature, axis=1) == pytest.approx(wanted, abs=1e-6)


def test_several_sigmoid_teachers_give_the_mean_of_their_probabilities():
    torch.manual_seed(0)
    networks = [nn.Linear(4, 3) for _ in range(2)]
    inputs = torch.randn(6, 4)
    wanted = np.mean([expit(network(inputs).detach().numpy().astype(np.float64) / 2) for network in networks], axis=0)
    logits = Teacher(networks, kind="multilabel")(inputs, 2.0).logits
    assert expit(logits.numpy().astype(np.float64) / 2) == pytest.approx(wanted, abs=1e-6)


def test_certain_teachers_that_disagree_give_finite_logits():
    networks = [nn.Identity(), nn.Identity()]
    for kind in ("multiclass", "multilabel"):
        logits = Teacher(networks, kind=kind)(torch.tensor([[1e4, -1e4]])).logits
        assert logits.isfinite().all()


def test_a_teacher_sees_inputs_normalised_as_in_its_own_training():
    seen = []

    class Spy(nn.Module):
        def forward(self, inputs):
            seen.append(inputs)
            return inputs.flatten(1)

    image = torch.rand(2, 3, 4, 4)
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.1]
    own_mean, own_std = [0.1, 0.2, 0.3], [0.9, 0.8, 0.7]

    def normalise(mean, std):
        return (image - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)

    Teacher([Spy()], data=(mean, std), expects=[(own_mean, own_std)])(normalise(mean, std))
    torch.testing.assert_close(seen[0][:2], normalise(own_mean, own_std), rtol=1e-5, atol=1e-5)


NETWORKS = [
    (mlp, (7, 3)), (cnn, (3, 8, 8)), (resnet8, (3, 16, 16)), (mobilenetv2_half, (3, 16, 16)),
    (shufflenetv2, (3, 16, 16)), (vgg8, (3, 16, 16)), (rnn, (6, 4)),
    (lambda classes, shape: timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=classes), (3, 32, 32)),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=["", "channels_last"])
@pytest.mark.parametrize(("build", "shape"), NETWORKS, ids=["mlp", "cnn", "resnet", "mobilenet", "shufflenet", "vgg",
                                                            "rnn", "vit"])  # fmt: skip
def test_an_answer_does_not_depend_on_the_rest_of_the_batch_or_on_the_threads(build, shape, layout):
    torch.manual_seed(0)
    teacher = Teacher([build(7, shape).to(memory_format=layout)])
    inputs, threads = torch.randn(101, *shape), torch.get_num_threads()
    wanted = teacher(inputs).logits
    shuffled = torch.randperm(101)
    try:
        for count in (2, 1):
            torch.set_num_threads(count)
            for size in (101, 64, 33, 5):
                found = torch.cat([teacher(part).logits for part in inputs[shuffled].split(size)])
                assert torch.equal(found, wanted[shuffled]), (count, size)
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    network = teacher.networks[0]
    with torch.no_grad():
        torch.testing.assert_close(network(inputs), wanted, rtol=1e-4, atol=1e-5)


class Witness(nn.Linear):
    """Notes which thread asks it, and how many threads its operators have; takes its time."""

    def __init__(self, seconds: float) -> None:
        super().__init__(4, 3)
        self.seconds, self.seen = seconds, []

    def forward(self, inputs):
        self.seen.append((threading.current_thread() is threading.main_thread(), torch.get_num_threads()))
        time.sleep(self.seconds)
        return super().forward(inputs)


@pytest.mark.parametrize("seconds", [0, 1e-3])
def test_every_pass_is_a_single_threads_and_a_quick_one_that_of_the_thread_that_waits(seconds):
    network, threads = Witness(seconds), torch.get_num_threads()
    teacher = Teacher([network])
    try:
        torch.set_num_threads(2)
        for _ in range(20):
            teacher(torch.zeros(64, 4))
    finally:
        torch.set_num_threads(threads)
    assert {count for _, count in network.seen} == {1}
    assert {is_own for is_own, _ in network.seen[-2:]} == {seconds == 0}


def train_slowly(work) -> nn.Module:
    work.mkdir(parents=True)
    (work.parent.parent / f"trained-{os.getpid()}").touch()
    time.sleep(0.5)
    return nn.Linear(2, 2)


def ask(folder) -> None:
    load_or_train(folder, {"name": "test"}, train_slowly)


def test_processes_that_ask_at_once_train_one_teacher(tmp_path):
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=ask, args=(tmp_path / "key",)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert len(list(tmp_path.glob("trained-*"))) == 1
    assert json.loads((tmp_path / "key" / "teacher.json").read_text())["name"] == "test"
    assert not (tmp_path / "key" / "training").exists()


def test_a_damaged_stored_teacher_is_trained_again_and_not_used(tmp_path):
    calls = []

    def train(work):
        calls.append(work)
        return nn.Linear(2, 2)

    load_or_train(tmp_path, {}, train)
    load_or_train(tmp_path, {}, train)
    assert len(calls) == 1
    path = tmp_path / "teacher.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    load_or_train(tmp_path, {}, train)
    assert len(calls) == 2


def test_a_failed_training_leaves_no_teacher_and_no_lock(tmp_path):
    def fail(work):
        raise RuntimeError("no")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no"):
            load_or_train(tmp_path, {}, fail)
    assert not (tmp_path / "teacher.safetensors").exists()
