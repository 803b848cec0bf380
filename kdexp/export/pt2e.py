"""A network in 8 bits by torchao's flow for exported graphs (PT2E): ``pip install 'kdexp[qat]'``.

Activations are uint8 of any range, weights int8, per channel and symmetric, as
`torchao.quantization.pt2e.quantizer.x86_inductor_quantizer` has it.
"""

import copy
import logging
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from kdexp.export.formats.exported_program import exported


def static(network: nn.Module, example: Sequence[Tensor], calibration: Iterable[Sequence[Tensor]]) -> nn.Module:
    """Weights and activations in 8 bits.

    Args:
        network: in eval mode; stays as it is.
        example: its inputs (n, ...).
        calibration: more of them: where activations lie is found on these.
    """
    prepared = _prepared(network.eval(), example)
    with torch.no_grad():
        for inputs in calibration:
            prepared(*inputs)
    return converted(prepared)


def trainable(network: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """A copy that rounds to 8 bits wherever `converted` will, and lets gradients through."""
    return _prepared(copy.deepcopy(network).train(), example, is_qat=True)


def set_training(network: nn.Module, training: bool) -> None:
    """`nn.Module.train` of what `trainable` gives."""
    flow = _library()
    (flow.move_exported_model_to_train if training else flow.move_exported_model_to_eval)(network)


def converted(prepared: nn.Module) -> nn.Module:
    """The network in 8 bits, in eval mode."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    flow = _library()
    with _quiet():
        network = convert_pt2e(prepared)
        flow.move_exported_model_to_eval(network)
        flow.allow_exported_model_train_eval(network)
    drop_unused(network)
    return cast(nn.Module, network)


def drop_unused(network: GraphModule) -> None:
    """Forget the weights that the graph does not read: those with floats, which would be written beside the others."""
    read = {node.target for node in network.graph.nodes if node.op == "get_attr"}
    for name, _ in [*network.named_parameters(), *network.named_buffers()]:
        if name not in read:
            module, _, own = name.rpartition(".")
            delattr(network.get_submodule(module), own)


def _prepared(network: nn.Module, example: Sequence[Tensor], *, is_qat: bool = False) -> nn.Module:
    _library()
    from torchao.quantization.pt2e.quantize_pt2e import prepare_pt2e, prepare_qat_pt2e
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as quantizers

    config = quantizers.get_default_x86_inductor_quantization_config(is_qat=is_qat)
    with _quiet():
        graph = exported(network, example).module()
        quantizer = quantizers.X86InductorQuantizer().set_global(config)
        return cast(nn.Module, (prepare_qat_pt2e if is_qat else prepare_pt2e)(graph, quantizer))


def _library() -> ModuleType:
    try:
        with _quiet():
            from torchao.quantization import pt2e
    except ImportError as error:
        raise ValueError("quantize needs what is not installed: pip install 'kdexp[qat]'") from error
    return cast(ModuleType, pt2e)


@contextmanager
def _quiet() -> Iterator[None]:
    """The library warns of what PyTorch is going to change for it."""
    said = logging.getLogger("torch.utils._pytree")
    level = said.level
    try:
        said.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        said.setLevel(level)
