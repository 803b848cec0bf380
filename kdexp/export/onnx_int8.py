"""An ONNX file in 8 bits, by onnxruntime: ``pip install 'kdexp[export]'``.

The library is imported where it is used: a process that has imported it cannot be forked, and the jobs of a sweep are
forks of one that has imported all files of kdexp.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import onnx
import torch
from torch import Tensor

_CHUNK = 32  # samples that are run at once


def static(file: Path, target: Path, inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Weights (per channel, symmetric) and activations in 8 bits; where these lie is found on samples.

    Args:
        file: with floats.
        target: written.
        inputs: of the file, (n, ...) each.
        names: of the inputs.
    """
    from onnxruntime.quantization import quantize_static

    with _prepared(file) as ready:
        quantize_static(ready, target, _Reader(inputs, names), per_channel=True)
    _keep_metadata(file, target)


def dynamic(file: Path, target: Path) -> None:
    """Weights in 8 bits, and activations as they come: their range is found in each call.

    Args:
        file: with floats.
        target: written.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _prepared(file) as ready:
        quantize_dynamic(ready, target, per_channel=True, weight_type=QuantType.QUInt8)
    _keep_metadata(file, target)


class _Reader:
    """Gives the samples in chunks: onnxruntime's CalibrationDataReader, as far as it is read."""

    def __init__(self, inputs: Sequence[Tensor], names: Sequence[str]) -> None:
        parts = zip(*(torch.split(part, _CHUNK) for part in inputs), strict=True)
        self._left = iter([{n: part.numpy() for n, part in zip(names, chunk, strict=True)} for chunk in parts])

    def get_next(self) -> dict[str, object] | None:
        """The next chunk; None: there is none."""
        return next(self._left, None)


@contextmanager
def _prepared(file: Path) -> Iterator[Path]:
    """The same with normalisation folded into convolutions, and with the shapes of what is in between."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    root = logging.getLogger()
    level = root.level
    with tempfile.TemporaryDirectory() as folder:
        ready = Path(folder) / "prepared.onnx"
        try:
            root.setLevel(logging.ERROR)  # the library advises at the root
            quant_pre_process(file, ready, skip_symbolic_shape=True)
            yield ready
        finally:
            root.setLevel(level)


def _keep_metadata(file: Path, target: Path) -> None:
    model = onnx.load(target)
    del model.metadata_props[:]
    model.metadata_props.extend(onnx.load(file).metadata_props)
    onnx.save(model, target)
