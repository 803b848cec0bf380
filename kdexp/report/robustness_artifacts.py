"""The files of a robustness report: robustness.json, the conditions as robustness.csv, and the figures."""

from pathlib import Path

from kdexp.atomic import write_rows
from kdexp.report import robustness_json
from kdexp.report.png_figures import robustness as figures
from kdexp.results import Record


def write(report: Record, folder: Path) -> dict[str, object]:
    """Write those of a run, each of them whole or not at all.

    Returns:
        The content of robustness.json.
    """
    content = robustness_json.write(report, folder)
    write_rows(folder / "robustness.csv", report["conditions"])
    figures.corruptions(report, folder / "figures" / "robustness_corruptions.png")
    figures.levels(report, folder / "figures" / "robustness_levels.png")
    figures.reliability(report, folder / "figures" / "reliability.png")
    return content
