"""Runs put in order: grouped over seeds, each group against its control, and the one that validation chooses."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from kdexp.config.identity import RUN_ONLY, Identity, fingerprint, is_for_controls
from kdexp.naming import counted, short_values
from kdexp.report import glossary
from kdexp.report.run_group import RunGroup
from kdexp.report.runs import DATA, Run, find, read_reports
from kdexp.report.statistics import Estimate, Paired, paired, wilson
from kdexp.results import Record

log = logging.getLogger(__name__)

# Chosen options and the equation's own numbers stand first, in this order.
_FIRST_AXES = ("dataset", "teacher", "student", "loss", "feature_loss", "alpha", "temperature")
# Where and how a run is done or watched, presets that show in what they set, the seed, which is grouped over, and the
# data, which are told apart where the settings are the same.
_NO_AXES = (*RUN_ONLY, "experiment", "sweep", "distillation", "seed", DATA)


class Comparison:
    """What a table or a page of several runs shows.

    Args:
        runs: to compare, however they ended.
        sort: ``val/METRIC``, ``test/METRIC``, ``test_last/METRIC`` (descending; ascending where lower is better),
            ``gain``, or a config key. Equals, and all of them by ``val/MEASURE`` or None, are in the order of `ranked`.
        acceptable: why what was lost is acceptable, in place of what the runs say; None: what they say.

    Raises:
        ValueError: nothing has the metric or the config key to sort by, or the runs are compared by several metrics.

    Attributes:
        runs: all of them.
        acceptable: see above.
        measure: the metric that they are compared by, see `kdexp.contracts.Task.measure`.
        axes: the config keys that differ, the chosen options first.
        groups: of completed runs, sorted, controls first.
        ranked: the distilled ones in the order in which they would be chosen (see `order_of_choice`): the winner first,
            and those with fewer seeds last.
        repeated: completed runs that a later one of the same configuration and seed replaced.
        is_quick: whether all are of ``quick=true``: no conclusion is drawn of them. Beside real runs they are left out.
    """

    def __init__(self, runs: Sequence[Run], sort: str | None = None, acceptable: str | None = None) -> None:
        self.runs, self.acceptable = list(runs), acceptable
        quick = [run for run in self.runs if run.settings.get("quick")]
        self.is_quick = bool(quick) and len(quick) == len(self.runs)
        if quick and not self.is_quick:
            count = counted(len(quick), "run")
            log.warning("warning: quick=true: left out, since their numbers mean nothing: %s", count)
            self.runs = [run for run in self.runs if run not in quick]
        self.measure = _measure(self.runs)
        seeded = _following_the_seed(self.completed)
        groups: dict[tuple[str, str], dict[int, Run]] = {}
        self.repeated: list[Run] = []
        # The control of a search has a recipe of its own.
        unlike = [seeded | set(run.tuned.get("control_settings", ())) for run in self.completed]
        seedless = [_without(run.results["config"], names) for run, names in zip(self.completed, unlike, strict=True)]
        of_settings = [
            Identity(config).control_fingerprint + (fingerprint([run.folder.parent, run.tuned]) if run.tuned else "")
            for run, config in zip(self.completed, seedless, strict=True)
        ]
        families = _by_data(self.completed, of_settings)
        for run, config, family in zip(self.completed, seedless, families, strict=True):
            key = "control" if run.is_control else Identity(config).fingerprint
            seeds = groups.setdefault((family, key), {})
            if run.seed in seeds:
                self.repeated.append(seeds[run.seed])
            seeds[run.seed] = run
        firsts = {key: next(iter(seeds.values())) for key, seeds in groups.items()}
        self.axes = _axes(list(firsts.values()), seeded)
        if families != of_settings:
            self.axes.append(DATA)  # nothing else tells them apart, nor why a group has no control
        found = [
            RunGroup(label, axes, [seeds[seed] for seed in sorted(seeds)], key[0], groups.get((key[0], "control"), {}))
            for (key, seeds), (label, axes) in zip(
                groups.items(), _described(list(firsts.values()), self.axes), strict=True
            )
        ]
        self.ranked = _in_order_of_choice([group for group in found if not group.is_control])
        self.groups = [*sorted((group for group in found if group.is_control), key=_merit), *self.ranked]
        by_choice = f"val/{self.measure}"
        order = _sort_key(sort or by_choice, found)
        if sort not in (None, by_choice):
            self.groups.sort(key=order)

    @cached_property
    def completed(self) -> list[Run]:
        """The runs that have metrics."""
        return [run for run in self.runs if run.completed]

    @cached_property
    def failed(self) -> list[Run]:
        """The runs that should have metrics and have none; a search that prunes a trial does not want any."""
        return [run for run in self.runs if not run.completed and run.status != "pruned"]

    @cached_property
    def controls(self) -> list[RunGroup]:
        """The students trained alone: one for each student, data set and recipe."""
        return [group for group in self.groups if group.is_control]

    @cached_property
    def distilled(self) -> list[RunGroup]:
        """The groups that are no control."""
        return [group for group in self.groups if not group.is_control]

    @cached_property
    def candidates(self) -> list[RunGroup]:
        """Among which the winner is chosen: the groups with most seeds, since a mean of fewer wins by luck."""
        return [group for group in self.ranked if len(group.runs) == len(self.ranked[0].runs)]

    @property
    def winner(self) -> RunGroup | None:
        """The candidate with the best mean of the `measure` on val; of equals see `order_of_choice`.

        The test split has no part in it. The trials of a search that it did not choose were not measured on test, and
        are not chosen here. None without a distilled run.
        """
        return self.ranked[0] if self.ranked else None

    @cached_property
    def tied(self) -> list[RunGroup]:
        """The candidates with the winner's mean of the `measure` on val, the next in the order of choice first."""
        return [group for group in self.candidates[1:] if _rivals(group) == _rivals(self.candidates[0])]

    @cached_property
    def tied_in_nll(self) -> list[RunGroup]:
        """Those of `tied` that have the winner's mean validation NLL, too."""
        return [group for group in self.tied if _merit(group) == _merit(self.ranked[0])]

    def marked(self, group: RunGroup) -> str:
        """The label of a group, with a word where it is the one of several that was chosen."""
        return f"{group.label} (chosen)" if group is self.winner and len(self.ranked) > 1 else group.label

    def varies(self, axis: str) -> bool:
        """Whether the distilled groups differ in a config key."""
        return len({plain(group.axes.get(axis)) for group in self.distilled}) > 1

    @property
    def test_samples(self) -> int | None:
        """Size of the test split on which teacher, control and chosen student are shown; None where it is unknown."""
        shown = self.winner or self.control
        return shown.runs[0].results.get("samples", {}).get("test") if shown else None

    def of_teacher(self, teacher: Record) -> Estimate:
        """The `measure` on test of one of the `teachers`; of accuracy with Wilson's interval over the test samples."""
        value, samples = teacher["test"][self.measure], self.test_samples
        return Estimate(value, wilson(value, samples) if samples and self.measure == "acc" else None)

    @property
    def class_names(self) -> list[str]:
        """Names of the data set's classes, by number; their numbers where it names none."""
        shown = self.winner or self.control
        dataset = shown.runs[0].results["config"]["dataset"] if shown else {}
        return list(dataset.get("classes") or map(str, range(dataset.get("num_classes", 0))))

    @cached_property
    def control(self) -> RunGroup | None:
        """The winner's control; without a winner the control with the best mean of the `measure` on val."""
        own = [s for s in self.controls if self.winner is None or s.family == self.winner.family]
        return min(own, key=_merit, default=None)

    @cached_property
    def reports(self) -> dict[Path, Record]:
        """The robustness reports of the completed runs that have one, by run folder."""
        return read_reports(run.folder for run in self.completed)

    def reports_of(self, group: RunGroup | None) -> list[Record]:
        """The robustness reports of a group's runs, as far as they have one."""
        return [self.reports[run.folder] for run in group.runs if run.folder in self.reports] if group else []

    @cached_property
    def teachers(self) -> dict[str, Record]:
        """The teachers' names and what they can do: the winner's first."""
        first = list(self.winner.runs) if self.winner else []
        found: dict[str, Record] = {}
        for run in [*first, *self.completed]:
            teacher = run.teacher
            if teacher and teacher not in found.values():
                name = run.results.get("choices", {}).get("teacher", "teacher")
                if run.settings.get("teacher.weights") == "random":
                    name += " of random weights"
                found[name if name not in found else f"{name} ({len(found) + 1})"] = teacher
        return found


