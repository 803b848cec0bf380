"""``kdexp-train``: distill a student, or train it alone, as the configuration says."""

import logging
import os
import time
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from kdexp import launch, results
from kdexp.config import HYDRA_VERSION_BASE, check, control_fingerprint, is_control, plain, run_fingerprint

log = logging.getLogger(__name__)


def run(config: DictConfig) -> dict[str, Any]:
    """Run one experiment: the whole of it, from the data to results.json.

    Args:
        config: as `kdexp.config.compose` or Hydra makes it. Everything is written to ``config.output_dir``.

    Returns:
        The content of results.json; an empty dict on ranks other than 0.

    Raises:
        ValueError: a setting breaks a rule; nothing has been trained yet.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: a part of the loss was no longer finite; the last good checkpoint is kept.
    """
    earlier: dict[str, Any] = {}
    if config.resume:
        resumed = str(Path(config.resume).absolute())
        earlier = results.read(Path(resumed), "resume")
        if earlier["status"] == "completed":
            log.info("this run is complete already: %s", resumed)
            return earlier
        config = OmegaConf.create(earlier["config"] | {"resume": resumed, "output_dir": resumed})
    check(config)
    folder = Path(config.output_dir)
    values = plain(config)
    facts = {
        "choices": values["choices"],
        "overrides": earlier.get("overrides", _overrides()),
        "alpha": config.alpha,
        "temperature": config.temperature,
        "seed": config.seed,
        "fingerprint": run_fingerprint(values),
        "control_fingerprint": control_fingerprint(values),
        "is_control": is_control(config),
        "wandb_id": earlier.get("wandb_id", os.urandom(4).hex()),
        "config": values,
    }
    # Imported here: --help and shell completion must not wait for torch.
    from kdexp.experiment import distill
    from kdexp.report.table import show_run

    if launch.rank() != 0:
        distill(config, folder, dict(facts))
        return {}
    started = time.perf_counter()
    with results.recording(folder, facts) as record:
        distill(config, folder, record)
        record["cost"]["seconds"]["total"] = time.perf_counter() - started
    if config.sweep_dir is None or config.resume:
        show_run(folder)
    return record


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
def _train(config: DictConfig) -> float | None:
    return launch.job(config, run)


def main() -> None:
    """The command."""
    launch.program(_train)


if __name__ == "__main__":
    main()
