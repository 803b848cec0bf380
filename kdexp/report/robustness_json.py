"""robustness.json, of a run and of a sweep, with robustness.csv and the figures beside it."""

import json
from pathlib import Path

from kdexp import results
from kdexp.atomic import atomic_path, write_rows
from kdexp.report.png_figures import robustness as figures
from kdexp.results import Record


def write(report: Record, folder: Path) -> dict[str, object]:
    """A run's robustness.json, the cells as robustness.csv, and the figures, each of them whole or not at all.

    Returns:
        The content of robustness.json.
    """
    content = _write(report, folder)
    write_rows(folder / "robustness.csv", report["cells"])
    figures.corruptions(report, folder / "figures" / "robustness_corruptions.png")
    figures.levels(report, folder / "figures" / "robustness_doses.png")
    figures.reliability(report, folder / "figures" / "reliability.png")
    return content


def write_together(together: Record, folder: Path) -> None:
    """A sweep's robustness.json: see `kdexp.report.robustness.over_seeds`."""
    _write(together, folder)


def _write(found: Record, folder: Path) -> dict[str, object]:
    content = {"schema_version": results.ROBUSTNESS_VERSION, **found}
    with atomic_path(folder / results.ROBUSTNESS) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return content
