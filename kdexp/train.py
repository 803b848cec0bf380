"""``kdexp-train``: distill a student, or train it alone, as the configuration says."""

import logging
import sys
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from kdexp import child, launch, results, schemes
from kdexp.atomic import trained_by_one
from kdexp.config import HYDRA_VERSION_BASE, check, is_one_process, plain, run_key

if TYPE_CHECKING:
    from kdexp.experiment import Parts
    from kdexp.search import Judge

log = logging.getLogger(__name__)


def run(config: DictConfig, parts: "Parts | None" = None) -> dict[str, Any]:
    """Run one experiment: the whole of it, from the data to results.json.

    Args:
        config: as `kdexp.config.compose` or Hydra makes it. Everything is written to ``config.output_dir``.
        parts: what is shared with other runs in this process; None: nothing.

    Returns:
        The content of results.json; an empty dict on ranks other than 0.

    Raises:
        ValueError: a setting breaks a rule; nothing has been trained yet.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: a part of the loss was no longer finite; the last good checkpoint is kept.
    """
    folder = Path(config.resume or config.output_dir).absolute()
    if config.resume:
        results.read(folder, "resume")
    with results.alone(folder) if launch.rank() == 0 else nullcontext():
        return _run(config, folder, parts)


def _run(config: DictConfig, folder: Path, parts: "Parts | None") -> dict[str, Any]:
    earlier = _earlier(config, folder)
    if earlier.get("status") == "completed" and (launch.trial() is not None or "test" in earlier["metrics"]):
        log.info("this run is complete already: %s", folder)
        return earlier
    if config.resume:
        config = OmegaConf.create(earlier["config"] | {"resume": str(folder), "output_dir": str(folder)})
    check(config)
    values = plain(config)
    overrides = earlier.get("overrides", _overrides())
    # Imported here: --help and shell completion must not wait for torch.
    from kdexp.experiment import distill, ensemble
    from kdexp.report.table import show_run

    judge = _judge(values)
    started = time.perf_counter()
    names = []
    with _recording(folder, launch.facts(values, overrides, earlier)) as record:
        for name, step in schemes.steps(values):
            if name:
                names.append(name)
                record["steps"] = names
                _take(step, name, overrides)
            else:
                distill(OmegaConf.create(step), folder, record, parts, judge)
        if launch.rank() == 0:
            if config.scheme.get("ensemble") and names and judge is None:
                record["ensemble"] = ensemble(config, [*(schemes.folder(values, name) for name in names), folder])
            record["cost"]["seconds"]["total"] = time.perf_counter() - started
            if earlier.get("status") == "completed":  # a trial of a search that is chosen: it was trained before
                record["cost"] = earlier["cost"]
    if launch.rank() != 0:
        return {}
    if config.sweep_dir is None or config.resume:
        show_run(folder)
    return record


def _judge(values: dict[str, Any]) -> "Judge | None":
    """What prunes this run, when it is a trial of a search."""
    trial = launch.trial()
    if trial is None:
        return None
    from kdexp.search import Judge

    return Judge(Path(values["sweep_dir"] or "."), trial, values["trainer"]["max_epochs"])


def _earlier(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What the folder has of the same run: of ``resume=``, or of an earlier launch of the sweep."""
    if config.resume:
        return results.read(folder, "resume")
    if config.sweep_dir is None or not (folder / results.FILE).is_file():
        return {}
    found = results.read(folder, "sweep")
    if found.get("key") == run_key(plain(config)):
        return found
    if launch.rank() == 0:
        results.set_aside(folder)
    return {}


def _take(values: dict[str, Any], name: str, overrides: list[str]) -> None:
    """A run that comes before the run itself: found complete in its folder or in the store, else trained and kept.

    A copy in the store serves other runs that need the same: those of a sweep, a source domain's teacher above all.
    """
    from kdexp.experiment import distill

    folder, kept = Path(values["output_dir"]), Path(values["store_dir"]) / "steps" / run_key(values)
    shares = is_one_process(values["trainer"])  # ranks that begin at once might find different things
    if _is_there(folder, kept if shares else None):
        log.info("%s: complete already: %s", name, folder)
    else:
        with trained_by_one(kept.with_suffix(".lock"), name) if shares else nullcontext():
            if not _is_there(folder, kept if shares else None):  # nor did another process train it meanwhile
                log.info("%s: %s", name, folder)
                earlier = results.read(folder, "resume") if (folder / results.FILE).is_file() else {}
                with _recording(folder, launch.facts(values, overrides, earlier)) as record:
                    distill(OmegaConf.create(values), folder, record)
                if shares:
                    results.copy(folder, kept)
    launch.meet()


def _is_there(folder: Path, kept: Path | None) -> bool:
    """Whether a run is complete in its folder, if need be as a copy of the one that is kept."""
    if not _is_complete(folder) and kept is not None and _is_complete(kept):
        results.copy(kept, folder)
    return _is_complete(folder)


def _is_complete(folder: Path) -> bool:
    try:
        return bool(results.read(folder, "resume")["status"] == "completed")
    except ValueError:  # nothing is there, or it is damaged
        return False


def _recording(folder: Path, facts: dict[str, Any]) -> AbstractContextManager[dict[str, Any]]:
    return results.recording(folder, facts) if launch.rank() == 0 else nullcontext(facts)


def _overrides() -> list[str]:
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else []


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="train")
def _train(config: DictConfig) -> float | None:
    return launch.job(config, run)


def main() -> None:
    """The command."""
    typed = set(sys.argv)
    if typed & {"-m", "--multirun"} and not typed & {"-h", "--help"} and launch.rank() == 0:
        child.warm_up()  # what jobs need is imported while Hydra reads what they are
    plugins = Plugins.instance()
    # After Hydra's own search, which loads the class anew that these are made of. In an editable installation that
    # search does not find it.
    from hydra_plugins.kdexp.launcher import FusedLauncher, Joblib, ParallelLauncher
    from hydra_plugins.kdexp.search import Search
    from hydra_plugins.kdexp.sweeper import Sweeper

    for plugin in (Sweeper, Search, FusedLauncher, ParallelLauncher):
        plugins.register(plugin)
    ConfigStore.instance().store(name="joblib", group="hydra/launcher", node=Joblib)
    launch.program(_train)


if __name__ == "__main__":
    main()
