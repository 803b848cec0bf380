"""A student as a file: by its format, and with as many bits as are wanted."""

import importlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor, nn

from kdexp.config.require import require
from kdexp.data.data_module import DataModule
from kdexp.data.stateless_rng import RngStream, order
from kdexp.experiment.experiment import Experiment
from kdexp.export import half, pt2e, qat
from kdexp.export.graph import Graph, Stored, with_preprocessing
from kdexp.export.settings import TOLERANCES, Calibration, Export


def format_of(name: str) -> ModuleType:
    """The file of `kdexp.export.formats` of that name."""
    return importlib.import_module(f"kdexp.export.formats.{name}")


def check(settings: Export) -> None:
    """See that the format can have so many bits.

    Raises:
        ValueError: it cannot.
    """
    possible = [name for name in TOLERANCES if name in format_of(settings.format).QUANTIZE]
    rule = f"must be one of {', '.join(possible)} with format={settings.format}"
    require(settings.quantize in possible, "quantize", rule, settings.quantize)


@dataclass(frozen=True)
class Written:
    """A file, and what it was made of.

    Attributes:
        path: of the file.
        graph: its inputs.
        expected: what its outputs are to be, for the inputs of the file.
        run: the file as a network, for the same.
    """

    path: Path
    graph: Graph
    expected: Callable[..., Tensor]
    run: Callable[..., Tensor]


class Writer:
    """Writes the student of a run.

    Args:
        experiment: of the run.
        graph: of its student, for normalised inputs.
        stored: how its data are stored.
        settings: what is wanted.
        about: goes into the files.
    """

    def __init__(
        self, experiment: Experiment, graph: Graph, stored: Stored, settings: Export, about: Mapping[str, object]
    ) -> None:
        self._experiment, self._graph, self._stored = experiment, graph, stored
        self._settings, self._about = settings, about
        self._format = format_of(settings.format)

    def of_float(self, folder: Path) -> Written:
        """The file with the network's own floats."""
        return self._written(self._whole(self._graph), folder / f"float{self._format.SUFFIX}")

    def quantized(self, floats: Written, folder: Path) -> Written:
        """The file as it is wanted.

        Args:
            floats: the file with floats.
            folder: where it is written.

        Raises:
            ValueError: the network, or its task, cannot be quantised so.
        """
        path = folder / f"student{self._format.SUFFIX}"
        match self._settings.quantize:
            case "none":
                shutil.copyfile(floats.path, path)
                return replace(floats, path=path)
            case "qat":
                network = qat.fine_tuned(self._experiment, self._graph, self._settings.qat)
                return self._written(self._whole(replace(self._graph, network=network)), path)
            case how if hasattr(self._format, "quantized"):
                self._format.quantized(
                    how, floats.path, path, lambda: self._calibration(floats.graph), floats.graph.names
                )
                return replace(floats, path=path, run=self._load(path))
            case how:
                graph = replace(self._graph, network=self._changed(how))
                return replace(self._written(self._whole(graph), path), expected=floats.expected)

    def _changed(self, how: str) -> nn.Module:
        if how == "fp16":
            if "noise" in self._graph.names:
                raise ValueError("quantize must be another than fp16 for a variational autoencoder, but in format=onnx")
            return half.Half(self._graph.network)
        return pt2e.static(self._graph.network, self.example(self._graph), self._calibration(self._graph))

    def _whole(self, graph: Graph) -> Graph:
        return with_preprocessing(graph, self._stored) if self._settings.preprocessing else graph

    def _written(self, graph: Graph, path: Path) -> Written:
        self._format.write(graph.network, self.example(graph), path, names=graph.names, about=self._about)
        return Written(path, graph, graph.network, self._load(path))

    def _load(self, path: Path) -> Callable[..., Tensor]:
        run: Callable[..., Tensor] = self._format.load(path, threads=self._settings.threads)
        return run

    def example(self, graph: Graph) -> tuple[Tensor, ...]:
        """The first test samples, as a file gets them."""
        data = self._experiment.data.student
        first = torch.arange(min(8, len(data.splits.test)))
        return graph.feed(next(iter(data.eval_batches("test", "cpu", positions=first))).inputs)

    def _calibration(self, graph: Graph) -> Iterator[tuple[Tensor, ...]]:
        data = self._experiment.data.student
        chosen = calibration_samples(data, self._settings.calibration)
        return (graph.feed(batch.inputs) for batch in data.eval_batches("train", "cpu", positions=chosen))


def calibration_samples(data: DataModule, settings: Calibration) -> Tensor:
    """Places in the training split, (n,) int64: a function of the seed, and of how many samples the split has."""
    n = len(data.splits.train)
    return order(settings.seed, 0, n, RngStream.CALIBRATION)[: settings.samples].sort().values
