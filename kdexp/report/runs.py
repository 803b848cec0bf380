"""The runs in some folders, as results.json, metrics.csv and a sweep's index tell them."""

import csv
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp import results, run_folder
from kdexp.atomic import read_json, write_rows
from kdexp.config.identity import as_typed, is_of_recipe
from kdexp.config.leaves import leaves
from kdexp.config.renamed import refuse_setting, refuse_value, upgrade_override, without_added
from kdexp.config.untrusted import check_folder, inside
from kdexp.report import robustness_json
from kdexp.results import Record

if TYPE_CHECKING:
    from kdexp.report.decisions import Decisions

INDEX = "sweep.json"
DATA = "data"
_JOB = {"folder", "overrides", "key", "status", "error"}


@dataclass(frozen=True, eq=False)
class Run:
    """One run, however it ended.

    Attributes:
        folder: its folder.
        results: the content of its results.json; of a job that left none, what the sweep's index knows.
        status: how it ended; ``waiting`` of a job that has not begun.
        error: why it is not completed, if anything said so.
        log_tail: the last lines of its log when it is not completed.
        tuned: of the best trial of a search, and of its control: ``trials`` of the student over ``settings``, and
            ``control_trials`` of the control over ``control_settings``; empty of all others.
    """

    folder: Path
    results: Record
    status: str
    error: str = ""
    log_tail: str = ""
    tuned: Record = field(default_factory=dict)

    @property
    def completed(self) -> bool:
        """Whether it has metrics to compare."""
        return self.status == "completed"

    @property
    def seed(self) -> int:
        """Of initial weights, order of the data, augmentation and dropout."""
        return int(self.results["seed"])

    @property
    def is_control(self) -> bool:
        """Whether the student was trained alone."""
        return bool(self.results["is_control"])

    @property
    def measure(self) -> str:
        """The metric that it is compared by: see `kdexp.contracts.Task.measure`."""
        return str(self.results.get("measure", "acc"))

    @property
    def command(self) -> str | None:
        """What to type to run it again; None for a run that was started from Python."""
        if not (self.results["overrides"] or (self.folder / ".hydra").is_dir()):
            return None
        return command_of(self.results["overrides"])

    @cached_property
    def teacher(self) -> Record | None:
        """What was measured of the teacher that `teacher` names; None without one.

        Of a scheme of several runs that is the first one's: the run itself learned from the last prior run's student.
        """
        own: Record | None = self.results.get("teacher") or None
        for name in self.results.get("prior_runs", [])[:1]:
            with suppress(ValueError):  # it is gone, or somebody else's
                place = inside(run_folder.prior_runs(self.folder), name)
                return results.read(place, "prior run").get("teacher") or own
        return own

    @cached_property
    def settings(self) -> Record:
        """Every setting by its name on the command line: ``alpha``, ``loss`` (the chosen option), ``optimizer.lr``.

        Beside them, as `DATA`, the first digits of the digest of the data.
        """
        written = without_added(as_typed(self.results.get("config", {})))  # they are no axes
        config = {key: value for key, value in written.items() if key != "choices"}
        given = (override.lstrip("+~").partition("=") for override in self.results["overrides"])
        typed = {key.partition("@")[0]: value for key, _, value in given}
        data = {DATA: content[:8]} if (content := self.results.get("data_content")) else {}
        return {**typed, **dict(leaves(config)), **self.results.get("choices", {}), **data}

    @cached_property
    def decisions(self) -> "Decisions | None":
        """What student and teacher decided of each test sample; None of a run without that file.

        Raises:
            ValueError: the file is damaged, or holds something else; one line.
        """
        from kdexp.report.decisions import read  # here: tables of runs do without NumPy

        return read(self.folder)

    def metric(self, name: str, split: str = "test", epoch: str = "best") -> float | None:
        """A metric at the best epoch (chosen on validation) or at the last; None where it was not measured."""
        value = self.results.get("metrics", {}).get(split, {}).get(epoch, {}).get(name)
        return None if value is None else float(value)

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The rows of metrics.csv, empty fields left out; none when there is no such file or it cannot be read."""
        try:
            with inside(self.folder, "metrics.csv").open(newline="") as file:
                return [{name: float(v) for name, v in row.items() if name and v} for row in csv.DictReader(file)]
        except (OSError, ValueError, csv.Error):
            return []


def read_run(folder: Path) -> Run:
    """The run in a folder.

    Raises:
        ValueError: there is none that can be read.
    """
    found = results.read(folder, "run")
    return Run(folder, found, found["status"])


def prior_runs(run: Run) -> list[Run]:
    """The runs before a run, that its scheme wanted.

    Raises:
        ValueError: one cannot be read.
    """
    place = run_folder.prior_runs(run.folder)
    return [read_run(inside(place, name)) for name in run.results.get("prior_runs", [])]


def command_of(overrides: Sequence[str]) -> str:
    """What to type to run one job alone, whether or not a preset of conf/sweep is among its overrides."""
    alone = ["hydra.mode=RUN"] if any(override.lstrip("+").startswith("sweep=") for override in overrides) else []
    return shlex.join(["kdexp-train", *overrides, *alone])


def find(folders: Sequence[Path]) -> tuple[list[Run], list[str]]:
    """Find the runs in run folders, sweep folders and folders of such, each run once.

    Args:
        folders: where to look.

    Returns:
        The runs in the order of their folders' names, and a line for each results.json that could not be read.

    Raises:
        ValueError: a folder does not exist.
    """
    found: dict[Path, Run] = {}
    unread: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"folders must exist, got {folder}")
        for above, name, job in _places(folder):
            try:
                place = inside(above, name)
                if place.resolve() not in found:
                    found[place.resolve()] = _read(place, job)
            except ValueError as error:
                unread.append(str(error))
    return list(found.values()), unread


def _places(folder: Path) -> Iterator[tuple[Path, str, Record]]:
    """Run folders: where they lie, their name there, and their entry in the sweep's index or an empty one."""
    for name, folders, files in os.walk(folder):
        here = Path(name)
        folders[:] = [folder for folder in folders if folder != results.SUPERSEDED]
        folders.sort(key=lambda name: (len(name), name) if name.isdigit() else (0, name))
        if results.FILE in files:
            yield here, "", {}
            folders.clear()  # what lies below are prior runs of this one
        elif jobs := _index(here):
            yield from ((here, job["folder"], job) for job in jobs)
            folders.clear()  # what is not in the index is no job, or was set aside


