"""ExecuTorch (.pte), for phones and microcontrollers; XNNPACK computes: ``pip install 'kdexp[executorch]'``."""

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp.atomic import atomic_path
from kdexp.export.formats.exported_program import exported, refused

SUFFIX = ".pte"
QUANTIZE = ("none", "fp16")
_MOST = 8  # samples of a batch: it plans its memory


def write(
    network: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    names: Sequence[str] = ("input",),
    about: Mapping[str, object] | None = None,
) -> None:
    """See `kdexp.export.formats.onnx.write`; for at most 8 samples, and with nothing about it in the file."""
    try:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower
    except ImportError as error:
        raise ValueError("format=executorch needs what is not installed: pip install 'kdexp[executorch]'") from error
    plain = copy.deepcopy(network).eval().to(memory_format=torch.contiguous_format)
    program = exported(plain, example, most=_MOST)
    try:
        lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
    except Exception as error:  # whatever its passes make of somebody's network
        raise refused(network, "executorch", error) from error
    with atomic_path(path) as temporary:
        temporary.write_bytes(lowered.buffer)


def load(path: Path, *, threads: int = 1) -> Callable[..., Tensor]:
    """A file that `write` wrote, as a network; how many threads it uses is the runtime's choice."""
    from executorch.runtime import Runtime

    method = Runtime.get().load_program(path).load_method("forward")

    def run(*inputs: Tensor) -> Tensor:
        chunks = zip(*(torch.split(part.cpu(), _MOST) for part in inputs), strict=True)
        return torch.cat([method.execute(list(chunk))[0] for chunk in chunks])

    return run
