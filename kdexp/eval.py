"""``kdexp-eval``: measure a finished run again from its exported weights, or evaluate its robustness."""

import logging
import math
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, OmegaConf

from kdexp import launch, results, schemes
from kdexp.config import HYDRA_VERSION_BASE, moved, one_line, plain
from kdexp.foreign import check_folder, stored
from kdexp.pace import IMPORTING, said_meanwhile
from kdexp.robustness import configured

if TYPE_CHECKING:
    import torch

    from kdexp.assemble import Data
    from kdexp.report.run_group import RunGroup
    from kdexp.robustness_evaluator import Subject

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
    experiment = _experiment(config, folder, saved)

    with said_meanwhile(IMPORTING):
        from kdexp import assemble  # here: --help must not wait for torch
        from kdexp.metrics import evaluate

    device = assemble.device(config.accelerator)
    with _built_from(folder):
        data = _data(experiment, saved)
        student = assemble.trained_student(experiment, folder / results.WEIGHTS, "run")
        frozen = assemble.teacher(experiment, data, may_train=False)
    if frozen is not None:
        frozen.to(device)
    return evaluate(
        student.to(device),
        data.student.eval_batches("test", device),
        assemble.metrics(experiment, data.student, "test", fidelity=frozen is not None).to(device),
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
        yield folder, _report(config, folder, _completed(folder, "run"))
        return
    reports: dict[Path, dict[str, Any]] = {}
    settings = _settings(Path(config.sweep_dir))
    for run in (run for setting in settings for run in setting.runs):
        log.info("%s", run.folder)
        reports[run.folder] = _report(config, run.folder, run.results)
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


def _report(config: DictConfig, folder: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    experiment = _experiment(config, folder, saved)
    experiment.robustness = config.robustness

    with said_meanwhile(IMPORTING):
        from kdexp import assemble  # here: --help must not wait for torch
        from kdexp.experiment import track_robustness
        from kdexp.robustness_evaluator import RobustnessEvaluator
        from kdexp.robustness_report import run_subject, subjects

    device = assemble.device(config.accelerator)
    with _built_from(folder):
        data = _data(experiment, saved)
        evaluator = RobustnessEvaluator(experiment, data, device)
        own = run_subject(experiment, folder, device)
    is_control, control = saved["is_control"], None
    if not is_control and config.control != "none":
        control = _control(config, folder, saved, experiment, device)
    with _built_from(folder):
        frozen = assemble.teacher(experiment, data, may_train=False)
    compared = subjects(experiment, own, device, is_control=is_control, control=control, frozen=frozen)
    report = evaluator.report(compared, folder)
    track_robustness(experiment, folder, saved, report)
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


def _data(experiment: DictConfig, saved: Mapping[str, Any]) -> "Data":
    """The data of a run; other ones are measured all the same, and not in silence."""
    from kdexp.assemble import Data

    data = Data(experiment)
    if results.has_other_data(saved, data.content):
        log.warning("warning: the data are not those of the run: they have changed, or others lie in data_dir")
    return data


def _control(
    config: DictConfig, folder: Path, saved: Mapping[str, Any], experiment: DictConfig, device: "torch.device"
) -> "Subject":
    from kdexp.experiment import distill_alone
    from kdexp.report.runs import control_folder
    from kdexp.robustness_report import run_subject

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
            experiment.trainer.max_epochs,
        )
        distill_alone(experiment, found)
    return run_subject(_experiment(config, found, _completed(found, "control")), found, device)


def _completed(folder: Path, setting: str) -> dict[str, Any]:
    saved = results.read(folder, setting)
    if saved["status"] != "completed":
        raise ValueError(f"{setting} must be completed, got {folder} with status {saved['status']}")
    if "test" not in saved["metrics"]:
        raise ValueError(f"{setting} must be measured on test, got {folder}, a trial that its search did not choose")
    return saved


def _experiment(config: DictConfig, folder: Path, saved: Mapping[str, Any]) -> DictConfig:
    """The configuration of a run, which may have been moved, on this machine."""
    if config.accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu, got {config.accelerator}")
    check_folder(folder, "run")
    own = moved(stored(saved["config"]), data_dir=config.data_dir, store_dir=config.store_dir)
    with _built_from(folder):
        *_, (_, last) = schemes.steps(own | {"output_dir": str(folder)})
    return OmegaConf.create(last)


def show(folder: Path, found: dict[str, float]) -> bool:
    """Print the metrics beside those in results.json; whether they are equal."""
    stored = results.read(folder, "run")["metrics"]["test"]["best"]
    # An older kdexp measured less.
    known = {name: (value, stored[name]) for name, value in found.items() if stored.get(name) is not None}
    if not known:
        raise ValueError(f"run must have metrics on test, got none in {folder}")
    for name, (value, before) in known.items():
        print(f"test/{name:<14} {value:.6f}   results.json {before:.6f}")
    worst = max(_difference(value, before) for value, before in known.values())
    print(f"largest difference {worst:.1e}: {'equal' if worst <= TOLERANCE else 'NOT equal'} within {TOLERANCE:.0e}")
    return bool(worst <= TOLERANCE)


def _difference(value: float, before: float) -> float:
    difference = abs(value - before)
    return math.inf if math.isnan(difference) else difference


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="eval")
def _eval(config: DictConfig) -> None:
    try:
        if config.get("robustness"):
            from kdexp.report import robustness_terminal

            for folder, found in robustness(config):
                if "cells" not in found:
                    robustness_terminal.show_sweep(found, folder)
                elif config.run is not None:  # of a sweep what its runs say together comes first, and alone
                    robustness_terminal.show(found, folder)
            return
        is_equal = show(Path(config.run), run(config))
    except (ValueError, OSError) as error:
        launch.leave(launch.WRONG_INPUT, one_line(error))
    if not is_equal:
        sys.exit(launch.FAILED)


def main() -> None:
    """The command."""
    # Hydra takes `sweep=` for its group of that name: conf/sweep, the presets of kdexp-train.
    sys.argv[1:] = [re.sub("^sweep=", "sweep_dir=", argument) for argument in sys.argv[1:]]
    launch.program(_eval)


if __name__ == "__main__":
    main()
