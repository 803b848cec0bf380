"""What a run sends to its tracker: names, final metrics, its gain over the control."""

from collections.abc import Sequence
from pathlib import Path

from kdexp.config.require import Values
from kdexp.experiment.settings import MOST_OF_TAG
from kdexp.experiment.tracking import Tracker
from kdexp.metrics.roc_and_confusion import RocAndConfusion
from kdexp.naming import job_names
from kdexp.report.runs import find_control, job_overrides
from kdexp.results import Record, Results

_LONGEST_NAME = 128
"""W&B refuses longer names of runs."""


def track_robustness(tracking: Values, folder: Path, saved: Record, report: Record) -> None:
    """Add a robustness report to the W&B run of a finished run, if it has one."""
    if saved.get("tracking", {}).get("tool") == "wandb" and saved["tracking"]["location"]:
        tracker = begin_tracking(tracking, folder, dict(saved))
        tracker.robustness(report)
        tracker.finish(0)


def track_gain(tracking: Values, folder: Path, saved: Record, control: Record) -> None:
    """Add to the tracker of a finished run what it gained over its control, which was not done then."""
    tracker = begin_tracking(tracking, folder, dict(saved))
    tracker.add(_gain(saved, control))
    tracker.finish(0)


def begin_tracking(tracking: Values, folder: Path, record: Results) -> Tracker:
    """Begin a run's tracking, and note in its results where it is tracked.

    Args:
        tracking: conf/tracking.
        folder: of the run.
        record: its results.
    """
    choices, sweep = record["config"]["choices"], record["config"]["sweep_dir"]
    kind = "control" if record["is_control"] else "distill"
    settings = {
        **tracking,
        "group": tracking["group"] or (Path(sweep).name if sweep else None),
        "job_type": kind,
        "name": (tracking["name"] or _run_name(sweep, record["overrides"]) or kind)[:_LONGEST_NAME],
        "tags": list(dict.fromkeys([*tracking["tags"], *(option[:MOST_OF_TAG] for option in choices.values())])),
    }
    shown = {key: value for key, value in record["config"].items() if key not in ("tracking", "choices")}
    # The chosen options as flat words: columns to group and filter by. The groups' own values stand beside them.
    flat = {f"{group}_name": option for group, option in choices.items()} | {"is_control": record["is_control"]}
    flat["versions"] = record["versions"]
    tracker = Tracker(settings, folder, shown | flat, record["wandb_id"])
    record["tracking"] = {"tool": tracking["tool"], "location": tracker.location, "group": settings["group"]}
    return tracker


def _run_name(sweep: str | None, overrides: Sequence[str]) -> str:
    """Of a job in a sweep what it differs in from the others; of another run all that was overridden."""
    among = job_overrides(Path(sweep)) if sweep else []
    if list(overrides) not in among:
        return " ".join(overrides)
    return job_names(among, _LONGEST_NAME)[among.index(list(overrides))]


def summarize(
    tracker: Tracker, folder: Path, record: Results, curves: RocAndConfusion | None, classes: Sequence[str]
) -> None:
    """Give a run's tracker its final metrics and curves, and note in its results which control they are held against.

    Args:
        tracker: of the run.
        folder: of the run; its control is looked for beside it.
        record: its results, added to.
        curves: of the test split; None of a task without.
        classes: names of the classes, by number.
    """
    control = find_control(record, folder.parent)
    tracker.summarize(final(record, control), curves, classes)
    record["tracking"]["control"] = control["wandb_id"] if control is not None else None


def final(record: Record, control: Record | None) -> dict[str, float]:
    """``test/acc`` (best epoch by validation), ``test_last/acc``, ``teacher/test/acc``, ... for the tracker's summary.

    Where the control of this seed is done already, what `_gain` says, too.
    """
    metrics = record["metrics"]
    flat = {f"test/{name}": value for name, value in metrics["test"]["best"].items()}
    flat |= {f"test_last/{name}": value for name, value in metrics["test"]["last"].items()}
    flat |= {f"teacher/test/{name}": value for name, value in record.get("teacher", {}).get("test", {}).items()}
    return flat | (_gain(record, control) if control is not None and not record["is_control"] else {})


def _gain(record: Record, control: Record) -> dict[str, float]:
    """``control/test/acc``, ... and ``gain/acc``, ...: the run's test metrics less its control's."""
    own, alone = (run["metrics"]["test"]["best"] for run in (record, control))
    known = {name: value for name, value in alone.items() if None not in (value, own.get(name))}
    return {f"control/test/{name}": value for name, value in alone.items()} | {
        f"gain/{name}": own[name] - value for name, value in known.items()
    }
