"""ONNX, for onnxruntime and whatever reads it: ``pip install 'kdexp[export]'``."""

import copy
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp.atomic import atomic_path
from kdexp.export import half
from kdexp.export.formats.exported_program import BATCH, exported, refused
from kdexp.onnx_file import checked

SUFFIX = ".onnx"
QUANTIZE = ("none", "fp16", "int8_static", "int8_dynamic", "qat")
"""What it can have of `kdexp.export.settings.TOLERANCES`."""


def write(
    network: nn.Module,
    example: Sequence[Tensor],
    path: Path,
    *,
    names: Sequence[str] = ("input",),
    about: Mapping[str, object] | None = None,
) -> None:
    """Write a network, trained or not, as one ONNX file for any number of samples, whole or not at all.

    Args:
        network: in whatever mode; its eval mode is written, and it stays as it is.
        example: its inputs (n, ...) for a few samples; the shape of one sample stays that of the example.
        path: of the file.
        names: of the inputs in the file; its output is called ``logits``, the samples of each are the axis ``batch``.
        about: plain values for the file's ``metadata_props``, each as JSON.

    Raises:
        ValueError: onnx is not installed, or the network does things that ONNX cannot say; one line.
    """
    try:
        with _quiet():
            program = torch.onnx.export(
                exported(copy.deepcopy(network).eval(), example),
                dynamo=True,
                input_names=list(names),
                output_names=["logits"],
                dynamic_shapes=[{0: BATCH}] * len(example),
                verbose=False,
            )
    except ImportError as error:
        raise ValueError("format=onnx needs what is not installed: pip install 'kdexp[export]'") from error
    except torch.onnx.OnnxExporterError as error:
        raise refused(network, "onnx", error.__cause__ or error) from error
    assert program is not None
    program.model.metadata_props.update({key: json.dumps(value) for key, value in (about or {}).items()})
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # where it stands in the network's code
    with atomic_path(path) as temporary:
        program.save(temporary, external_data=False)


def quantized(
    how: str, file: Path, target: Path, calibration: Callable[[], Iterable[Sequence[Tensor]]], names: Sequence[str]
) -> None:
    """Write a file of `write`'s again, in 8 or 16 bits; other formats quantise the network before they write it.

    Args:
        how: fp16, int8_static or int8_dynamic.
        file: with floats.
        target: written.
        calibration: gives inputs (n, ...), batch by batch; where activations lie is found on these.
        names: of the inputs.
    """
    if how == "fp16":
        half.onnx_in_half(file, target)
        return
    from kdexp.export import onnx_int8  # here: needs onnxruntime

    if how == "int8_dynamic":
        onnx_int8.dynamic(file, target)
    else:
        inputs = [torch.cat(parts) for parts in zip(*calibration(), strict=True)]
        onnx_int8.static(file, target, inputs, names)


def metadata(path: Path) -> dict[str, object]:
    """What `write` was told about a file."""
    import onnx

    return {entry.key: json.loads(entry.value) for entry in onnx.load(path).metadata_props}


def load(path: Path, *, threads: int = 1) -> Callable[..., Tensor]:
    """A file as a network: the inputs of `write` to logits (N, C, ...) float32 on the CPU.

    Args:
        path: of the file.
        threads: that it may use.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `kdexp.onnx_file.checked`; or onnxruntime cannot run it.
    """
    checked(path, "path")
    try:
        import onnxruntime
    except ImportError as error:
        raise ValueError("format=onnx needs what is not installed: pip install 'kdexp[export]'") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a type for each reason
        raise ValueError(f"path must be a file that onnxruntime runs, got {path}: {error!s:.200}") from error
    names = [value.name for value in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        given = {name: part.cpu().numpy() for name, part in zip(names, inputs, strict=True)}
        (logits,) = session.run(None, given)
        return torch.from_numpy(logits)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter and its libraries say much of themselves."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
