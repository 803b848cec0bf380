"""A teacher in an ONNX file, whatever framework wrote it: ``pip install 'kdexp[export]'``."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kdexp.atomic import sha256
from kdexp.contracts import Kind
from kdexp.onnx_file import checked
from kdexp.teacher.probabilities import check_holds, kind_of, logits_of, wrong_rows

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, NodeArg

_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
_LAYOUTS = ("auto", "nchw", "nhwc")


class OnnxNetwork(nn.Module):
    """A graph that onnxruntime runs on the CPU, frozen by nature: no gradient goes through it.

    It has no parameters, and a buffer that is a digest of its file and of how it is read, so that it is known by what
    it says. What else the graph gives than the logits can be read as a feature: the output ``block/relu:0`` at the path
    ``outputs.block/relu:0``, a ``.`` in a name being a ``_`` there.

    Args:
        num_classes: outputs of a sample.
        input_shape: of one sample, (C, H, W) of images whatever the graph's layout.
        file: the graph; weights beside it (external data) in its folder.
        kind: what a row of outputs means.
        holds: ``logits`` or ``probabilities``, see `kdexp.teacher.probabilities`.
        layout: of images: ``nchw``, ``nhwc`` as Keras has them, or ``auto``: what the shapes in the graph say.
        output: name of the output with the logits; None: the first.

    Raises:
        FileNotFoundError: no such file.
        ValueError: it is none that may be run (`kdexp.onnx_file.checked`), or does not take such inputs.
    """

    content: Tensor

    def __init__(
        self,
        num_classes: int,
        input_shape: Sequence[int],
        file: str,
        kind: Kind = "multiclass",
        holds: str = "logits",
        layout: str = "auto",
        output: str | None = None,
    ) -> None:
        super().__init__()
        check_holds(holds)
        if layout not in _LAYOUTS:
            raise ValueError(f"layout must be {', '.join(_LAYOUTS)}, got {layout}")
        self._file = checked(Path(file), "file")
        self._classes, self._kind, self._holds = num_classes, kind_of(kind, num_classes), holds
        self._sessions: dict[int, InferenceSession] = {}
        session = self._session(1)
        given, self._names = session.get_inputs(), [each.name for each in session.get_outputs()]
        if len(given) != 1 or given[0].type not in _DTYPES:
            found = ", ".join(f"{each.name} {each.type}" for each in given)
            raise ValueError(f"file must be a graph with one input of floats, got {found} in {file}")
        self._input, self._dtype = given[0].name, _DTYPES[given[0].type]
        self._is_nhwc = _is_nhwc(given[0], list(input_shape), layout)
        first = given[0].shape[0] if given[0].shape else None
        self._batch = first if isinstance(first, int) and first > 0 else None
        if output is not None and output not in self._names:
            raise ValueError(f"output must be one of {', '.join(self._names)}, got {output}")
        self._output = output or self._names[0]
        self._paths = {name: name.replace(".", "_") for name in self._names if name != self._output}
        self.outputs = nn.ModuleDict({path: nn.Identity() for path in self._paths.values()})
        said = [*map(sha256, [self._file, *_external(self._file)]), holds, str(self._is_nhwc), self._output]
        digest = hashlib.sha256(" ".join(said).encode()).digest()
        self.register_buffer("content", torch.tensor(list(digest), dtype=torch.uint8))

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_sessions": {}}  # of onnxruntime's, which cannot be copied

    def _session(self, threads: int) -> "InferenceSession":
        if threads not in self._sessions:
            try:
                import onnxruntime
            except ImportError as error:
                raise ValueError("file needs what is not installed: pip install 'kdexp[export]'") from error
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = 4
            try:
                new = onnxruntime.InferenceSession(self._file, options, providers=["CPUExecutionProvider"])
            except Exception as error:  # it has many ways of refusing
                raise ValueError(
                    f"file must be a graph that onnxruntime runs, got {self._file}: {_line(error)}"
                ) from error
            self._sessions[threads] = new
        return self._sessions[threads]

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, inputs: Tensor) -> Tensor:
        """(N, ...) float inputs to (N, C, ...) logits, on the inputs' device.

        Raises:
            ValueError: a gradient is wanted, or the graph does not give what it should.
        """
        if inputs.requires_grad and torch.is_grad_enabled():
            raise ValueError("teacher must be a network of PyTorch where a gradient goes through it, got an ONNX file")
        if inputs.is_meta:
            return inputs.new_empty(len(inputs), self._classes)
        found = self._run(inputs)
        for name, path in self._paths.items():
            self.outputs[path](found[name])
        rows = found[self._output]
        if self._is_nhwc and rows.dim() == 4:
            rows = rows.movedim(3, 1)
        if rows.dim() == 1:
            rows = rows.unsqueeze(1)
        if not rows.isfinite().all():
            raise ValueError(f"the outputs of {self._file} must be finite, got NaN or Inf")
        if self._holds == "logits":
            return rows
        wrong, rule = wrong_rows(rows, self._kind)
        if wrong.any():
            raise ValueError(f"the outputs of {self._file} {rule} with holds=probabilities, got others")
        return logits_of(rows, self._kind)

    def _run(self, inputs: Tensor) -> dict[str, Tensor]:
        """Every output by its name, (N, ...) float32."""
        if self._is_nhwc:
            inputs = inputs.movedim(1, -1)
        threads = 1 if inputs.device.type == "cpu" else torch.get_num_threads()  # see `kdexp.teacher.teacher.BLOCK`
        session, size = self._session(threads), self._batch or len(inputs)
        parts = []
        for part in torch.split(inputs.detach().cpu(), size):
            filled = F.pad(part, (0, 0) * (part.dim() - 1) + (0, size - len(part)))
            content = np.ascontiguousarray(filled.numpy(), self._dtype)
            try:
                outputs = session.run(self._names, {self._input: content})
            except Exception as error:  # likewise
                raise ValueError(f"{self._file} must take inputs {list(filled.shape)}, got: {_line(error)}") from error
            parts.append([np.asarray(each, np.float32)[: len(part)] for each in outputs])
        joined = (torch.from_numpy(np.concatenate(each)).to(inputs.device) for each in zip(*parts, strict=True))
        return dict(zip(self._names, joined, strict=True))


def _is_nhwc(given: "NodeArg", input_shape: list[int], layout: str) -> bool:
    """Whether a graph takes images with their channels last."""
    if len(input_shape) != 3 or layout == "nchw":
        return False
    if layout == "nhwc":
        return True
    sizes = [size if isinstance(size, int) and size > 0 else None for size in given.shape[1:]]
    channels, height, width = input_shape
    fits = {
        name: len(sizes) == 3 and all(size in (None, own) for size, own in zip(sizes, shape, strict=True))
        for name, shape in (("nchw", input_shape), ("nhwc", [height, width, channels]))
    }
    if not any(fits.values()):
        return False  # the run says what it takes
    if all(fits.values()) and sizes != input_shape:
        raise ValueError(f"layout must be nchw or nhwc where the graph does not say, got auto for {given.shape}")
    return not fits["nchw"]


def _external(file: Path) -> list[Path]:
    """The files with a graph's weights beside its own; `checked` has seen that they lie in its folder."""
    import onnx

    model = onnx.load(file, load_external_data=False)
    places = {
        entry.value for tensor in model.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    return [file.parent / place for place in sorted(places)]


def _line(error: Exception) -> str:
    return re.sub(r"\s+", " ", str(error)).strip()[:200] or type(error).__name__
