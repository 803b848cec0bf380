import pytest
import torch
from torch import nn
from torchvision import models

from kdexp.models.complexity import dry_run, macs, parameters


def test_a_grouped_strided_convolution_is_counted_by_hand():
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    assert parameters(conv) == 6 * 2 * 9 + 6
    assert macs(conv, (4, 8, 8)) == 4 * 4 * 6 * 2 * 9  # an output pixel and channel reads half of the channels


# Billions, as published with torchvision's weights: convolutions, attention, shifted windows.
@pytest.mark.parametrize(("name", "published"), [("resnet18", 1.814), ("vit_b_32", 4.409), ("swin_t", 4.491)])
def test_macs_are_those_that_torchvision_publishes(name, published):
    with torch.device("meta"):
        model = models.get_model(name)
    assert macs(model, (3, 224, 224)) / 1e9 == pytest.approx(published, abs=0.001)


def test_frozen_parameters_count_and_buffers_do_not():
    assert parameters(nn.BatchNorm2d(7).requires_grad_(False)) == 14


def test_a_network_that_is_measured_stays_as_it_is():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout()).train()
    model[1].eval()
    before = {path: tensor.clone() for path, tensor in model.state_dict().items()}
    macs(model, (1, 4, 4))
    assert [module.training for module in model.modules()] == [True, True, False, True]
    assert all(torch.equal(before[path], tensor) for path, tensor in model.state_dict().items())
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())


def test_a_dry_run_gives_the_shape_alone():
    output = dry_run(nn.Linear(3, 5), (2, 3))
    assert output.device.type == "meta"
    assert output.shape == (1, 2, 5)


class Reads(nn.Linear):
    def forward(self, x):
        found = super().forward(x)
        return found * 2 if float(found.sum()) > 1 else found


def test_a_network_that_looks_at_values_is_counted_and_run_all_the_same():
    assert macs(Reads(3, 5), (3,)) == 15
    assert dry_run(Reads(3, 5), (3,), n=2).shape == (2, 5)
    with pytest.raises(RuntimeError):
        macs(Reads(3, 5), (4,))
