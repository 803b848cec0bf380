"""Names of a sweep's folder and of its jobs' folders."""

import re
from collections.abc import Mapping, Sequence

from kdexp.config.identity import DISTILLATION_ONLY, RUN_ONLY
from kdexp.config.require import Values

_NAME_LENGTH = 120


def name_sweep(dataset: str, swept: Sequence[str], identity: str) -> str:
    """A folder name for a sweep: of what, over what, and a few digits of what tells it from others."""
    words = [*([] if "dataset" in swept else [dataset]), *swept]
    return _safe("_".join(words), identity[:6])


def name_job(values: Values, cell: Mapping[str, str], *, is_control: bool, fingerprint: str) -> str:
    """A folder name for a job: what makes it differ from the others, safe for shells and Hydra's grammar.

    Jobs that compute the same have the same name: settings that do not matter, to a control above all, are left out.

    Args:
        values: the job's configuration, plain.
        cell: the swept settings and their values, as typed; empty where the setting is not in the job's grid.
        is_control: whether the student is trained alone.
        fingerprint: of the configuration.
    """
    ignored = (*RUN_ONLY, *(DISTILLATION_ONLY if is_control else ()), "quick")
    words = ["quick"] if values.get("quick") else []
    for key, typed in cell.items():
        path = key.lstrip("+~").split("@")[-1].replace("/", ".").split(".")
        if path[0] in ignored or typed == "[]":
            continue
        value: object = values
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        shown = f"{value:g}" if isinstance(value, float) else str(value)
        shown = typed if value is None or isinstance(value, Mapping | list) else shown
        if shown:
            words.append(f"{'.'.join(path)}-{shown}")
    return _safe("_".join(words), fingerprint[:8])


def _safe(words: str, digits: str) -> str:
    clean = re.sub(r"[^\w.]+", "-", words, flags=re.ASCII).strip("-.")
    return f"{clean[:_NAME_LENGTH]}-{digits}" if clean else digits
