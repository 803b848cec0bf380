"""``kdexp-train``: distill a student, or train it alone, as the configuration says."""

import logging
import os
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

from kdexp import child, launch, quick, results, schemes
from kdexp.atomic import trained_by_one
from kdexp.config import (
    DISTILLATION_ONLY,
    HYDRA_VERSION_BASE,
    RUN_ONLY,
    as_typed,
    check,
    code_version,
    fingerprint,
    is_control,
    is_one_process,
    moved,
    plain,
    run_fingerprint,
    run_key,
)
from kdexp.foreign import check_folder, stored
from kdexp.pace import IMPORTING, said_meanwhile
from kdexp.report.runs import leaves

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
        ValueError: a setting breaks a rule, or the folder holds another run; nothing has been trained yet.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: a part of the loss was no longer finite; the last good checkpoint is kept.
    """
    folder = Path(config.resume or config.output_dir).absolute()
    if config.resume:
        results.read(folder, "resume")
        check_folder(folder, "resume")
    with results.alone(folder) if launch.rank() == 0 else nullcontext():
        return _run(config, folder, parts)


def _run(config: DictConfig, folder: Path, parts: "Parts | None") -> dict[str, Any]:
    earlier = _earlier(config, folder)
    if earlier.get("status") == "completed" and (launch.trial() is not None or "test" in earlier["metrics"]):
        log.info("this run is complete already: %s", folder)
        if config.robustness and not config.resume and not (folder / "robustness.json").is_file():
            log.warning(
                "warning: it has no robustness report: kdexp-eval %s robustness=... makes one",
                results.argument("run", folder),
            )
        return earlier
    if earlier and launch.rank() == 0:
        log.info("continuing this run, which ended as %s: %s", earlier["status"], folder)
    if config.resume:
        config = _continued(earlier["config"], folder, config)
    if config.quick:
        log.info(quick.NOTE)
    check(config)
    values = plain(config)
    if config.resume and launch.rank() == 0 and (changed := schemes.what_changed(earlier, values)):
        log.warning("warning: %s: the results of this run are of both", changed)
    overrides = earlier.get("overrides", _overrides())
    # Imported here: --help and shell completion must not wait for torch.
    with said_meanwhile(IMPORTING):
        from kdexp.experiment import distill, ensemble
        from kdexp.report.terminal import show_run

    judge = _judge(values)
    started = time.perf_counter()
    names = []
    with _recording(folder, launch.facts(values, overrides, earlier)) as record:
        for name, step in schemes.steps(values):
            if name:
                names.append(name)
                record["steps"] = names
                _take(step, name, overrides, fingerprint([run_fingerprint(values), name]))
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


def _continued(values: dict[str, Any], folder: Path, config: DictConfig) -> DictConfig:
    """The configuration of a run that is continued, which may be somebody else's, and whose data may have moved.

    What is typed besides says where things are: the data, the store, the trackers.
    """
    given = {override.partition("=")[0] for override in _overrides()}
    typed = {key: value for key, value in plain(config.tracking).items() if given & {"tracking", f"tracking.{key}"}}
    own = stored(values)
    has_moved = "data_dir" in given or ("KDEXP_DATA_DIR" in os.environ and not Path(own["data_dir"]).is_dir())
    own = moved(
        own,
        data_dir=config.data_dir if has_moved else None,
        store_dir=config.store_dir if "store_dir" in given else None,
    )
    return OmegaConf.create(
        own | {"resume": str(folder), "output_dir": str(folder), "tracking": own["tracking"] | typed}
    )


def _judge(values: dict[str, Any]) -> "Judge | None":
    """What prunes this run, when it is a trial of a search."""
    trial = launch.trial()
    if trial is None:
        return None
    from kdexp.search import Judge

    return Judge(Path(values["sweep_dir"] or "."), trial, values["trainer"]["max_epochs"])


def _earlier(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What the folder has of the same run: of ``resume=``, or of an earlier launch.

    What it has of another one is set aside in a sweep or with ``rerun=all``, and else not touched.

    Raises:
        ValueError: it holds another run.
    """
    if config.resume:
        return results.read(folder, "resume")
    if not results.holds_run(folder):
        return {}
    if config.sweep_dir is None and config.rerun != "all":
        return _same(config, folder)
    if config.sweep_dir is not None and (folder / results.FILE).is_file():
        found = results.read(folder, "sweep")
        values = plain(config)
        if found.get("key") == run_key(values) and not schemes.what_changed(found, values):
            return found
    if launch.rank() == 0:
        log.info("setting aside what %s holds: %s", folder, folder.parent / results.SUPERSEDED)
        results.set_aside(folder)
    return {}


