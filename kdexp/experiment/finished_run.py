"""A finished run, read and evaluated again."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from kdexp import results
from kdexp.config.compose import one_line, plain
from kdexp.config.foreign import check_folder, stored
from kdexp.config.places import moved
from kdexp.pace import IMPORTING, said_meanwhile
from kdexp.robustness import configured
from kdexp.schemes.base import steps

if TYPE_CHECKING:
    import torch

    from kdexp.experiment.experiment import Experiment
    from kdexp.experiment.robustness_evaluator import Subject
    from kdexp.report.run_group import RunGroup

log = logging.getLogger(__name__)

# Metrics are recomputed in the same precision; another device or another number of threads sums in another order.
TOLERANCE = 1e-5


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
    if config.run is None:
        raise ValueError("run must be the folder of a finished run, got nothing")
    folder = Path(config.run)
    saved = _completed(folder, "run")
    values = _values(config, folder, saved)

    with said_meanwhile(IMPORTING):
        from kdexp.experiment.data import new_metrics
        from kdexp.experiment.experiment import Experiment
        from kdexp.experiment.networks import device_for  # here: --help must not wait for torch
        from kdexp.metrics.evaluate import evaluate

    experiment = Experiment(values, may_train_teacher=False)
    device = device_for(config.accelerator)
    with _built_from(folder):
        _warn_of_other_data(experiment, saved)
        student = experiment.trained_student(folder / results.WEIGHTS, "run")
        frozen = experiment.teacher
    if frozen is not None:
        frozen.to(device)
    module = experiment.data.student
    return evaluate(
        student.to(device),
        module.eval_batches("test", device),
        new_metrics(experiment.config.dataset, module, "test", fidelity=frozen is not None).to(device),
        teacher=frozen,
    )


def robustness(config: DictConfig) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Evaluate the robustness of teacher, control and student of a run, or of each run of a sweep.

    Args:
        config: conf/eval.yaml, with robustness.

    Yields:
        Each run's folder and the content of its robustness.json, which has been written; last the sweep's.

    Raises:
        ValueError: a setting that makes no sense; no completed run; no control.
        FileNotFoundError: weights or data are gone.
    """
    if (config.run is None) == (config.sweep_dir is None):
        raise ValueError(f"one of run and sweep must be given, got run={config.run} sweep={config.sweep_dir}")
    if config.control not in ("auto", "find", "none"):
        raise ValueError(f"control must be auto, find or none, got {config.control}")
    configured.check(plain(config.robustness))
    if config.run is not None:
        folder = Path(config.run)
        yield folder, _robustness_of(config, folder, _completed(folder, "run"))
        return
    reports: dict[Path, dict[str, Any]] = {}
    settings = _settings(Path(config.sweep_dir))
    for run in (run for setting in settings for run in setting.runs):
        log.info("%s", run.folder)
        reports[run.folder] = _robustness_of(config, run.folder, run.results)
        yield run.folder, reports[run.folder]

    from kdexp.report.robustness import over_seeds
    from kdexp.report.robustness_json import write_together

    together = over_seeds(settings, reports)
    write_together(together, Path(config.sweep_dir))
    yield Path(config.sweep_dir), together


def _settings(sweep: Path) -> Sequence["RunGroup"]:
    """The completed runs of a sweep, seeds of one setting together; a control is measured with those it is for."""
    from kdexp.report.comparison import Comparison
    from kdexp.report.runs import find

    found = find([sweep])[0] if sweep.is_dir() else []
    # A search measures its chosen point on test, and leaves the others alone.
    comparison = Comparison([run for run in found if run.metric("acc") is not None])
    if not comparison.groups:
        raise ValueError(f"sweep must be a folder with completed runs in it, got {sweep}")
    return comparison.distilled or comparison.controls


def _robustness_of(config: DictConfig, folder: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    values = _values(config, folder, saved) | {"robustness": config.robustness}

    with said_meanwhile(IMPORTING):
        from kdexp.experiment.experiment import Experiment
        from kdexp.experiment.networks import device_for  # here: --help must not wait for torch
        from kdexp.experiment.robustness_evaluator import RobustnessEvaluator
        from kdexp.experiment.robustness_report import run_subject, subjects
        from kdexp.experiment.run_tracking import track_robustness

    experiment = Experiment(values, may_train_teacher=False)
    device = device_for(config.accelerator)
    with _built_from(folder):
        _warn_of_other_data(experiment, saved)
        evaluator = RobustnessEvaluator(experiment, device)
        own = run_subject(experiment, folder, device)
    is_control, control = saved["is_control"], None
    if not is_control and config.control != "none":
        control = _control(config, folder, saved, experiment, device)
    with _built_from(folder):
        compared = subjects(experiment, own, device, is_control=is_control, control=control)
    report = evaluator.report(compared, folder)
    track_robustness(experiment.config, folder, saved, report)
    return report


@contextmanager
def _built_from(folder: Path) -> Iterator[None]:
    """Meanwhile objects are made of the settings in a results.json, which may lack anything or ask for any size.

    Raises:
        ValueError: they cannot be made.
    """
    try:
        yield
    except (ValueError, OSError):
        raise
    except Exception as error:  # whatever a constructor makes of settings that are not its own
        reason = f"{type(error).__name__}: {one_line(error)}"
        raise ValueError(f"run must have settings that can be built, got {folder}: {reason}") from error


def _warn_of_other_data(experiment: "Experiment", saved: Mapping[str, Any]) -> None:
    """Other data than those of the run are measured all the same, and not in silence."""
    if results.has_other_data(saved, experiment.data.content):
        log.warning("warning: the data are not those of the run: they have changed, or others lie in data_dir")


def _control(
    config: DictConfig, folder: Path, saved: Mapping[str, Any], experiment: "Experiment", device: "torch.device"
) -> "Subject":
    from kdexp.experiment.experiment import Experiment
    from kdexp.experiment.robustness_report import run_subject
    from kdexp.experiment.single_run import train_control
    from kdexp.report.runs import control_folder

    # One that control=auto trained lies in the folder of its run, and serves the sweep's other runs of that seed.
    places = [folder.parent, folder, *(sorted(folder.parent.iterdir()) if config.sweep_dir else [])]
    found = next((there for place in places if (there := control_folder(saved, place)) is not None), None)
    if found is None:
        if config.control == "find":
            raise ValueError(
                f"control must be found beside the run, got none in {folder.parent}: control=auto trains it, "
                "control=none does without"
            )
        found = folder / "control"
        log.info(
            "control (baseline: the same student without a teacher): none beside the run, training it in %s, %d epochs",
            found,
            experiment.config.trainer.max_epochs,
        )
        train_control(experiment, found)
    own = Experiment(_values(config, found, _completed(found, "control")))
    return run_subject(own, found, device)


def _completed(folder: Path, setting: str) -> dict[str, Any]:
    saved = results.read(folder, setting)
    if saved["status"] != "completed":
        raise ValueError(f"{setting} must be completed, got {folder} with status {saved['status']}")
    if "test" not in saved["metrics"]:
        raise ValueError(f"{setting} must be measured on test, got {folder}, a trial that its search did not choose")
    return saved


def _values(config: DictConfig, folder: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a run, which may have been moved, on this machine."""
    if config.accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu, got {config.accelerator}")
    check_folder(folder, "run")
    own = moved(stored(saved["config"]), data_dir=config.data_dir, store_dir=config.store_dir)
    with _built_from(folder):
        *_, (_, last) = steps(own | {"output_dir": str(folder)})
    return last