# Placebos: soft terms without the teacher's knowledge, or with nothing of it but its uncertainty.
_PLACEBOS = ("matched_smoothing", "permuted_kd", "label_smoothing", "tf_kd")
_NONE = (None, "none", "null", "[]")
"""Options of a group that may be left out, as they stand in a run's settings."""


def is_placebo(group: RunGroup) -> bool:
    """Whether a group has none of a trained teacher's knowledge of the single sample, in soft labels or features."""
    settings = group.runs[0].settings
    of_labels = str(settings.get("loss")) in _PLACEBOS and settings.get("feature_loss") in _NONE
    return of_labels or settings.get("teacher.weights") == "random"


def method(run: Run) -> list[str]:
    """What a run was distilled by, as it is typed: ``feature_loss=at alpha=1``, ``loss=kd alpha=0.1 temperature=4``.

    The soft loss and its temperature are left out where alpha leaves them no part beside the rest.
    """
    settings = run.settings
    beside = [f"{name}={settings[name]}" for name in ("feature_loss", "scheme") if settings.get(name) not in _NONE]
    is_used = settings.get("alpha") != 1 or settings.get("alpha_schedule.kind", "constant") != "constant"
    soft = ("loss", "alpha", "temperature") if is_used or not beside else ("alpha",)
    return beside + [f"{name}={plain(settings.get(name))}" for name in soft]


