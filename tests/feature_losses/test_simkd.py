import copy
import pickle
from itertools import islice

import numpy as np
import pytest
import torch
from pairs import CNN, MLP, SHAPE, make_batch, make_pair, outputs_of
from torch import nn

from kdexp.contracts import FeatureLayers, Outputs, TeacherStudentPair
from kdexp.feature_losses.simkd import SimKD, simkd
from kdexp.features import side
from kdexp.models.cnn import cnn
from kdexp.models.mlp import mlp
from kdexp.models.rnn import rnn
from kdexp.models.vgg_cifar import vgg8

RNN = FeatureLayers(["recurrent"], "pool", "classifier")
VGG = FeatureLayers([f"stage{i}" for i in range(1, 6)], "pool", "classifier")


def deploy(pair):
    """The loss and the pair it is built from, as an experiment does it."""
    network = SimKD.deployed(pair.student, pair.teacher)
    student = side(network, network.layers, torch.zeros(2, *SHAPE))
    pair = TeacherStudentPair(student, pair.teacher, pair.target, pair.num_outputs)
    return SimKD(pair), pair


def test_is_the_mean_squared_error():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 2, 2)
    np.testing.assert_allclose(simkd(student, teacher), ((student - teacher).numpy() ** 2).mean(), rtol=1e-6)


def test_a_larger_teacher_is_averaged():
    student = torch.tensor([[1.0, 2.0]]).view(1, 2, 1, 1)
    teacher = torch.tensor([[0.0, 2.0, 4.0, 6.0], [2.0, 2.0, 2.0, 2.0]]).view(1, 2, 2, 2)
    assert simkd(student, teacher).item() == pytest.approx((3 - 1) ** 2 / 2)


def test_logits_are_the_teachers_classifier_on_the_mean_of_the_projected_maps(pair, batch):
    network = SimKD.deployed(pair.student, pair.teacher).eval()
    student = pair.student.network.eval()
    maps = student[:5](batch.inputs)
    projected = network.projector(maps)
    assert projected.shape == (6, 24, 2, 2)
    pooled = projected.numpy(force=True).mean((2, 3))
    weight, bias = (p.numpy(force=True) for p in pair.teacher.network.classifier.parameters())
    np.testing.assert_allclose(network(batch.inputs).numpy(force=True), pooled @ weight.T + bias, rtol=1e-4, atol=1e-5)


def test_the_projector_is_the_authors(pair):
    projector = SimKD.deployed(pair.student, pair.teacher).projector
    assert [(m.in_channels, m.out_channels, m.kernel_size[0]) for m in projector if isinstance(m, nn.Conv2d)] == [
        (16, 12, 1),
        (12, 12, 3),
        (12, 24, 1),
    ]
    assert sum(isinstance(m, nn.BatchNorm2d) for m in projector) == 3
    assert isinstance(projector[-1], nn.ReLU)


def test_a_student_that_gives_the_teachers_features_predicts_what_the_teacher_does(pair, batch):
    network = SimKD.deployed(pair.student, pair.teacher).eval()
    teacher = pair.teacher.network.eval()
    maps = teacher[:5](batch.inputs)
    network.projector = Constant(maps)
    torch.testing.assert_close(network(batch.inputs), teacher(batch.inputs))


class Constant(nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, inputs):
        return self.value


def test_neither_network_of_the_pair_is_touched_and_the_classifier_does_not_learn(pair, batch):
    before = [copy.deepcopy(s.network.state_dict()) for s in (pair.student, pair.teacher)]
    loss, deployed = deploy(pair)
    network = deployed.student.network
    assert not any(p.requires_grad for p in network.classifier.parameters())
    classifier = copy.deepcopy(network.classifier.state_dict())
    optimizer = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], lr=0.1)
    values = []
    for _ in range(30):
        value = loss(*outputs_of(loss, deployed, batch), batch)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.5 * values[0]
    for state, s in zip(before, (pair.student, pair.teacher), strict=True):
        assert all(torch.equal(state[name], value) for name, value in s.network.state_dict().items())
    assert all(torch.equal(classifier[name], value) for name, value in network.classifier.state_dict().items())
    assert all(p.requires_grad for p in pair.teacher.network.classifier.parameters())


def test_the_loss_compares_the_projected_maps_with_the_teachers_last_stage(pair, batch):
    loss, pair = deploy(pair)
    student, teacher = outputs_of(loss, pair, batch)
    expected = ((student.features["projector"] - teacher.features["stage3"]) ** 2).mean()
    torch.testing.assert_close(loss(student, teacher, batch), expected)