def _index(sweep: Path) -> list[Record]:
    try:
        jobs = list(read_json(sweep / INDEX)["jobs"])
    except (ValueError, KeyError, TypeError):  # a sweep without one, or damaged: its folders are looked at
        return []
    if not all(isinstance(job, dict) and job.keys() >= _JOB and isinstance(job["overrides"], list) for job in jobs):
        return []
    return [{**job, "overrides": [upgrade_override(str(text)) for text in job["overrides"]]} for job in jobs]


def _read(folder: Path, job: Record) -> Run:
    # What lies in the folder of a job may be another's, from before the code or a setting was changed.
    if job and not (folder / results.FILE).is_file():
        return _not_begun(folder, job)
    found = results.read(folder, "folder")
    if job and found.get("key") != job["key"]:
        return _not_begun(folder, job)
    if found["status"] == "completed":
        return Run(folder, found, "completed", tuned=_tuned(job))
    return Run(folder, found, found["status"], found.get("error", ""), "\n".join(run_folder.log_tail(folder)))


def _tuned(job: Record) -> Record:
    found = job.get("tuned")
    if not isinstance(found, dict):
        return {}
    counts = {name: found.get(name) for name in ("trials", "control_trials")}
    names = {name: found.get(name) for name in ("settings", "control_settings")}
    are_counts = all(isinstance(count, int) for count in counts.values())
    are_names = all(isinstance(each, list) and all(isinstance(n, str) for n in each) for each in names.values())
    are_names = are_names and all(map(is_of_recipe, names["control_settings"] or ()))
    return {**counts, **names} if are_counts and are_names else {}


def _not_begun(folder: Path, job: Record) -> Run:
    status = "waiting" if job["status"] == "completed" else job["status"]  # what it completed is gone
    return Run(folder, {"overrides": job["overrides"], "is_control": False}, status, job["error"] or "")


def read_reports(folders: Iterable[Path]) -> dict[Path, Record]:
    """The content of robustness.json of those of the run folders that have one."""
    found: dict[Path, Record] = {}
    for folder in folders:
        with suppress(ValueError):  # most runs have none; one that cannot be read is no reason to show nothing
            found[folder] = robustness_json.read(folder)
    return found


