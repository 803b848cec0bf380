"""robustness.json, of a run and of a sweep."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdexp import results
from kdexp.atomic import atomic_path, read_json
from kdexp.config.renamed import upgrade
from kdexp.config.untrusted import inside, without_folders
from kdexp.results import Record
from kdexp.robustness import renamed

SCHEMA_VERSION = 2


def write(found: Record, folder: Path) -> dict[str, object]:
    """Write a run's report, or a sweep's: see `kdexp.report.robustness.over_seeds`.

    Returns:
        The content of the file.
    """
    content = {"schema_version": SCHEMA_VERSION, **found}
    with atomic_path(folder / results.ROBUSTNESS) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return content


def to_pass_on(report: Record) -> Record:
    """A report without the folders of this machine: those of what was measured, of data, of a store."""
    models = {role: {"digest": own["digest"]} for role, own in report["models"].items()}
    return {name: without_folders(value) for name, value in report.items()} | {"models": models}


def read(folder: Path) -> Record:
    """A run's robustness.json under today's keys, whichever kdexp wrote it.

    Raises:
        ValueError: there is none, it cannot be read, or it is a later kdexp's.
    """
    path = inside(folder, results.ROBUSTNESS)
    report = read_json(path)
    version = report.get("schema_version") if isinstance(report, dict) else None
    try:
        if version == 1:
            return _checked(_upgrade(report), path)
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if version != SCHEMA_VERSION:
        raise ValueError(f"schema_version of {path} must be at most {SCHEMA_VERSION}, got {version}")
    return _checked(report, path)


def _checked(report: Record, path: Path) -> Record:
    """A report whose conditions and metrics are what readers take them for: it may be somebody else's."""
    rows, metrics = report.get("conditions", []), report.get("metrics", {})
    are_rows = isinstance(rows, list) and all(
        isinstance(row, Mapping) and isinstance(row.get("axis"), str) and isinstance(row.get("model"), str)
        for row in rows
    )
    if not are_rows:
        raise ValueError(f"{path} is damaged: conditions must be a list, each with its axis and model")
    parts = list(metrics.values()) if isinstance(metrics, Mapping) else [None]
    if not all(isinstance(part, Mapping) and all(isinstance(e, Mapping) for e in part.values()) for part in parts):
        raise ValueError(f"{path} is damaged: metrics must be values by axis, metric and role")
    return dict(report)


def _upgrade(report: Record) -> dict[str, Any]:
    """A report of schema 1 under the keys of today."""
    same = {key: value for key, value in report.items() if key not in ("measures", "cells")}
    found = {
        "schema_version": SCHEMA_VERSION,
        "models": {role: _model(own) for role, own in report["models"].items()},
        "settings": upgrade({"robustness": report["settings"]})["robustness"],
        "metrics": {renamed.axis(axis): _metrics(own) for axis, own in report["measures"].items()},
        "conditions": [_row(row) for row in report["cells"]],
    }
    if "notes" in report:
        found["notes"] = [_note(note) for note in report["notes"]]
    if "sample_counts" in report:  # of a split of an axis, the axis first
        counts = ((name.partition(" "), own) for name, own in report["sample_counts"].items())
        found["sample_counts"] = {f"{renamed.axis(kind)}{gap}{rest}": own for (kind, gap, rest), own in counts}
    if "accuracy_under" in report:  # the first of them had none
        found["accuracy_under"] = {renamed.axis(kind): entry for kind, entry in report["accuracy_under"].items()}
    return same | found


def _model(found: Record) -> dict[str, Any]:
    """A network of a report: its digest, and where what was measured of it is kept."""
    return {"conditions" if name == "cells" else name: value for name, value in found.items()}


def _row(row: Record) -> dict[str, Any]:
    """What was measured of one network under one condition."""
    where = {"axis": renamed.axis(row["axis"]), "name": renamed.perturbation(row["name"])}
    return renamed.upgrade(row) | where


def _metrics(found: Record) -> dict[str, Any]:
    """What a report says of an axis: by metric, or by perturbation or data set and metric."""
    return {
        renamed.metric(renamed.perturbation(name)): _entry(entry) if isinstance(entry, Mapping) else entry
        for name, entry in found.items()
    }


def _entry(entry: Record) -> dict[str, Any]:
    """What a report says of a metric, or of a perturbation; the worst condition is named by its perturbation."""
    return {
        name: _words(value) if name.startswith("worst_condition_") else value
        for name, value in renamed.upgrade(entry).items()
    }


def _words(text: str) -> str:
    """A text, whose perturbations have the names of today."""
    return re.sub(r"\w+", lambda found: renamed.perturbation(found[0]), text)


def _note(note: str) -> str:
    """A sentence of a report, whose axes, perturbations and settings have the names of today."""
    return _words(re.sub(r"^\w+(?=:| left out)|(?<=\brobustness\.)\w+", lambda found: renamed.axis(found[0]), note))