def of_sweep(folder: Path) -> Comparison:
    """The runs of a sweep that were measured on test: of a search those of the best trial. None without a folder."""
    found = find([folder])[0] if folder.is_dir() else []
    return Comparison([run for run in found if run.metric(run.measure) is not None])


def teachers_part(comparison: Comparison) -> Iterator[tuple[RunGroup, RunGroup, Paired]]:
    """Each taught group beside each whose soft labels have none of the teacher's knowledge, with the same control.

    Yields:
        (taught, placebo, the measure on test of the first less the second's, paired by seed).
    """
    for taught in comparison.distilled:
        for other in comparison.distilled:
            kinds = [is_placebo(group) for group in (taught, other)]
            if kinds != [False, True] or taught.family != other.family:
                continue
            found = {run.seed: run.metric(run.measure) for run in other.runs}
            better = glossary.known(taught.measure).gain
            pairs = [(run.metric(run.measure), found.get(run.seed)) for run in taught.runs]
            gain = paired([better(own, theirs) for own, theirs in pairs if own is not None and theirs is not None])
            if gain is not None:
                yield taught, other, gain


def order_of_choice(value: float | None, nll: float | None, *, less_is_better: bool = False) -> tuple[float, float]:
    """The rule by which configurations, and the trials of a search, are chosen: sorts the best first.

    The best validation metric; of equals the lowest validation NLL; of these the first, on the command line or among
    the trials. Both are taken to 12 digits, since means that are equal on paper differ in the last bits.

    Args:
        value: of the metric that is chosen by, on val (mean over seeds); None: unknown, and last.
        nll: on val (mean over seeds); None: unknown, and last.
        less_is_better: of the metric.
    """

    def rounded(number: float | None) -> float:
        return math.inf if number is None or math.isnan(number) else round(number, 12)

    return rounded(value if less_is_better or value is None else -value), rounded(nll)


def _merit(group: RunGroup) -> tuple[float, float]:
    is_less = glossary.known(group.measure).lower_is_better
    return order_of_choice(group.mean(group.measure, "val"), group.mean("nll", "val"), less_is_better=is_less)


def _in_order_of_choice(distilled: Sequence[RunGroup]) -> list[RunGroup]:
    most = max((len(group.runs) for group in distilled), default=0)
    # What was not measured on test is a trial that a search did not choose.
    return sorted(distilled, key=lambda s: (len(s.runs) < most, not s.values(s.measure), _merit(s)))


def _rivals(group: RunGroup) -> tuple[bool, float]:
    """Equal for groups that nothing but NLL and their order part."""
    return bool(group.values(group.measure)), _merit(group)[0]


def _measure(runs: Sequence[Run]) -> str:
    """The metric that runs are compared by: of those that are completed; without one of any that says it."""
    found: dict[str, object] = {}
    for run in (run for run in runs if run.completed):
        found.setdefault(run.measure, run.settings.get("dataset"))
    if len(found) > 1:
        several = ", ".join(f"{name} of dataset={dataset}" for name, dataset in found.items())
        one = next(iter(found.values()))
        raise ValueError(
            f"runs must be of one metric to be compared, got {several}; kdexp-compare where=dataset={one} takes one"
        )
    return next(iter(found), next((run.measure for run in runs if "measure" in run.results), "acc"))


def _following_the_seed(runs: Sequence[Run]) -> set[str]:
    """Settings that always are the seed itself, as dataset.subset_seed is unless it is given, and ``seed``."""
    names = {name for run in runs for name in run.settings if name.endswith("seed")}
    return {name for name in names if all(run.settings.get(name, run.seed) == run.seed for run in runs)}


