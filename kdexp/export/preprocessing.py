"""A network with what kdexp does to inputs before it, so that it takes what a data set stores."""

from collections.abc import Sequence

from torch import Tensor, nn

from kdexp.data.normalization import normalized, statistic


class Preprocessed(nn.Module):
    """A network that takes inputs as a data set stores them, and gives what kdexp's evaluation of it would see.

    Images of uint8 become float32 in [0, 1]; then images and tables are normalised. Where the network is for images of
    another size (``student.resize``), it resizes them itself. Texts are code points already, and stay what they are.
    The module can be exported (`torch.export.export`, `torch.onnx.export`) if its network can.

    Args:
        network: in eval mode.
        mean: of the inputs, images in [0, 1]: a value for each channel of images (C, H, W), for each feature (the last
            dimension) of anything else, or one for all.
        std: likewise, > 0.
        input_shape: of one sample, without N; of texts (L,).

    Raises:
        ValueError: mean or std have another number of values.
    """

    def __init__(
        self, network: nn.Module, mean: Sequence[float], std: Sequence[float], input_shape: Sequence[int]
    ) -> None:
        super().__init__()
        self.network = network
        self.mean: Tensor
        self.std: Tensor
        for name, values in (("mean", mean), ("std", std)):
            self.register_buffer(name, statistic(name, values, input_shape))

    def forward(self, inputs: Tensor, *others: Tensor) -> Tensor:
        """The logits.

        Args:
            inputs: (N, C, H, W) uint8 images in 0..255; (N, ...) float32 in the units of the data; texts (N, L) int32.
            others: what else the network takes, and takes as it is.
        """
        logits: Tensor = self.network(normalized(inputs, self.mean, self.std), *others)
        return logits
