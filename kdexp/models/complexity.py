"""What a network costs, found from shapes alone where it allows it."""

import copy
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

Found = TypeVar("Found")


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included; buffers (batch norm's statistics) are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of the matrix products and convolutions in classifying one sample.

    Additions, activations, normalisation and pooling are left out, as in published tables.

    Args:
        model: any network, which stays as it is; one that looks at values is run, any other is not.
        input_shape: shape of one sample, without the batch.
    """

    def counted(device: str) -> int:
        with FlopCounterMode(display=False) as counter:
            _outputs(model, input_shape, 1, device)
        return int(counter.get_total_flops()) // 2

    return _without_values(counted)


def dry_run(model: nn.Module, input_shape: Sequence[int], n: int = 1) -> object:
    """What the network in eval mode returns for n samples, as meta tensors: shapes without values, where it allows it.

    No device's fused kernel (cuDNN's LSTM, for one) hides its matrix products here.

    Args:
        model: any network; it is not run and stays as it is.
        input_shape: shape of one sample, without the batch.
        n: samples.
    """
    return _without_values(lambda device: _outputs(model, input_shape, n, device))


def _without_values(run: Callable[[str], Found]) -> Found:
    """On meta tensors; on the CPU for a network that looks at values, as one of somebody's own may."""
    try:
        return run("meta")
    except RuntimeError as error:
        try:
            return run("cpu")
        except RuntimeError:
            raise error from None


def _outputs(model: nn.Module, input_shape: Sequence[int], n: int, device: str) -> object:
    own = copy.deepcopy(model).to(device).eval()
    with torch.no_grad():
        return own(torch.zeros(n, *input_shape, device=device))
