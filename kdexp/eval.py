"""``kdexp-eval``: measure a finished run again from its exported weights, and hold it against results.json."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

from kdexp import launch, results, schemes
from kdexp.config import HYDRA_VERSION_BASE, one_line

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
    if OmegaConf.is_missing(config, "run"):
        raise ValueError("run must be the folder of a finished run, got nothing")
    if config.accelerator not in ("auto", "cpu", "gpu"):
        raise ValueError(f"accelerator must be auto, cpu or gpu, got {config.accelerator}")
    folder = Path(config.run)
    saved = results.read(folder, "run")
    if saved["status"] != "completed":
        raise ValueError(f"run must be completed, got {folder} with status {saved['status']}")
    changed = {name: config[name] for name in ("data_dir", "store_dir") if config[name] is not None}
    *_, (_, last) = schemes.steps(saved["config"] | changed | {"output_dir": str(folder)})
    experiment = OmegaConf.create(last)
    if "data_dir" in changed and "data_dir" in experiment.dataset.source:
        experiment.dataset.source.data_dir = config.data_dir

    from kdexp import assemble  # here: --help must not wait for torch
    from kdexp.metrics import evaluate
    from kdexp.teacher import load_weights

    device = assemble.device(config.accelerator)
    data = assemble.Data(experiment)
    student = assemble.student(experiment)
    load_weights(student, folder / "student.safetensors", "run")
    frozen = assemble.teacher(experiment, data, may_train=False)
    if frozen is not None:
        frozen.to(device)
    return evaluate(
        student.to(device),
        data.student.eval_batches("test", device),
        assemble.metrics(experiment, data.student, "test", fidelity=frozen is not None).to(device),
        teacher=frozen,
    )


def show(folder: Path, found: dict[str, float]) -> bool:
    """Print the metrics beside those in results.json; whether they are equal."""
    stored = results.read(folder, "run")["metrics"]["test"]["best"]
    for name, value in found.items():
        print(f"test/{name:<14} {value:.6f}   results.json {stored[name]:.6f}")
    worst = max(abs(value - stored[name]) for name, value in found.items())
    print(f"largest difference {worst:.1e}: {'equal' if worst <= TOLERANCE else 'NOT equal'} within {TOLERANCE:.0e}")
    return bool(worst <= TOLERANCE)


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="eval")
def _eval(config: DictConfig) -> None:
    try:
        found = run(config)
    except (ValueError, OSError) as error:
        launch.leave(launch.WRONG_INPUT, one_line(error))
    if not show(Path(config.run), found):
        sys.exit(launch.FAILED)


def main() -> None:
    """The command."""
    launch.program(_eval)


if __name__ == "__main__":
    main()
