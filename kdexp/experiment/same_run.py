"""What an output folder holds of the same run."""

import logging
from pathlib import Path

from omegaconf import DictConfig

from kdexp import results, run_folder
from kdexp.config.compose import plain
from kdexp.config.identity import DISTILLATION_ONLY, RUN_ONLY, Identity, as_typed, code_version
from kdexp.config.leaves import leaves
from kdexp.config.renamed import without_added
from kdexp.config.require import Values
from kdexp.experiment import changes
from kdexp.experiment.ranks import rank

log = logging.getLogger(__name__)


def find_earlier(config: DictConfig, folder: Path) -> results.Record:
    """What the folder has of the same run: of ``resume=``, or of an earlier launch.

    What it has of another one is set aside in a sweep or with ``rerun=all``, and else not touched.

    Raises:
        ValueError: it holds another run.
    """
    if config.resume:
        return results.read(folder, "resume")
    if not run_folder.holds_run(folder):
        return {}
    if config.sweep_dir is None and config.rerun != "all":
        return _same(config, folder)
    if config.sweep_dir is not None and (folder / results.FILE).is_file():
        found = results.read(folder, "sweep")
        values = plain(config)
        if found.get("key") == Identity(values).key and not changes.what_changed(found, values):
            return found
    if rank() == 0:
        log.info("setting aside what %s holds: %s", folder, folder.parent / results.SUPERSEDED)
        run_folder.set_aside(folder)
    return {}


def _same(config: DictConfig, folder: Path) -> results.Record:
    """What a folder has of a run, which must be this one."""
    ways = "; choose another output_dir, or rerun=all to set it aside"
    if not (folder / results.FILE).is_file():
        raise ValueError(f"output_dir must be empty or hold a run with its {results.FILE}, got {folder} without{ways}")
    try:
        found = results.read(folder, "output_dir")
    except ValueError as error:
        raise ValueError(f"{error}{ways}") from error
    values = plain(config)
    identity = Identity(values)
    is_same = found.get("key") == identity.key
    differing = [] if is_same else _differing(found["config"], values)
    follow_data = all(name.rpartition(".")[2] in _OF_DATA for name, _, _ in differing)
    changed = changes.what_changed(found, values) if follow_data else ""
    if is_same and not changed:
        return found
    if found["status"] != "completed":
        ways = f"; {results.argument('resume', folder)} continues it{ways}"
    if changed:
        raise ValueError(
            f"output_dir must hold a run of the same data and files, got {folder}, {found['status']}: {changed}{ways}"
        )
    if found.get("fingerprint") == identity.fingerprint:
        code = f"{found.get('code_version')} (now {code_version()})"
        raise ValueError(
            f"output_dir must hold a run of the same code, got {folder}, {found['status']}, of {code}{ways}"
        )
    run_folder.restore_hydra(folder, found)
    shown = ", ".join(f"{name}={old} (now {new})" for name, old, new in differing[:_SHOWN])
    more = f" and {len(differing) - _SHOWN} more" if len(differing) > _SHOWN else ""
    raise ValueError(
        f"output_dir must be empty or hold the same run, got {folder} with another one: {shown}{more}{ways}"
    )


_OF_DATA = ("task", "num_classes", "num_outputs", "input_shape", "mean", "std")
"""Settings that follow the data where these are a user's own (`kdexp.data.inferred`), wherever they stand."""
_SHOWN = 3
"""So many of the settings in which two runs differ are named."""


def _differing(there: Values, here: Values) -> list[tuple[str, object, object]]:
    """The settings in which two runs differ, with both values: the general ones first, not what they bring."""
    ignored = set(RUN_ONLY) - {"choices"}
    ignored |= set(DISTILLATION_ONLY) if Identity(there).is_control and Identity(here).is_control else set()

    def settings(values: Values) -> dict[str, object]:
        chosen = values.get("choices", {})
        named = chosen | dict(leaves({key: value for key, value in values.items() if key != "choices"}))
        return {name: value for name, value in named.items() if name.split(".")[0] not in ignored}

    old, new = settings(without_added(as_typed(there))), settings(without_added(here))
    differing = [
        name
        for name in sorted({**old, **new}, key=lambda name: name.count("."))
        if old.get(name) != new.get(name) and not name.endswith((".data_dir", ".download"))
    ]
    names = [name for name in differing if not any(name.startswith(f"{chosen}.") for chosen in differing)]
    return [(name, old.get(name, "unset"), new.get(name, "unset")) for name in names]
