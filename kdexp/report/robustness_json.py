"""robustness.json, of a run and of a sweep, with robustness.csv and the figures beside it."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kdexp.atomic import atomic_path
from kdexp.report.png_figures import robustness as figures

FILE = "robustness.json"
SCHEMA_VERSION = 1


def write(report: Mapping[str, Any], folder: Path) -> None:
    """A run's robustness.json, the cells as robustness.csv, and the figures, each of them whole or not at all."""
    _write(report, folder)
    names = list(dict.fromkeys(name for row in report["cells"] for name in row))
    with atomic_path(folder / "robustness.csv") as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(report["cells"])
    figures.corruptions(report, folder / "figures" / "robustness_corruptions.png")
    figures.levels(report, folder / "figures" / "robustness_doses.png")
    figures.reliability(report, folder / "figures" / "reliability.png")


def write_together(together: Mapping[str, object], folder: Path) -> None:
    """A sweep's robustness.json: see `kdexp.report.robustness.over_seeds`."""
    _write({"schema_version": SCHEMA_VERSION, **together}, folder)


def _write(content: Mapping[str, object], folder: Path) -> None:
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
