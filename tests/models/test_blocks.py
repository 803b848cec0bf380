"""The blocks of the benchmark's networks, with one branch silenced: what is left must be the other one."""

import torch
from torch.nn import functional as F

from kdexp.models.mobilenetv2 import InvertedResidual
from kdexp.models.resnet_cifar import BasicBlock
from kdexp.models.shufflenetv1 import DownUnit as DownUnitV1
from kdexp.models.shufflenetv1 import Unit as UnitV1
from kdexp.models.shufflenetv1 import _branch
from kdexp.models.shufflenetv2 import Unit as UnitV2
from kdexp.models.wrn import PreActBlock

X = torch.randn(2, 12, 8, 8, generator=torch.Generator().manual_seed(0))


def silenced(block, *paths):
    for path in paths:
        torch.nn.init.zeros_(block.get_submodule(path).weight)
    return block.eval()


def test_a_resnet_block_without_its_branch_is_relu():
    torch.testing.assert_close(silenced(BasicBlock(12, 12, 1), "conv2.0")(X), X.clamp(min=0))


def test_a_resnet_block_that_halves_the_image_has_a_convolution_as_shortcut():
    block = silenced(BasicBlock(12, 24, 2), "conv2.0")
    expected = F.conv2d(X, block.shortcut[0].weight, stride=2) / (1 + 1e-5) ** 0.5  # fresh batch norm in eval mode
    torch.testing.assert_close(block(X), expected.clamp(min=0))


def test_a_preactivation_block_without_its_branch_is_the_identity():
    torch.testing.assert_close(silenced(PreActBlock(12, 12, 1), "conv2")(X), X)


def test_a_preactivation_block_that_widens_starts_its_shortcut_after_norm_and_relu():
    block = silenced(PreActBlock(12, 24, 2), "conv2")
    active = X.clamp(min=0) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(X), F.conv2d(active, block.shortcut.weight, stride=2))


def test_an_inverted_residual_without_its_branch_is_the_identity_or_nothing():
    torch.testing.assert_close(silenced(InvertedResidual(12, 12, 1, 6), "project.0")(X), X)
    assert not silenced(InvertedResidual(12, 12, 2, 6), "project.0")(X).any()
    assert not silenced(InvertedResidual(12, 16, 1, 6), "project.0")(X).any()


def test_a_shufflenet_unit_without_its_branch_is_relu():
    torch.testing.assert_close(silenced(UnitV1(_branch(12, 12, 1, 3)), "branch.3.0")(X), X.clamp(min=0))


def test_a_shufflenet_unit_that_halves_the_image_appends_its_mean():
    out = silenced(DownUnitV1(12, 24, 3), "branch.3.0")(X)
    assert out.shape == (2, 24, 4, 4)
    assert not out[:, :12].any()
    # The mean over 3 x 3 with stride 2; the border counts as zeros.
    torch.testing.assert_close(out[:, 12:, 1, 1], X[:, :, 1:4, 1:4].mean((2, 3)).clamp(min=0))
    torch.testing.assert_close(out[:, 12:, 0, 0], X[:, :, 0:2, 0:2].sum((2, 3)).clamp(min=0) / 9)


def test_a_shufflenetv2_unit_passes_the_first_half_and_interleaves_both():
    out = silenced(UnitV2(12), "branch.2.0")(X)
    torch.testing.assert_close(out[:, 0::2], X[:, :6])
    assert not out[:, 1::2].any()