def matching(runs: Sequence[Run], where: Sequence[str]) -> list[Run]:
    """The runs that every condition holds for.

    Args:
        runs: to choose from.
        where: ``SETTING=VALUE`` or ``SETTING=VALUE,VALUE`` for any of them; a setting by its name on the command
            line, or ``status``. Numbers are compared as numbers.

    Raises:
        ValueError: a condition is not of that form, or names a setting that no run has, or no run is left.
    """
    left = list(runs)
    for condition in where:
        name, equals, values = condition.partition("=")
        if not (name and equals):
            raise ValueError(f"where must be SETTING=VALUE, got {condition}")
        if name != "status" and all(name not in run.settings for run in runs):
            refuse_setting(name)
            raise ValueError(f"where must name a setting of a run, or status, got {name}")
        for value in values.split(","):
            refuse_value(name, value)
        wanted = [_comparable(value) for value in values.split(",")]
        left = [
            run
            for run in left
            if _comparable(run.status if name == "status" else run.settings.get(name, "null")) in wanted
        ]
    if not left:
        raise ValueError(f"where must hold for at least one run, got {' '.join(where)}")
    return left


def _comparable(value: object) -> float | str:
    if isinstance(value, str | int | float):
        with suppress(ValueError):
            return float(value)
    return "null" if value is None else str(value).lower()


def write_csv(runs: Sequence[Run], path: Path, *, chosen: Sequence[Run] = ()) -> None:
    """Write a row for each run: its settings, how it ended, every metric and cost, and the command.

    Args:
        runs: a row each.
        path: the CSV file.
        chosen: those of the chosen configuration.
    """
    write_rows(path, [_row(run, run in chosen) for run in runs])


def _row(run: Run, is_chosen: bool) -> dict[str, object]:
    found = run.results
    given = (override.lstrip("+~").partition("=")[0] for override in found["overrides"])
    names = dict.fromkeys((*found.get("choices", {}), "alpha", "temperature", "seed", *given))
    measured = {
        f"{split if epoch == 'best' else f'{split}_last'}/{name}": value
        for split, epochs in found.get("metrics", {}).items()
        for epoch, metrics in epochs.items()
        for name, value in metrics.items()
    }
    teacher = found.get("teacher") or {}
    measured |= {
        f"teacher/{split}/{name}": value for split in ("val", "test") for name, value in teacher.get(split, {}).items()
    }
    return (
        {"folder": str(run.folder), "status": run.status, "is_control": run.is_control, "chosen": is_chosen}
        | {name: run.settings.get(name) for name in names}
        | measured
        | {f"epoch/{which}": epoch for which, epoch in found.get("epochs", {}).items()}
        | dict(leaves(found.get("model", {}), "model/"))
        | {name.replace(".", "/"): value for name, value in leaves(found.get("cost", {}), "cost/")}
        | {f"samples/{split}": count for split, count in found.get("samples", {}).items()}
        | {"error": run.error, "command": run.command}
    )


def find_control(run: Record, folder: Path) -> Record | None:
    """The results of the control of a run, see `control_folder`."""
    control = look_for_control(run, folder)[0]
    return control.results if control else None


def control_folder(run: Record, folder: Path) -> Path | None:
    """The control of a run among the run folders in a folder: same student, data, recipe and seed, alpha = 1.

    See `look_for_control` for that of a search.
    """
    control = look_for_control(run, folder)[0]
    return control.folder if control else None


def look_for_control(run: Record, folder: Path) -> tuple[Run | None, list[str]]:
    """The control, see `control_folder`, and a line for each results.json before it that cannot be read.

    Of the best trial of a search it is the one that was searched, whose recipe is another one.
    """
    unread: list[str] = []
    jobs = _index(folder)
    tuned = next((_tuned(job) for job in jobs if job["key"] == run.get("key")), {})
    searched = {job["folder"] for job in jobs if tuned and _tuned(job) == tuned}
    for path in folder.glob(f"*/{results.FILE}"):
        try:
            other = results.read(inside(folder, path.parent.name), "control")
            if tuned:
                is_same = path.parent.name in searched and other["seed"] == run["seed"]
            else:
                is_same = other["control_fingerprint"] == run["control_fingerprint"]
            is_same = is_same and not results.has_other_data(other, run.get("data_content"))
            # A trial of a search that came to alpha=1 has no test metrics to compare with.
            is_tested = other["status"] == "completed" and "best" in other.get("metrics", {}).get("test", {})
            if is_tested and other["is_control"] and is_same:
                check_folder(path.parent, "control")  # what is measured of it is read and written there
                return Run(path.parent, other, "completed", tuned=tuned), unread
        except ValueError as error:  # somebody else's, or damaged: no reason to fail a run that is done
            unread.append(str(error))
    return None, unread


def job_overrides(folder: Path) -> list[list[str]]:
    """The overrides of each job in a sweep's index; none without one."""
    return [job["overrides"] for job in _index(folder)]