def _same(config: DictConfig, folder: Path) -> dict[str, Any]:
    """What a folder has of a run, which must be this one."""
    ways = "; choose another output_dir, or rerun=all to set it aside"
    if not (folder / results.FILE).is_file():
        raise ValueError(f"output_dir must be empty or hold a run with its {results.FILE}, got {folder} without{ways}")
    try:
        found = results.read(folder, "output_dir")
    except ValueError as error:
        raise ValueError(f"{error}{ways}") from error
    values = plain(config)
    is_same = found.get("key") == run_key(values)
    differing = [] if is_same else _differing(found["config"], values)
    follow_data = all(name.rpartition(".")[2] in _OF_DATA for name, _, _ in differing)
    changed = schemes.what_changed(found, values) if follow_data else ""
    if is_same and not changed:
        return found
    if found["status"] != "completed":
        ways = f"; {results.argument('resume', folder)} continues it{ways}"
    if changed:
        raise ValueError(
            f"output_dir must hold a run of the same data and files, got {folder}, {found['status']}: {changed}{ways}"
        )
    if found.get("fingerprint") == run_fingerprint(values):
        code = f"{found.get('code_version')} (now {code_version()})"
        raise ValueError(
            f"output_dir must hold a run of the same code, got {folder}, {found['status']}, of {code}{ways}"
        )
    results.restore_hydra(folder, found)
    shown = ", ".join(f"{name}={old} (now {new})" for name, old, new in differing[:_SHOWN])
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise ValueError(
        f"output_dir must be empty or hold the same run, got {folder} with another one: {shown}{more}{ways}"
    )


_OF_DATA = ("task", "num_classes", "num_outputs", "input_shape", "mean", "std")
"""Settings that follow the data where these are a user's own (`kdexp.data.inferred`), wherever they stand."""

_SHOWN = 3
"""So many of the settings in which two runs differ are named."""


def _differing(there: dict[str, Any], here: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """The settings in which two runs differ, with both values: the general ones first, not what they bring."""
    ignored = set(RUN_ONLY) - {"choices"}
    ignored |= set(DISTILLATION_ONLY) if is_control(there) and is_control(here) else set()

    def settings(config: dict[str, Any]) -> dict[str, Any]:
        chosen = config.get("choices", {})
        named = chosen | dict(leaves({key: value for key, value in config.items() if key != "choices"}))
        return {name: value for name, value in named.items() if name.split(".")[0] not in ignored}

    old, new = settings(dict(as_typed(there))), settings(here)
    differing = [
        name
        for name in sorted({**old, **new}, key=lambda name: name.count("."))
        if old.get(name) != new.get(name) and not name.endswith((".data_dir", ".download"))
    ]
    names = [name for name in differing if not any(name.startswith(f"{chosen}.") for chosen in differing)]
    return [(name, old.get(name, "unset"), new.get(name, "unset")) for name in names]


def _take(values: dict[str, Any], name: str, overrides: list[str], owner: str) -> None:
    """A run that comes before the run itself: found complete in its folder or in the store, else trained and kept.

    A copy in the store serves other runs that need the same: those of a sweep, a source domain's teacher above all.
    The owner identifies its training: the folder of the run is in its own fingerprint, and may be moved.
    """
    from kdexp.experiment import distill

    folder, kept = Path(values["output_dir"]), Path(values["store_dir"]) / "steps" / run_key(values)
    shares = is_one_process(values["trainer"])  # ranks that begin at once might find different things
    if _is_there(folder, kept if shares else None, values):
        log.info("%s: complete already: %s", name, folder)
    else:
        with trained_by_one(kept.with_suffix(".lock"), name) if shares else nullcontext():
            if not _is_there(folder, kept if shares else None, values):  # nor did another process train it meanwhile
                log.info("%s: %s", name, folder)
                earlier = results.read(folder, "resume") if (folder / results.FILE).is_file() else {}
                if earlier and schemes.what_changed(earlier, values):
                    earlier = {}
                    if launch.rank() == 0:
                        results.set_aside(folder)
                with _recording(folder, launch.facts(values, overrides, earlier)) as record:
                    distill(OmegaConf.create(values), folder, record, owner=owner)
                if shares:
                    results.copy(folder, kept)
    launch.meet()


def _is_there(folder: Path, kept: Path | None, values: dict[str, Any]) -> bool:
    """Whether a run is complete in its folder, if need be as a copy of the one that is kept."""
    if not _is_complete(folder, values) and kept is not None and _is_complete(kept, values):
        results.copy(kept, folder)
    return _is_complete(folder, values)


def _is_complete(folder: Path, values: dict[str, Any]) -> bool:
    try:
        found = results.read(folder, "resume")
    except ValueError:  # nothing is there, or it is damaged
        return False
    if found["status"] != "completed" or schemes.what_changed(found, values):
        return False
    weights = folder / results.WEIGHTS
    if results.is_altered(weights):
        log.warning("%s: corrupt file, made again: its SHA-256 is not the one in %s", weights, results.FILE)
        return False
    return True


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
    launch.run_in_output_dir()
    launch.program(_train)


if __name__ == "__main__":
    main()
