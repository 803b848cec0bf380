"""A finished run's student as a file, measured as it is: ``export.json``."""

import dataclasses
import json
import logging
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp import results
from kdexp.atomic import atomic_path, sha256
from kdexp.experiment.finished_run import FinishedRun
from kdexp.export import hub
from kdexp.export.graph import Graph, Stored, graph_of
from kdexp.export.latency import latency, processor
from kdexp.export.measured import CONFIDENCE_LEVEL, N_RESAMPLES, OnTest, difference, on_test
from kdexp.export.settings import EXPORT, Export
from kdexp.export.size import size_of
from kdexp.export.writing import Writer, Written, check
from kdexp.models.text_tokens import Tokens
from kdexp.torch_threads import torch_threads

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1


class Exporter:
    """Exports the student of a run.

    Args:
        finished: the run.
        student: its network, with its weights.
        settings: what is wanted.

    Attributes:
        student: see above.
        about: what the file says of itself.

    Raises:
        ValueError: the format cannot have so many bits.
    """

    def __init__(self, finished: FinishedRun, student: nn.Module, settings: Export) -> None:
        check(settings)
        self._finished, self.student, self._settings = finished, student, settings
        self._experiment = finished.experiment
        dataset, test = self._experiment.config.dataset, self._experiment.data.student.splits.test
        sample = test.inputs[int(test.index[0])]
        self._shape = list(sample.shape)
        are_bytes = sample.dtype == torch.uint8
        self._stored = Stored(list(dataset.mean), list(dataset.std), list(dataset.input_shape), are_bytes)
        self.about = {
            "kdexp_version": version("kdexp"),
            "fingerprint": finished.results.get("fingerprint"),
            "task": self._experiment.data.task.kind,
            "classes": self._experiment.data.classes,
            "mean": self._stored.mean,
            "std": self._stored.std,
            "input_shape": self._shape,
            "preprocessing": settings.preprocessing,
            "quantize": settings.quantize,
        }

    def export(self, out: Path) -> tuple[dict[str, object], Callable[[Tensor], Tensor]]:
        """Write the file, measure it and write export.json beside it; nothing is left of one that is not the network.

        Args:
            out: the folder.

        Returns:
            The content of export.json; and the file as a network, normalised inputs to logits.

        Raises:
            ValueError: the network cannot be exported so, or the file is not the network: one line.
        """
        graph = graph_of(self.student)
        writer = Writer(self._experiment, graph, self._stored, self._settings, self.about)
        with tempfile.TemporaryDirectory(prefix="kdexp-") as name, torch_threads(self._settings.threads):
            log.info("export: writing %s, quantize=%s", self._settings.format, self._settings.quantize)
            floats = writer.of_float(Path(name))
            written = writer.quantized(floats, Path(name))
            rows = self._rows(graph, floats, written, writer)
            content = self._content(written, rows)
            hub.clear(out)
            with atomic_path(out / written.path.name) as temporary:
                shutil.copyfile(written.path, temporary)
        self._keep_tokenizer(out)
        with atomic_path(out / EXPORT) as temporary:
            temporary.write_text(json.dumps(content, indent=2) + "\n")
        return content, written.graph.on_normalised(written.run)

    def _rows(self, graph: Graph, floats: Written, written: Written, writer: Writer) -> list[dict[str, object]]:
        """The network, the file with floats and, where it is another one, the file that is wanted."""
        how, of_file = self._settings.quantize, self._settings.format
        own = self._on_test(graph.on_normalised(graph.network), None)
        weights = self._finished.folder / results.WEIGHTS
        rows = [self._row("pytorch", "none", weights, own, own, graph.network, writer.example(graph))]
        steps = [(floats, "none", 1e-3 if how != "none" else self._settings.largest_error)]
        steps += [(written, how, self._settings.largest_error)] if how != "none" else []
        for file, bits, tolerance in steps:
            found = self._on_test(file.graph.on_normalised(file.run), file.graph.on_normalised(file.expected))
            found.parity.check(tolerance, f"format={of_file} quantize={bits}")
            row = self._row(of_file, bits, file.path, found, own, file.run, writer.example(file.graph))
            rows.append(row | {"parity": _parity(found, tolerance)})
        return rows

    def _on_test(self, network: Callable[[Tensor], Tensor], expected: Callable[[Tensor], Tensor] | None) -> OnTest:
        with torch.no_grad():
            return on_test(self._experiment.data, network, expected, self._finished.device)

    def _row(
        self,
        of_file: str,
        how: str,
        path: Path,
        found: OnTest,
        own: OnTest,
        run: Callable[..., Tensor],
        example: Sequence[Tensor],
    ) -> dict[str, object]:
        size = size_of(self.student, self._shape, path)
        return {
            "format": of_file,
            "quantize": how,
            **dataclasses.asdict(size),
            "latency": [dataclasses.asdict(one) for one in latency(run, example)],
            "metrics": found.metrics,
            "difference": None if found is own else difference(self._experiment.data.task, found.records, own.records),
        }

    def _content(self, written: Written, rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
        settings = self._settings
        values: dict[str, object] = {
            "schema_version": SCHEMA_VERSION,
            "run": self._finished.folder.resolve().name,
            "format": settings.format,
            "quantize": settings.quantize,
            "file": written.path.name,
            "sha256": sha256(written.path),
            "inputs": written.graph.names,
            "output": "logits",
            **self.about,
            **({"note": self._finished.results["note"]} if "note" in self._finished.results else {}),
            "measure": self._experiment.data.task.measure,
            "test_samples": len(self._experiment.data.student.splits.test),
            "interval": {"n_resamples": N_RESAMPLES, "confidence_level": CONFIDENCE_LEVEL, "of": "paired bootstrap"},
            "processor": processor(),
            "threads": settings.threads,
            "rows": list(rows),
        }
        if settings.quantize == "int8_static":
            values["calibration"] = dataclasses.asdict(settings.calibration)
        if settings.quantize == "qat":
            values["qat"] = dataclasses.asdict(settings.qat)
        return values

    def _keep_tokenizer(self, out: Path) -> None:
        """tokenizer.json, which Hugging Face's tokenizers read, for a file that begins behind it."""
        tokens = getattr(self.student, "tokens", None)
        if isinstance(tokens, Tokens):
            with atomic_path(out / "tokenizer.json") as temporary:
                temporary.write_bytes(tokens.vocabulary.cpu().numpy().tobytes())


def _parity(found: OnTest, tolerance: float) -> dict[str, object]:
    parity = found.parity
    return {"error": parity.error, "tolerance": tolerance, "largest": parity.largest, "samples": parity.samples}
