"""``feature_layers: auto``, the default of every network but kdexp's own: every feature loss trains with it."""

import copy
from functools import cache

import pytest
import torch
from pairs import outputs_of
from test_feature_laws import FEATURE_LOSSES, OF_ATTENTION

from kdexp.config.compose import compose
from kdexp.contracts import Batch, TeacherStudentPair
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import build_network
from kdexp.features import side

NETWORKS = {
    "timm": ["timm", "name=test_resnet", "stem=small"],
    "timm, tokens": ["timm", "name=test_vit", "img_size=32"],
    "torchvision": ["torchvision", "name=shufflenet_v2_x0_5", "stem=small"],
    "own": ["cnn_small", "feature_layers=auto"],
}


def settings(role, words):
    option, *others = words
    added = [f"+{role}.{word}" if word.startswith("img_size") else f"{role}.{word}" for word in others]
    return [f"{role}={option}", *added]


@cache
def composed(network):
    """A configuration with all feature losses."""
    words = [*settings("student", NETWORKS[network]), *settings("teacher", NETWORKS[network])]
    shape = ["dataset.input_shape=[3,32,32]", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]"]
    losses = f"feature_loss=[{','.join(FEATURE_LOSSES)}]"
    return compose(["experiment=smoke", *words, *shape, losses], output_dir="unused")


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("feature_loss", [name for name in FEATURE_LOSSES if name not in OF_ATTENTION])
def test_every_feature_loss_trains_a_network_whose_layers_are_found(feature_loss, network):
    config = copy.deepcopy(composed(network))
    config.feature_loss = {feature_loss: config.feature_loss[feature_loss]}
    torch.manual_seed(1)  # the student's is 0: equal networks have nothing to learn from each other
    teacher = build_network(config.teacher, "teacher", config.dataset, config.task)
    student = Experiment(config).new_student(pretrained=None)
    labels = torch.randint(10, (40,))
    (term,) = Experiment(config).new_feature_losses(student, teacher, labels).features.values()
    index = torch.arange(4)
    batch = Batch(torch.randn(4, 3, 32, 32), labels[index], index)
    found = [side(network, getattr(network, "layers", None), batch.inputs[:2]) for network in (student, teacher)]
    value = term.loss(*outputs_of(term.loss, TeacherStudentPair(*found, labels, 10), batch), batch)
    value.backward()
    assert value.isfinite()
    assert any(weight.grad is not None and weight.grad.any() for weight in student.parameters())
