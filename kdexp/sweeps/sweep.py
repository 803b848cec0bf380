"""A sweep on disk: a folder for each job, what became of it, and sweep.json, the index of them all."""

import csv
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from kdexp import results, run_folder
from kdexp.atomic import atomic_path, read_json
from kdexp.config.identity import fingerprint
from kdexp.config.renamed import upgrade_override
from kdexp.config.untrusted import inside
from kdexp.metrics.monitor import best_epoch
from kdexp.results import Record
from kdexp.sweeps.pruning import epochs_of, planned_epochs

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
FILE = "sweep.json"
STATUSES = ("waiting", *results.STATUSES)
_DONE = {False: ("completed",), True: ("completed", "pruned", "diverged")}
"""How a job ends that is not run again; a trial of a search that went wrong has said what there was to find out."""
_WANDB = "wandb-runs"
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Job:
    """One cell of a sweep.

    Attributes:
        overrides: what it is, in the words of the command line.
        folder: its run folder, in the sweep's.
        key: see `kdexp.config.identity.Identity`; what lies in the folder is this job's only when it has the same.
        epochs: how many it trains for; None where its data say so (``trainer.max_steps``).
        trial: its number among the trials of a search; such a one may be pruned, and is not measured on test.
        part: of its training that a trial of a halving is to do; None of all others.
        tuned: of the best trial of a search, and of its control: see `kdexp.report.runs.Run`.
        stale: W&B id of a run in its folder that is not this job's, since its data or files have changed.
    """

    overrides: tuple[str, ...]
    folder: str
    key: str
    epochs: int | None
    trial: int | None = None
    tuned: Record | None = field(default=None, hash=False)
    stale: str | None = None
    part: float | None = None


@dataclass(frozen=True)
class State:
    """An entry of the index: a job and what became of it so far.

    Attributes:
        number: of the job in its sweep; it keeps it.
        job: what it is.
        status: one of STATUSES.
        seconds: from its last start to its end, or to now.
        epoch: how many epochs are done.
        val_acc: on val in the best epoch so far: accuracy, or the measure of another task.
        measure: the metric that the run is compared by; None where that is not known yet, which is taken for accuracy.
        error: why it did not complete.
        log_tail: the last lines of its log, of a job that is running or did not complete.
        launch: which launch of the sweep ran it last.
    """

    number: int
    job: Job
    status: str
    seconds: float | None = None
    epoch: int = 0
    val_acc: float | None = None
    measure: str | None = None
    error: str | None = None
    log_tail: tuple[str, ...] = ()
    launch: str | None = None

    @property
    def has_failed(self) -> bool:
        """Whether it ended without completing, other than as not worth going on."""
        return self.status not in ("waiting", "running", "completed", "pruned")


