"""What a network costs, found from shapes alone."""

import copy
from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


def parameters(model: nn.Module) -> int:
    """Number of parameters, frozen ones included; buffers (batch norm's statistics) are none."""
    return sum(parameter.numel() for parameter in model.parameters())


def macs(model: nn.Module, input_shape: Sequence[int]) -> int:
    """Multiply-accumulates of the matrix products and convolutions in classifying one sample.

    Additions, activations, normalisation and pooling are left out, as in published tables.

    Args:
        model: any network; it is not run and stays as it is.
        input_shape: shape of one sample, without the batch.
    """
    with FlopCounterMode(display=False) as counter:
        dry_run(model, input_shape)
    return int(counter.get_total_flops()) // 2


def dry_run(model: nn.Module, input_shape: Sequence[int], n: int = 1) -> object:
    """What the network in eval mode returns for n samples, as meta tensors: shapes without values.

    No device's fused kernel (cuDNN's LSTM, for one) hides its matrix products here.

    Args:
        model: any network; it is not run and stays as it is.
        input_shape: shape of one sample, without the batch.
        n: samples.
    """
    shapes_only = copy.deepcopy(model).to("meta").eval()
    with torch.no_grad():
        return shapes_only(torch.empty(n, *input_shape, device="meta"))
