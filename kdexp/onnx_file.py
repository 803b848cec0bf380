"""ONNX files that may be anybody's, checked before anything runs them: ``pip install 'kdexp[export]'``."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.config.untrusted import inside, printable

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto, TensorProto

LARGEST = 2**31
"""Bytes of a file, which is as much as ONNX can have in one, and of any tensor in it whose shape is known."""

# What onnxruntime has by itself; operators of other domains come in a library, which is code.
_DOMAINS = {"", "ai.onnx", "ai.onnx.ml", "com.microsoft"}


def checked(path: Path, setting: str) -> Path:
    """The same path, of an ONNX file that can be run without harm: nothing outside its folder is read for it.

    Args:
        path: the file; weights beside it (external data) are checked, too.
        setting: the setting that named it, for messages.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a whole ONNX model; its weights lie outside its folder, are not there, or fewer than it
            says; a tensor would not fit in `LARGEST` bytes; it needs operators that are not onnxruntime's own; or onnx
            is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise ValueError(f"{setting} needs what is not installed: pip install 'kdexp[export]'") from error
    if not path.is_file():  # a pipe would be waited for
        raise FileNotFoundError(f"{setting} must be an existing file, got {path}")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"{setting} must have at most {LARGEST // 2**30} GB, got {path}")
    try:
        model = onnx.load(path, load_external_data=False)
        for tensor in _tensors(model):
            _check_tensor(tensor, path.parent)
        _check_operators(model)
        onnx.checker.check_model(str(path))
        _check_shapes(onnx.shape_inference.infer_shapes(model, data_prop=True))
    except Exception as error:  # whatever a file that is none makes of a parser
        reason = printable(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        raise ValueError(f"{setting} must be a whole ONNX model, got {path}: {reason:.200}") from error
    return path


def _graphs(graph: "GraphProto") -> Iterator["GraphProto"]:
    yield graph
    for inner in _inner(graph.node):
        yield from _graphs(inner)


def _inner(nodes: "list[NodeProto]") -> Iterator["GraphProto"]:
    for node in nodes:
        for attribute in node.attribute:
            yield from (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs


def _nodes(model: "ModelProto") -> Iterator["NodeProto"]:
    for graph in _graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node
        for inner in _inner(function.node):
            for graph in _graphs(inner):
                yield from graph.node


def _tensors(model: "ModelProto") -> Iterator["TensorProto"]:
    of_functions = [inner for function in model.functions for inner in _inner(function.node)]
    for outer in (model.graph, *of_functions):
        for graph in _graphs(outer):
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors) if attribute.HasField("t") else attribute.tensors


def _check_tensor(tensor: "TensorProto", folder: Path) -> None:
    """See that a tensor is of a size that can be, and that its values are in the file or in the folder."""
    size = math.prod(tensor.dims) * _bytes(tensor.data_type)
    if any(length < 0 for length in tensor.dims) or size > LARGEST:
        raise ValueError(f"the tensor {tensor.name!r} has the shape {list(tensor.dims)}")
    if not tensor.external_data:
        return
    about = {entry.key: entry.value for entry in tensor.external_data}
    file = inside(folder, about.get("location", ""))
    if file.is_symlink() or not file.is_file():
        raise ValueError(f"the weights of {tensor.name!r} are not in {file}")
    start, length = int(about.get("offset", 0)), int(about.get("length", size))
    if start < 0 or length < 0 or start + length > file.stat().st_size:
        raise ValueError(f"the weights of {tensor.name!r} are not whole in {file}")


def _bytes(data_type: int) -> int:
    """Of a value, at most; 0 of one that says nothing."""
    from onnx import helper

    return int(helper.tensor_dtype_to_np_dtype(data_type).itemsize) if data_type else 0


def _check_operators(model: "ModelProto") -> None:
    own = {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.domain not in _DOMAINS | own:
            raise ValueError(f"its operator {node.op_type!r} is of {node.domain!r}, which is not onnxruntime's")


def _check_shapes(model: "ModelProto") -> None:
    """A few bytes can ask for a tensor of any size: what is known of shapes before anything runs is looked at."""
    for graph in _graphs(model.graph):
        for value in (*graph.input, *graph.value_info, *graph.output):
            kind = value.type.tensor_type
            size = math.prod(max(1, length.dim_value) for length in kind.shape.dim) * _bytes(kind.elem_type)
            if size > LARGEST:
                raise ValueError(f"{value.name!r} would have {size / 2**30:.0f} GB")
