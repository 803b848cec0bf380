"""`torch.export`'s own file (.pt2), for PyTorch without the network's code, AOTInductor and other compilers."""

import copy
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from kdexp.atomic import atomic_path
from kdexp.torch_threads import torch_threads

SUFFIX = ".pt2"
QUANTIZE = ("none", "fp16", "int8_static", "qat")
BATCH = "batch"
"""The first axis of inputs and outputs: samples."""
_ABOUT = "kdexp.json"


def write(
    network: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    names: Sequence[str] = ("input",),
    about: Mapping[str, object] | None = None,
) -> None:
    """See `kdexp.export.formats.onnx.write`; inputs are given by their place, and about is in the file as JSON."""
    program = exported(copy.deepcopy(network).eval(), example)
    file = io.BytesIO()  # in a path it would keep the temporary's name, and no two files would be the same
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of weights that are views of others
        torch.export.save(program, file, extra_files={_ABOUT: json.dumps(dict(about or {}))})
    with atomic_path(path) as temporary:
        temporary.write_bytes(file.getbuffer())


def exported(network: nn.Module, example: Sequence[Tensor], *, most: int | None = None) -> ExportedProgram:
    """The graph of a network in the mode that it is in, for any number of samples.

    Args:
        network: see above.
        example: its inputs (n, ...) for a few samples.
        most: samples; None: any.

    Raises:
        ValueError: `torch.export` cannot follow it; one line.
    """
    # A batch of one would be taken for a constant.
    batch = tuple(torch.cat((part, part))[: max(2, len(part))].cpu() for part in example)
    samples = torch.export.Dim(BATCH, max=most)
    shapes = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for part in batch:
        shapes[part] = {0: samples}
    try:
        with warnings.catch_warnings(), redirect_stderr(io.StringIO()):  # which gets graphs that cannot be had
            warnings.simplefilter("ignore")  # of recurrent layers, which set attributes of their own
            program = torch.export.export(network, batch, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever becomes of somebody's network
        raise refused(network, "torch.export's", error) from error
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # has the paths of this machine
    return program


def refused(network: nn.Module, format_: str, error: BaseException) -> ValueError:
    """That a network cannot be had in a format, in one line."""
    reason, name = str(error).strip().splitlines()[0], type(network).__name__
    return ValueError(f"format must be one that can be had of {name}, got {format_}: {reason:.200}")


def load(path: Path, *, threads: int = 1) -> Callable[..., Tensor]:
    """A file that `write` wrote, as a network: see `kdexp.export.formats.onnx.load`."""
    import torch.ao.quantization.fx._decomposed  # the operators of 8 bits; torchao imports it, too

    network = torch.export.load(path).module()

    def run(*inputs: Tensor) -> Tensor:
        with torch_threads(threads), torch.no_grad():
            logits: Tensor = network(*(part.cpu() for part in inputs))
            return logits

    return run
