"""A network in 16 bits, whose inputs and outputs stay what they are."""

import copy
from pathlib import Path

from torch import Tensor, nn


class Half(nn.Module):
    """A copy of a network with weights and activations of float16.

    Args:
        network: takes and gives float32; its whole numbers stay what they are.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()
        self.training = network.training

    def forward(self, *inputs: Tensor) -> Tensor:
        """(N, ...) each -> logits, float32."""
        logits: Tensor = self.network(*(part.half() if part.is_floating_point() else part for part in inputs))
        return logits.float()


def onnx_in_half(file: Path, target: Path) -> None:
    """An ONNX file with weights and activations of float16, but where operators need float32."""
    import onnx
    from onnxruntime.transformers.float16 import convert_float_to_float16
    from onnxruntime.transformers.onnx_model import OnnxModel

    model = OnnxModel(convert_float_to_float16(onnx.load(file), keep_io_types=True))
    model.topological_sort()  # the converter adds casts at the end
    del model.model.graph.value_info[:]  # types of what is in between, some of which it got wrong; they follow
    onnx.save(model.model, target)