def test_it_survives_a_copy_a_pickle_and_a_state_dict(pair, batch):
    network = SimKD.deployed(pair.student, pair.teacher).eval()
    expected = network(batch.inputs)
    other = SimKD.deployed(pair.student, pair.teacher).eval()
    assert not torch.allclose(other(batch.inputs), expected)
    other.load_state_dict(network.state_dict())
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network)), other):
        torch.testing.assert_close(twin(batch.inputs), expected)
    twin = copy.deepcopy(network)
    with torch.no_grad():
        next(twin.parameters()).add_(1.0)
    assert not torch.allclose(twin(batch.inputs), expected)
    torch.testing.assert_close(network(batch.inputs), expected)


def test_no_hooks_stay_behind(pair, batch):
    network = SimKD.deployed(pair.student, pair.teacher)
    with pytest.raises(RuntimeError):
        network(torch.zeros(2, 9, 8, 8))
    network(batch.inputs)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize(
    ("student", "teacher", "layers"),
    [
        (lambda: mlp(5, SHAPE, hidden=[7]), lambda: mlp(5, SHAPE, hidden=[9]), (MLP, MLP)),
        (lambda: mlp(5, SHAPE, hidden=[7]), lambda: cnn(5, SHAPE, width=4), (MLP, CNN)),
        (lambda: rnn(5, SHAPE, hidden=6), lambda: rnn(5, SHAPE, hidden=8), (RNN, RNN)),
    ],
)
def test_vectors_and_sequences_go_through_a_linear_projector_to_the_penultimate_features(student, teacher, layers):
    torch.manual_seed(0)
    loss, pair = deploy(make_pair(student(), teacher(), *layers))
    network = pair.student.network.eval()
    assert [type(m) for m in network.projector] == [nn.Linear]
    batch = make_batch(1)
    student_outputs, teacher_outputs = outputs_of(loss, pair, batch)
    goal = teacher_outputs.features[pair.teacher.layers.penultimate]
    expected = ((student_outputs.features["projector"] - goal) ** 2).mean()
    torch.testing.assert_close(loss(student_outputs, teacher_outputs, batch), expected)
    network.projector = Constant(goal)
    torch.testing.assert_close(network(batch.inputs), teacher_outputs.logits)


@pytest.mark.parametrize("larger", ["teacher", "student"])
def test_the_larger_map_is_averaged_to_the_smaller(batch, larger):
    torch.manual_seed(0)
    small, large = (vgg8(5, SHAPE), VGG), (cnn(5, SHAPE, width=4), CNN)
    (student, own), (teacher, theirs) = (small, large) if larger == "teacher" else (large, small)
    loss, pair = deploy(make_pair(student, teacher, own, theirs))
    outputs = outputs_of(loss, pair, batch)
    found = outputs[0].features["projector"]
    assert found.shape[2:] == (1, 1)
    goal = outputs[1].features[loss.teacher_paths[0]].mean((2, 3), keepdim=True)
    torch.testing.assert_close(loss(*outputs, batch), ((found - goal) ** 2).mean())


def test_a_teacher_with_more_than_a_mean_before_its_classifier_is_refused(batch):
    torch.manual_seed(0)
    layers = list(cnn(5, SHAPE, width=4).named_children())
    teacher = nn.Sequential()
    for name, module in islice(layers, 6):
        teacher.add_module(name, module)
    teacher.add_module("head", nn.Sequential(nn.LayerNorm(16), nn.Linear(16, 5)))
    own = FeatureLayers(["stage3"], "head.0", "head.1")
    loss, pair = deploy(make_pair(cnn(5, SHAPE, width=4), teacher, CNN, own))
    outputs = outputs_of(loss, pair, batch)
    with pytest.raises(ValueError, match=r"^feature_loss=simkd needs a teacher whose classifier reads .*, got stage"):
        loss(*outputs, batch)


def test_a_classifier_in_a_list_is_replaced_by_what_leaves_features_as_they_are(batch):
    torch.manual_seed(0)
    student = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(64, 7), nn.ReLU()), nn.Linear(7, 5))
    layers = FeatureLayers(["1"], "-1:input", "-1")
    pair = make_pair(student, mlp(5, SHAPE, hidden=[9]), layers, MLP)
    network = SimKD.deployed(pair.student, pair.teacher)
    torch.testing.assert_close(network.backbone(batch.inputs), student[:2](batch.inputs))
    assert network(batch.inputs).shape == (6, 5)


def test_reads_only_what_it_needs(pair, batch):
    loss, pair = deploy(pair)
    assert loss.student_paths == ["projector"]
    assert not list(loss.parameters())
    student, teacher = outputs_of(loss, pair, batch)
    empty = Outputs(student.logits, {"projector": student.features["projector"]})
    assert loss(empty, teacher, batch) > 0
