"""What the networks of a sweep take before any of them is trained: bytes and milliseconds of their ONNX files."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from kdexp.config.require import require
from kdexp.experiment import networks
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.members import new_task
from kdexp.export.formats import onnx
from kdexp.export.graph import graph_of
from kdexp.export.latency import Latency, latency, processor
from kdexp.export.size import size_of
from kdexp.report import budget
from kdexp.report.budget import Taken

Timer = Callable[..., list[Latency]]


@dataclass(frozen=True)
class Unmeasured:
    """A network that is to be measured.

    Attributes:
        name: see `kdexp.report.budget.Taken.name`; of a teacher its option.
        is_teacher: whether it is the run's teacher, else its student.
        config: of a run.
    """

    name: str
    is_teacher: bool
    config: DictConfig


def measure(folder: Path, network: Unmeasured, timer: Timer = latency) -> None:
    """Measure a network and add it to a sweep's budget.json; nothing is downloaded for it, and nothing trained.

    A teacher that is no one network, or none that can be an ONNX file, is left out.

    Args:
        folder: the sweep's.
        network: see there.
        timer: see `kdexp.export.latency.latency`.

    Raises:
        ValueError: a student cannot be an ONNX file, or it is not the student that would be trained: one line.
    """
    experiment, known = Experiment(network.config), budget.read(folder)
    if network.is_teacher:
        try:
            setting, member = experiment.one_teacher
            config = experiment.config
            built = networks.build_network(member, setting, config.dataset, config.task, pretrained=False)
            taken = _taken(experiment, built, network.name, timer)
        except ValueError:
            return
        known = replace(known, teachers={**known.teachers, network.name: taken})
    else:
        for loss in experiment.config.feature_loss.values():
            rule = "must leave the student's network as it is with +sweep=budget"
            require(networks.deployed(loss) is None, "feature_loss", rule, loss["_target_"])
        taken = _taken(experiment, experiment.new_student(), network.name, timer)
        key = budget.key_of(experiment.values["student"], taken.threads)
        known = replace(known, students={**known.students, key: taken})
    budget.write(folder, known)


def _taken(experiment: Experiment, network: nn.Module, name: str, timer: Timer) -> Taken:
    config, threads = experiment.config, experiment.config.budget.threads
    networks.prepare(network, lambda: experiment.data.student.splits)
    graph = graph_of(network)
    example = graph.feed(_inputs(experiment))
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / f"student{onnx.SUFFIX}"
        try:
            onnx.write(graph.network, example, path, names=graph.names)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        size = size_of(network, config.dataset.input_shape, path)
        (one,) = timer(onnx.load(path, threads=threads), example, batches=(1,))
    return Taken(
        name,
        **asdict(size),
        latency_ms=one.median_ms,
        p95_ms=one.p95_ms,
        calls=one.calls,
        threads=threads,
        processor=processor(),
    )


def _inputs(experiment: Experiment) -> Tensor:
    """A few inputs as networks get them: noise, but of texts the first of val."""
    config = experiment.config
    if "texts" in new_task(config.task, config.dataset).supports:
        data = experiment.data.student
        return next(iter(data.eval_batches("val", "cpu", positions=torch.arange(8)))).inputs
    shape: Sequence[int] = config.dataset.input_shape
    return torch.randn(8, *shape, generator=torch.Generator().manual_seed(0))
