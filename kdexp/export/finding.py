"""Where the student is that a path means: of a run, of a sweep's winner, of a folder as the Hub has it."""

from pathlib import Path

from kdexp import results, run_folder
from kdexp.config.untrusted import check_folder, inside
from kdexp.report import glossary
from kdexp.report.comparison import Comparison, of_sweep, order_of_choice
from kdexp.report.runs import INDEX

HUB_WEIGHTS = "model.safetensors"
_SHOWN = 4  # runs in a message


def weights_at(path: Path, setting: str) -> Path:
    """The file of weights that a path means.

    Args:
        path: see `kdexp.export.student.load`.
        setting: that named it, for messages.

    Raises:
        ValueError: a run that is not completed, or whose weights are not those that it wrote; one line.
        FileNotFoundError: there is nothing.
    """
    if path.is_file():
        return path
    if not path.is_dir():
        raise FileNotFoundError(f"{setting} must be the folder of a run or of a sweep, not found: {path}")
    if (path / HUB_WEIGHTS).is_file():
        return inside(path, HUB_WEIGHTS)
    if not (path / results.WEIGHTS).exists():
        path = run_at(path, setting)
    if (path / results.FILE).exists():
        run = results.read(path, setting)
        if run["status"] != "completed":
            raise ValueError(f"{setting} must be completed, got {path} with status {run['status']}")
        check_folder(path, setting)
    return run_folder.verified(inside(path, results.WEIGHTS), setting)


def run_at(folder: Path, setting: str) -> Path:
    """The run folder that is meant: of a sweep that of the winner's seed with the best validation metric.

    The winner is the one that ``kdexp-compare`` chooses, on val; without a distilled run it is the best control.

    Args:
        folder: of a run or of a sweep.
        setting: that named it, for messages.

    Raises:
        ValueError: it holds no completed run, or several that have nothing to do with each other.
    """
    if (folder / results.FILE).exists():
        return folder
    comparison = of_sweep(folder)
    chosen = comparison.winner or comparison.control
    if chosen is None:
        raise ValueError(f"{setting} must be the folder of a finished run, or of a sweep that has one, got {folder}")
    _check_related(comparison, folder, setting)
    is_less = glossary.known(chosen.measure).lower_is_better

    def merit(place: int) -> tuple[float, float]:
        run = chosen.runs[place]
        values = run.metric(chosen.measure, "val"), run.metric("nll", "val")
        return order_of_choice(*values, less_is_better=is_less)

    return chosen.runs[min(range(len(chosen.runs)), key=merit)].folder


def _check_related(comparison: Comparison, folder: Path, setting: str) -> None:
    """See that one of them can be the best: runs on one data set; where they are of no sweep, of one recipe, too."""
    groups = comparison.distilled or comparison.controls
    is_sweep = (folder / INDEX).is_file()
    kinds = {str(group.runs[0].settings.get("dataset")) if is_sweep else group.family: group for group in groups}
    if len(kinds) > 1:
        what = "of several data sets" if is_sweep else "that are of no sweep, and of several recipes"
        names = [str(group.runs[0].folder.relative_to(folder)) for group in kinds.values()]
        shown = ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
        raise ValueError(
            f"{setting} must be one run, or a sweep on one data set, got {folder} with runs {what}: {shown}"
        )
