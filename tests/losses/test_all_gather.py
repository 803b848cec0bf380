"""Two processes with half the batch each must learn what one process with the whole batch does."""

import os

import pytest
import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from kdexp.contracts import FeatureLayers, NetworkFeatures, Outputs, TeacherStudentPair
from kdexp.feature_losses.cc import CC
from kdexp.feature_losses.pkt import PKT
from kdexp.feature_losses.rkd import RKD
from kdexp.feature_losses.sp import SP
from kdexp.losses.all_gather import gather
from kdexp.losses.dist import dist
from kdexp.losses.mlkd import mlkd

RANKS, INPUTS, FEATURES = 2, 5, 4
SAMPLES = [8, 7]  # of the global batch; the ranks' fractions of seven are four and three


def of_features(method):
    """A feature distillation loss of two tensors, read from one layer."""
    side = NetworkFeatures(nn.Identity(), FeatureLayers(["layer"], "layer", "layer"), {"layer": (2, FEATURES)})
    loss = method(TeacherStudentPair(side, side, torch.zeros(8), 2))
    return lambda student, teacher: loss(
        Outputs(student, {"layer": student}), Outputs(teacher, {"layer": teacher}), None
    )


LOSSES = {
    "sp": of_features(SP),
    "cc": of_features(CC),
    "rkd": of_features(RKD),
    "pkt": of_features(PKT),
    "dist": lambda student, teacher: dist(student, teacher, 2.0),
    "mlkd": lambda student, teacher: mlkd(student, teacher, (1.0, 2.0)),
}


def data(samples):
    """Inputs and the teacher's features of the global batch."""
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(samples, size, generator=generator, dtype=torch.float64) for size in (INPUTS, FEATURES))


def network():
    torch.manual_seed(1)
    return nn.Linear(INPUTS, FEATURES).double()


def learn(model, loss, inputs, teacher):
    """The loss and the gradient of the weights."""
    model.zero_grad()
    value = loss(model(inputs), teacher)
    value.backward()
    return value.detach(), next(model.parameters()).grad.clone()


def process(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=RANKS)
    model = DistributedDataParallel(network())
    found = {}
    for samples in SAMPLES:
        inputs, teacher = (x[rank::RANKS] for x in data(samples))
        found |= {(name, samples): learn(model, loss, inputs, teacher) for name, loss in LOSSES.items()}
        found["gathered", samples] = gather(inputs)
    # What is gathered is one of two terms, whose gradients are one tensor.
    values = torch.full((2, 3), float(rank), requires_grad=True)
    other = torch.zeros(4, 3, requires_grad=True)
    (other * 1 + gather(values)).backward(torch.ones(4, 3))
    found["shared"] = (values.grad, other.grad)
    torch.save(found, f"{folder}/{rank}.pt")
    distributed.barrier()
    distributed.destroy_process_group()
    # Not by the interpreter's own way out: threads of Gloo that hold tensors of Python end it with SIGABRT now and then
    # (https://github.com/pytorch/pytorch/pull/179291).
    os._exit(0)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("gather")
    multiprocessing.start_processes(process, (str(folder),), nprocs=RANKS, start_method="forkserver")
    return [torch.load(folder / f"{rank}.pt") for rank in range(RANKS)]


@pytest.mark.slow
@pytest.mark.parametrize("samples", SAMPLES)
def test_every_process_gets_the_shares_of_all(found, samples):
    inputs, _ = data(samples)
    for each in found:
        assert torch.equal(each["gathered", samples], torch.cat([inputs[rank::RANKS] for rank in range(RANKS)]))


@pytest.mark.slow
@pytest.mark.parametrize("samples", SAMPLES)
@pytest.mark.parametrize("name", LOSSES)
def test_processes_learn_what_one_with_the_global_batch_does(found, name, samples):
    value, gradient = learn(network(), LOSSES[name], *data(samples))
    for each in found:
        torch.testing.assert_close(each[name, samples][0], value)
        torch.testing.assert_close(each[name, samples][1], gradient)


@pytest.mark.slow
def test_the_gradient_that_another_term_shares_stays_as_it_is(found):
    for each in found:
        assert torch.equal(each["shared"][0], torch.full((2, 3), 2.0))
        assert torch.equal(each["shared"][1], torch.ones(4, 3))


@pytest.mark.parametrize("name", LOSSES)
def test_the_shares_alone_would_teach_something_else(name):
    _, gradient = learn(network(), LOSSES[name], *data(8))
    shares = [learn(network(), LOSSES[name], *(x[rank::RANKS] for x in data(8)))[1] for rank in range(RANKS)]
    assert not torch.allclose(torch.stack(shares).mean(0), gradient, rtol=1e-2)


def test_one_process_keeps_its_values():
    values = torch.rand(3, 2)
    assert gather(values) is values
