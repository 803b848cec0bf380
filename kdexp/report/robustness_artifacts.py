"""The files of a robustness report: robustness.json, the conditions as robustness.csv, and the figures."""

from contextlib import suppress
from pathlib import Path

from kdexp import results
from kdexp.atomic import write_rows
from kdexp.report import robustness_json
from kdexp.report.png_figures import robustness as figures
from kdexp.results import Record

_CSV, _FIGURES = "robustness.csv", "figures"
_DRAWN = {
    "robustness_corruptions.png": figures.corruptions,
    "robustness_levels.png": figures.levels,
    "reliability.png": figures.reliability,
}


def write(report: Record, folder: Path) -> dict[str, object]:
    """Write those of a run, each of them whole or not at all.

    Returns:
        The content of robustness.json.
    """
    content = robustness_json.write(report, folder)
    write_rows(folder / _CSV, report["conditions"])
    for name, draw in _DRAWN.items():
        path = folder / _FIGURES / name
        path.unlink(missing_ok=True)  # that of an earlier report, where this one has nothing to draw
        draw(report, path)
    return content


def remove(folder: Path) -> None:
    """Remove those of an earlier report; what else is in a folder stays."""
    for name in (results.ROBUSTNESS, _CSV, *(f"{_FIGURES}/{name}" for name in _DRAWN)):
        (folder / name).unlink(missing_ok=True)
    with suppress(OSError):  # it has others, or is not there
        (folder / _FIGURES).rmdir()
