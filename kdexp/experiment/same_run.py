"""What an output folder holds of the same run."""

import logging
from collections.abc import Callable
from pathlib import Path

from kdexp import results, run_folder
from kdexp.config.identity import DISTILLATION_ONLY, RUN_ONLY, Identity, as_typed, code_version
from kdexp.config.leaves import leaves
from kdexp.config.renamed import without_added
from kdexp.config.require import Values
from kdexp.experiment import changes
from kdexp.experiment.ranks import rank

log = logging.getLogger(__name__)


def find_earlier(folder: Path, values_of_run: Callable[[], Values], *, in_sweep: bool, rerun: bool) -> results.Record:
    """What the folder has of the same run, of an earlier launch.

    What it has of another one is set aside in a sweep or where all is run again, and else not touched.

    Args:
        folder: of the run.
        values_of_run: gives its configuration, when something is there to compare with it.
        in_sweep: whether it is a job of a sweep.
        rerun: whether all is run again.

    Raises:
        ValueError: it holds another run.
    """
    if not run_folder.holds_run(folder):
        return {}
    if not in_sweep and not rerun:
        found = _read(folder)
        _refuse_another(found, values_of_run(), folder)
        return found
    if in_sweep and (folder / results.FILE).is_file():
        found, values = results.read(folder, "sweep"), values_of_run()
        if found.get("key") == Identity(values).key and not changes.what_changed(found, values):
            return found
    if rank() == 0:
        log.info("setting aside what %s holds: %s", folder, folder.parent / results.SUPERSEDED)
        run_folder.set_aside(folder)
    return {}


_WAYS = "; choose another output_dir, or rerun=all to set it aside"


def _read(folder: Path) -> results.Record:
    """The results in a folder that is not empty."""
    if not (folder / results.FILE).is_file():
        raise ValueError(f"output_dir must be empty or hold a run with its {results.FILE}, got {folder} without{_WAYS}")
    try:
        return results.read(folder, "output_dir")
    except ValueError as error:
        raise ValueError(f"{error}{_WAYS}") from error


def _refuse_another(found: results.Record, values: Values, folder: Path) -> None:
    """See that what a folder has is of this run.

    Args:
        found: its results.
        values: the configuration of this one.
        folder: of both.

    Raises:
        ValueError: it is of another one.
    """
    ways, identity = _WAYS, Identity(values)
    is_same = found.get("key") == identity.key
    differing = [] if is_same else _differing(found["config"], values)
    follow_data = all(name.rpartition(".")[2] in _OF_DATA for name, _, _ in differing)
    changed = changes.what_changed(found, values) if follow_data else ""
    if is_same and not changed:
        return
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


_OF_DATA = ("kind", "num_classes", "num_outputs", "input_shape", "mean", "std")
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