def _without(node: Record, names: set[str], prefix: str = "") -> Record:
    return {
        key: _without(value, names, f"{prefix}{key}.") if isinstance(value, Mapping) else value
        for key, value in node.items()
        if f"{prefix}{key}" not in names
    }


def _by_data(runs: Sequence[Run], families: Sequence[str]) -> list[str]:
    """Families apart that had other data under the same settings: files that changed where they lie."""
    known: dict[str, set[str]] = {}
    for run, family in zip(runs, families, strict=True):
        known.setdefault(family, set()).update({run.settings[DATA]} if DATA in run.settings else ())
    return [
        f"{family} {run.settings.get(DATA)}" if len(known[family]) > 1 else family
        for run, family in zip(runs, families, strict=True)
    ]


def _axes(runs: Sequence[Run], seeded: set[str]) -> list[str]:
    """What the runs, one a group, differ in: as few config keys as tell them apart, and all that were swept by name."""
    names = {name for run in runs for name in run.settings if name.split(".")[0] not in _NO_AXES}
    names -= {name for name in names if name.endswith((".data_dir", ".download"))} | seeded
    varying = [
        name for name in sorted(names) if len({str(r.settings.get(name)) for r in runs if depends_on(r, name)}) > 1
    ]
    typed = {override.lstrip("+~").partition("=")[0] for run in runs for override in run.results["overrides"]}
    axes = [name for name in _FIRST_AXES if name in varying]
    axes += [name for name in varying if name in typed and name not in _FIRST_AXES]
    # A chosen option changes many keys below it; such a one is an axis only where the axes so far do not tell it.
    for name in varying:
        known: dict[tuple[str, ...], str] = {}
        for run in runs:
            place = (str(run.is_control), *(str(run.settings.get(axis)) for axis in axes if depends_on(run, axis)))
            value = str(run.settings.get(name))
            if depends_on(run, name) and name not in axes and known.setdefault(place, value) != value:
                axes.append(name)
    return axes


def depends_on(run: Run, name: str) -> bool:
    """Whether a config key has a part in what a run computes."""
    return not run.is_control or is_for_controls(name)


def _described(runs: Sequence[Run], axes: Sequence[str]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """A label and the values on the axes for the first run of each group."""
    controls = [run for run in runs if run.is_control]
    texts = {
        axis: short_values(plain(run.settings.get(axis)) for run in runs if depends_on(run, axis)) for axis in axes
    }
    for run in runs:
        values = {axis: run.settings.get(axis) for axis in axes if depends_on(run, axis)}
        shown = list(values)
        if run.is_control:
            shown = [a for a in values if len({str(control.settings.get(a)) for control in controls}) > 1]
        words = [f"{axis}={texts[axis][plain(values[axis])]}" for axis in shown]
        searched = run.tuned.get("control_settings" if run.is_control else "settings", ())  # the whole point
        names = [name.lstrip("+") for name in searched if name.lstrip("+") not in shown]
        words += [f"{name}={plain(run.settings.get(name))}" for name in names]
        if not (words or run.is_control):  # the only group
            words = [word for word in method(run) if word != "loss=kd"]
        yield " ".join((["control"] if run.is_control else []) + words), values


def plain(value: object) -> str:
    """A config value as a person writes it: 4 for 4.0."""
    return "-" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


SortKey = tuple[bool, bool, bool, float | str]
"""Whether a group is no control, has no value, has one in words; and the value."""


def _sort_key(sort: str, groups: Sequence[RunGroup]) -> Callable[[RunGroup], SortKey]:
    where, _, name = sort.partition("/")
    split, _, epoch = where.partition("_")

    def key(group: RunGroup) -> float | str | None:
        if sort == "gain":
            return None if group.mean_gain is None else -group.mean_gain
        if split in ("val", "test"):
            value = group.mean(name, split, epoch or "best")
            return value if value is None or glossary.known(name).lower_is_better else -value
        value = group.runs[0].settings.get(sort)
        return value if value is None or isinstance(value, int | float) else str(value)

    if groups and all(key(group) is None for group in groups) and sort != "gain":
        raise ValueError(f"sort must be gain, val/METRIC, test/METRIC or a setting of a run, got {sort}")

    def full(group: RunGroup) -> SortKey:
        value = key(group)
        return (not group.is_control, value is None, isinstance(value, str), value if value is not None else 0)

    return full