class Sweep:
    """The jobs of one launch, in a folder that they may share with those of earlier and of simultaneous launches.

    Args:
        folder: the sweep's folder.
        jobs: of this launch, each with a run folder of its own.
        command: what was typed, to be typed again.
        launch: one that is going on and goes on with these jobs; a new one unless given.
    """

    def __init__(self, folder: Path, jobs: Sequence[Job], command: str, launch: str | None = None) -> None:
        self.folder, self.command = folder, command
        self.launch = launch or os.urandom(4).hex()
        self._jobs: dict[int, Job] = {}
        self._seen: dict[str, tuple[int, State]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        with self._index() as known:
            numbers = {job.folder: number for number, job in known.items()}
            for job in jobs:
                numbers.setdefault(job.folder, max(known, default=-1) + 1)
                known[numbers[job.folder]] = self._jobs[numbers[job.folder]] = job

    def recall(self, folders: Collection[str] | None = None) -> None:
        """Take the jobs for this launch's that are in the index with these folders, or all, whoever runs them."""
        with self._index() as known:
            self._jobs = {number: job for number, job in known.items() if folders is None or job.folder in folders}

    def states(self) -> list[State]:
        """What has become of this launch's jobs, as their folders say now."""
        return [self._state(number, job) for number, job in sorted(self._jobs.items())]

    def is_to_run(self, state: State) -> bool:
        """Whether a job is unfinished, and was not run by this launch, which tries each of them once."""
        return self.is_unfinished(state) and state.launch != self.launch

    def is_unfinished(self, state: State) -> bool:
        """Whether a job is yet to be run, by a later launch if not by this one."""
        return state.status not in _DONE[state.job.trial is not None]

    def set_aside(self) -> None:
        """Make room for all jobs to be run again: nothing is deleted."""
        for state in self.states():
            if state.status not in ("waiting", "running"):
                run_folder.set_aside(self.folder / state.job.folder)

    def request_stop(self) -> None:
        """Tell this launch's jobs, wherever they run, to save and stop."""
        stop_file(self.folder, self.launch).parent.mkdir(exist_ok=True)
        stop_file(self.folder, self.launch).touch()

    def wait(self, *, for_others: bool) -> None:
        """Wait until none of the jobs is running: none that this launch started, or none at all."""
        while any(self._is_running(self.folder / job.folder, for_others) for job in self._jobs.values()):
            time.sleep(_LOOK_SECONDS / 4)

    def _is_running(self, folder: Path, by_others: bool) -> bool:
        if not results.is_in_use(folder):
            return False
        try:
            return by_others or results.read(folder, "sweep").get("launch") == self.launch
        except ValueError:  # it has just begun
            return True

    @contextmanager
    def watched(self, show: Callable[[Sequence[State]], None]) -> Iterator[None]:
        """Keep the index true while the block lasts, and show what has become of the jobs, once a second."""
        ended = threading.Event()

        def look() -> None:
            with suppress(OSError), self._index():  # a full disk must not end what shows that it is full
                pass
            show(self.states())

        def watch() -> None:
            while not ended.wait(_LOOK_SECONDS):
                look()

        watcher = threading.Thread(target=watch, daemon=True)
        look()
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            look()

    @contextmanager
    def _index(self) -> Iterator[dict[int, Job]]:
        """Read sweep.json, let the jobs in it be changed, and write it with what has become of them.

        Raises:
            ValueError: a job's folder is not in the sweep's.
        """
        path = self.folder / FILE
        with FileLock(self.folder / f".{FILE}.lock"):
            jobs = _jobs(path)
            for job in jobs.values():
                inside(self.folder, job.folder)
            yield jobs
            index = {
                "schema_version": SCHEMA_VERSION,
                "name": self.folder.name,
                "command": self.command,
                "jobs": [_entry(self._state(number, job)) for number, job in sorted(jobs.items())],
            }
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(index, indent=2) + "\n")

    def _state(self, number: int, job: Job) -> State:
        folder = self.folder / job.folder
        try:
            changed = (folder / results.FILE).stat().st_mtime_ns
        except FileNotFoundError:
            return State(number, job, "running" if results.is_in_use(folder) else "waiting")
        except OSError as error:
            return State(number, job, "failed", error=f"{folder}: {error.strerror}")
        seen = self._seen.get(job.folder)
        if seen is not None and seen[0] == changed and seen[1].job == job:
            return seen[1]
        try:
            run = results.read(folder, "sweep")
        except ValueError as error:
            return State(number, job, "failed", error=str(error))
        status = run["status"]
        untested = status == "completed" and job.trial is None and "test" not in run.get("metrics", {})
        if run.get("key") != job.key and run.get("launch") == self.launch:
            changed_code = f"the code has changed since the sweep began: this is of {run.get('code_version')}"
            return State(number, job, "waiting", error=changed_code, launch=self.launch)
        if run.get("key") != job.key or untested or (job.stale and run.get("wandb_id") == job.stale):
            return State(number, job, "waiting")
        measure, chosen_by = run.get("measure", "acc"), run.get("epochs", {}).get("monitor", "val/acc")
        epoch, val_acc = _progress(folder / "metrics.csv", chosen_by, f"val/{measure}")
        if status == "completed":
            val_acc = run.get("metrics", {}).get("val", {}).get("best", {}).get(measure, val_acc)
        if status == "pruned" and job.part is not None and epoch < epochs_of(job.part, planned_epochs(run)):
            return State(number, job, "waiting", epoch=epoch, val_acc=val_acc, measure=measure)
        state = State(
            number,
            job,
            status,
            seconds=_seconds(run),
            epoch=epoch,
            val_acc=val_acc,
            measure=measure,
            error=run.get("error"),
            log_tail=() if status == "completed" else run_folder.log_tail(folder),
            launch=run.get("launch"),
        )
        if status != "running":
            self._seen[job.folder] = changed, state
        return state


def placed(folder: Path, jobs: Sequence[Job]) -> list[Job]:
    """The same jobs, in the folders that earlier launches gave them: names depend on what was swept.

    Args:
        folder: the sweep's.
        jobs: of a launch that begins.
    """
    known = [job for job in _jobs(folder / FILE).values() if job.trial is None]
    by_key = {job.key: job.folder for job in known}
    by_words = {job.overrides: job.folder for job in known}  # what they say may have changed: data, code, a yaml file
    taken = {by_key[job.key] for job in jobs if job.key in by_key}
    found = []
    for job in jobs:
        same_words = by_words.get(job.overrides, job.folder)
        place = by_key.get(job.key) or (job.folder if same_words in taken else same_words)
        taken.add(place)
        found.append(replace(job, folder=place))
    return found


