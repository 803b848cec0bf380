"""A finished run: read from its folder, its parts built again, its test metrics computed again."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from kdexp import results
from kdexp.config.compose import one_line
from kdexp.config.moved_folders import moved
from kdexp.config.untrusted import check_folder, stored
from kdexp.progress_log import importing
from kdexp.schemes.base import runs_in_order

if TYPE_CHECKING:
    import torch
    from torch import nn

    from kdexp.experiment.experiment import Experiment

log = logging.getLogger(__name__)

# Metrics are recomputed in the same precision; another device or another number of threads sums in another order.
TOLERANCE = 1e-5


@dataclass(frozen=True)
class Machine:
    """Where finished runs are evaluated.

    Attributes:
        accelerator: auto, cpu or gpu.
        data_dir: of the data sets; None: where the run says.
        store_dir: of the teachers; None: where the run says.
    """

    accelerator: str
    data_dir: str | None
    store_dir: str | None


class FinishedRun:
    """A completed run, which may have been moved, on this machine. What needs torch is built when it is first wanted.

    Args:
        folder: of the run.
        machine: where it is evaluated.
        setting: the setting that named the folder, for messages.
        changed: keys of the configuration that are others now.

    Raises:
        ValueError: the folder holds no completed run, or settings of which nothing can be built.

    Attributes:
        folder: see above.
        results: what results.json has.
        machine: see above.
    """

    def __init__(self, folder: Path, machine: Machine, *, setting: str = "run", **changed: object) -> None:
        self.folder = folder
        self.results = _completed(folder, setting)
        if machine.accelerator not in ("auto", "cpu", "gpu"):
            raise ValueError(f"accelerator must be auto, cpu or gpu, got {machine.accelerator}")
        self.machine = machine
        check_folder(folder, "run")
        own = moved(stored(self.results["config"]), data_dir=machine.data_dir, store_dir=machine.store_dir)
        with self.building():
            *_, (_, last) = runs_in_order({**own, "output_dir": str(folder)})
        self._values = {**last, **changed}

    @cached_property
    def experiment(self) -> "Experiment":
        """What its configuration becomes. A teacher that is not at hand is not trained for it."""
        with importing():
            from kdexp.experiment.experiment import Experiment  # here: --help must not wait for torch

        return Experiment(self._values, may_train_teacher=False)

    @cached_property
    def device(self) -> "torch.device":
        """Where it is evaluated."""
        from kdexp.experiment.networks import device_for  # here: likewise

        return device_for(self.machine.accelerator)

    @contextmanager
    def building(self) -> Iterator[None]:
        """Meanwhile objects are made of the settings in its results.json, which may lack anything or want any size.

        Raises:
            ValueError: they cannot be made.
        """
        try:
            yield
        except (ValueError, OSError):
            raise
        except Exception as error:  # whatever a constructor makes of settings that are not its own
            reason = f"{type(error).__name__}: {one_line(error)}"
            raise ValueError(f"run must have settings that can be built, got {self.folder}: {reason}") from error

    def student(self) -> "nn.Module":
        """Its student, of the best epoch.

        Raises:
            ValueError: the weights do not fit.
            FileNotFoundError: the weights are gone.
        """
        from kdexp.experiment.trained_student import trained_student  # here: likewise

        return trained_student(self.experiment, self.folder / results.WEIGHTS, "run")

    def warn_of_other_data(self) -> None:
        """Other data than those of the run are measured all the same, and not in silence."""
        if results.has_other_data(self.results, self.experiment.data.content):
            log.warning("warning: the data are not those of the run: they have changed, or others lie in data_dir")


def run(config: DictConfig) -> dict[str, float]:
    """Recompute the test metrics of the best epoch of a run.

    Args:
        config: conf/eval.yaml.

    Returns:
        The metrics; agreement with the teacher among them when its weights are at hand.

    Raises:
        ValueError: the folder holds no completed run, or its weights do not fit.
        FileNotFoundError: the weights or the data are gone.
    """
    if config.sweep_dir is not None:
        raise ValueError(f"robustness must be given with sweep, got sweep={config.sweep_dir} alone")
    if config.run in (None, ""):
        raise ValueError("run must be the folder of a finished run, got nothing")
    finished = FinishedRun(Path(str(config.run)), Machine(config.accelerator, config.data_dir, config.store_dir))
    experiment, device = finished.experiment, finished.device

    from kdexp.experiment.new_metrics import new_metrics
    from kdexp.metrics.evaluate import evaluate  # here: --help must not wait for torch

    with finished.building():
        finished.warn_of_other_data()
        student = finished.student()
        teacher = experiment.teacher
    data = experiment.data
    batches = data.student.eval_batches("test", device)
    knows = teacher is not None and teacher.knows("test", data.student.splits.test)
    return evaluate(
        student.to(device),
        batches,
        new_metrics(data, "test", fidelity=knows).to(device),
        teacher=teacher.to(device).replaying("test", batches) if teacher is not None and knows else None,
    )


def _completed(folder: Path, setting: str) -> results.Record:
    saved = results.read(folder, setting)
    if saved["status"] != "completed":
        raise ValueError(f"{setting} must be completed, got {folder} with status {saved['status']}")
    if "test" not in saved["metrics"]:
        raise ValueError(f"{setting} must be measured on test, got {folder}, a trial that its search did not choose")
    return saved
