"""What the methods with trained adapters share: a batch norm for any batch, connectors, and matched pre-activations."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from kdexp.contracts import NetworkFeatures, TeacherStudentPair
from kdexp.feature_losses.maps import as_maps, layer_pattern, map_shape, resized
from kdexp.losses.shapes import check_shapes


class BatchNorm(nn.BatchNorm2d):
    """Batch norm that also trains on a batch with one value a channel, where there is no variance.

    The last batch of an epoch may be a single sample, and its vector one value a channel. It is normalised with the
    running statistics, as in eval mode, and leaves them as they are; PyTorch's own raises an error.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Normalise each channel.

        Args:
            input: (N, C, H, W).

        Returns:
            The same shape.

        Raises:
            ValueError: another number of dimensions or channels.
        """
        check_shapes(f"N {self.num_features} H W", input=input)
        if self.training and input.numel() == input.shape[1]:
            return F.batch_norm(input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def convolution(channels: int, out: int, kernel: int) -> nn.Conv2d:
    """Without bias, keeping the size; weights from Normal(0, sqrt(2 / fan_out)), as the authors of AB and OFD do."""
    layer = nn.Conv2d(channels, out, kernel, padding=kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


class Connector(nn.Module):
    """From the student's features to maps of the teacher's shape: a resize, a 1x1 convolution and batch norm.

    Unlike `kdexp.feature_losses.maps.Regressor` it sets the scale of each channel: what it gives stands for values
    before an activation, whose sign and size matter.

    Args:
        source: shape of the features that come, with the batch, in any of the forms of `as_maps`.
        goal: shape of the features that they are to be compared with.
    """

    def __init__(self, source: Sequence[int], goal: Sequence[int]) -> None:
        super().__init__()
        _, channels, *self._size = map_shape(goal)
        self._pattern = layer_pattern(source)
        self.layers = nn.Sequential(convolution(map_shape(source)[1], channels, 1), BatchNorm(channels))

    def forward(self, features: Tensor) -> Tensor:
        """Maps (N, C', H', W') of the goal's shape.

        Args:
            features: (N, C, H, W), (N, L, C) or (N, C), as the source is, of any size.

        Raises:
            ValueError: another number of dimensions or channels than the source's.
        """
        check_shapes(self._pattern, features=features)
        maps: Tensor = self.layers(resized(as_maps(features), self._size))
        return maps


def matched_preacts(method: str, pair: TeacherStudentPair) -> list[tuple[str, str]]:
    """(student path, teacher path) of the stages before their activations, matched from the output on.

    Args:
        method: for the message.
        pair: see `kdexp.contracts.TeacherStudentPair`.

    Raises:
        ValueError: a network whose layers before the activation are not known.
    """
    student, teacher = (_preact(method, name, side) for name, side in _sides(pair))
    both = min(len(student), len(teacher))
    return list(zip(student[-both:], teacher[-both:], strict=True))


def _sides(pair: TeacherStudentPair) -> tuple[tuple[str, NetworkFeatures], tuple[str, NetworkFeatures]]:
    return ("student", pair.student), ("teacher", pair.teacher)


def _preact(method: str, name: str, side: NetworkFeatures) -> Sequence[str]:
    if not side.layers.preact:
        raise ValueError(f"feature_loss={method} needs feature_layers.preact of the {name}, got none")
    return side.layers.preact