def without_gain(folder: Path) -> dict[Path, Path]:
    """The completed runs of a sweep whose trackers were not told their gain, and the folders of their controls.

    They are those that were done before their control was.
    """
    late: dict[Path, tuple[object, ...]] = {}
    controls: dict[tuple[object, ...], Path] = {}
    for job in _jobs(folder / FILE).values():
        try:
            place = inside(folder, job.folder)
            run = results.read(place, "sweep")
        except ValueError:  # not begun, or damaged
            continue
        if run["status"] != "completed" or "best" not in run["metrics"].get("test", {}):
            continue
        tracking = run.get("tracking", {})
        of_search = (fingerprint(job.tuned), run["seed"]) if job.tuned else None  # its control has its own recipe
        family = of_search or run["control_fingerprint"], run.get("data_content")
        if run["is_control"]:
            controls[family] = place
        elif tracking.get("location") and tracking.get("control", "") is None:
            late[place] = family
    return {place: controls[family] for place, family in late.items() if family in controls}


def link_wandb(folder: Path) -> Path | None:
    """Bring the offline W&B runs of a sweep's jobs together, by links in one folder, which ``wandb leet`` can show.

    Returns:
        The folder; None where there are none, or the file system has no links.
    """
    together = folder / _WANDB
    with suppress(OSError):
        for link in together.glob("*"):
            if not link.exists():  # of a run that was set aside
                link.unlink()
        for job in _jobs(folder / FILE).values():
            for run in sorted((folder / job.folder / "wandb").glob("offline-run-*")):
                together.mkdir(exist_ok=True)
                link = together / run.name
                if not link.is_symlink():
                    link.symlink_to(Path("..", job.folder, "wandb", run.name), target_is_directory=True)
    return together if together.is_dir() else None


def stop_file(folder: Path, launch: str) -> Path:
    """Exists when the jobs of a launch are to stop: a file, so that it is seen wherever they run."""
    return folder / ".stop" / launch


def _jobs(index: Path) -> dict[int, Job]:
    """The jobs in an index; none when there is no such file.

    Of a damaged one they are those that can be read; who runs a sweep knows its own jobs. It is kept beside.
    """
    try:
        entries = list(read_json(index)["jobs"])
        is_damaged = False
    except (ValueError, LookupError, TypeError):
        entries, is_damaged = [], index.exists()
    jobs = {}
    for entry in entries:
        try:
            jobs[entry["number"]] = _job(entry)
        except (LookupError, TypeError):
            is_damaged = True
    if is_damaged:
        kept = index.with_suffix(".damaged.json")
        index.replace(kept)
        log.warning(
            "%s is damaged and was moved to %s: jobs that only it tells of are in no table until a launch has "
            "them again",
            index,
            kept,
        )
    return jobs


def _job(entry: Record) -> Job:
    # An older kdexp knew no trials.
    return Job(
        tuple(upgrade_override(text) for text in entry["overrides"]),
        entry["folder"],
        entry["key"],
        entry["epochs"],
        entry.get("trial"),
        entry.get("tuned"),
        entry.get("stale"),
        entry.get("part"),
    )


def _entry(state: State) -> Record:
    entry = asdict(state)
    job, value = entry.pop("job"), f"val_{entry.pop('measure') or 'acc'}"
    named = {value if name == "val_acc" else name: known for name, known in entry.items() if name != "number"}
    return {"number": state.number, **job, **named}


def _progress(table: Path, chosen_by: str, shown: str) -> tuple[int, float | None]:
    """Epochs done, and the value of one column in the epoch that another one would choose, by metrics.csv."""
    try:
        with table.open() as file:
            rows = [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, csv.Error):  # there is none yet, or it is damaged
        return 0, None
    return len(rows), best_epoch(rows, chosen_by).get(shown)


def _seconds(run: Record) -> float | None:
    if run["status"] != "running" and "ended" not in run:
        return None
    try:
        ended = datetime.fromisoformat(run["ended"]) if "ended" in run else datetime.now(UTC)
        return (ended - datetime.fromisoformat(run["started"])).total_seconds()
    except (LookupError, ValueError, TypeError):  # somebody else wrote it
        return None
