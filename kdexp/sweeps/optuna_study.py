"""A search: which points of a space are tried next, by what came of the earlier ones. Optuna's study, in a file."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import optuna
from filelock import FileLock
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner
from optuna.trial import FrozenTrial, TrialState

from kdexp import results, run_folder
from kdexp.config.identity import code_version, fingerprint, is_for_controls, is_of_recipe
from kdexp.config.require import Values
from kdexp.experiment.members import new_task
from kdexp.metrics.monitor import AUTO, DIRECTIONS, OF_IMAGES, OF_MASKS
from kdexp.report.comparison import order_of_choice

FILE = "search.db"
PRUNERS = ("median", "hyperband", "none")
METRICS = ("val/acc", "val/precision", "val/recall", "val/f1", "val/auc", "val/nll", "val/ece", *OF_MASKS, *OF_IMAGES)
"""What can be searched by. Not the loss: alpha and the temperature change what it measures."""
SETTINGS = (*METRICS, AUTO)
"""What ``hydra.sweeper.metric`` can be; auto: see `metric`."""
_SETTINGS = "settings"  # of the study: what it searches, and how
_LAUNCH, _GAVE_UP, _FOLDER, _POINT, _VAL = "launch", "gave_up", "folder", "point", "val"  # of a trial
_WORKERS = ".search"
_LOCK_SECONDS = 60.0  # for which a worker waits when another one writes to the file
optuna.logging.set_verbosity(optuna.logging.WARNING)  # what becomes of trials is said by kdexp


@dataclass(frozen=True)
class Trial:
    """One try.

    Attributes:
        number: in the study, from 0.
        id: in the study's file.
        point: setting -> value, in the words of the command line.
        folder: its run folder, in the search's; None of a new one.
        value: of the metric; None of a trial that is not completed.
        nll: on val; None of a trial that is not completed.
        status: ``running``, ``waiting`` (to be taken up by the next launch), ``completed`` or ``pruned``.
    """

    number: int
    id: int
    point: Mapping[str, str]
    folder: str | None
    value: float | None
    nll: float | None
    status: str


class Study:
    """The trials of a search, in a folder that several launches may work in at the same time.

    Suggestions are Optuna's TPE (Bergstra et al., NeurIPS 2011), each drawn with a seed of its own, which is made of
    the study's and the trial's number: with one worker they depend on nothing but what came of the trials before, and
    a study that was interrupted goes on as if it had not been.

    Args:
        folder: of the search.
        space: setting -> the values it may have.
        metric: one of METRICS.
        pruner: one of PRUNERS.
        seed: of the suggestions.
        control_of: of the study of a control, beside the other one in the same file: the values of the settings that
            only the student's study searches. Another value of those that a control feels makes it another study.

    Raises:
        ValueError: the folder holds a study of something else.
    """

    def __init__(
        self,
        folder: Path,
        space: Mapping[str, BaseDistribution],
        *,
        metric: str,
        pruner: str,
        seed: int,
        control_of: Mapping[str, str] | None = None,
    ) -> None:
        self._folder, self._space, self._metric, self._seed = folder, dict(space), metric, seed
        self._lock = FileLock(folder / f".{FILE}.lock")
        settings = describe(space, metric=metric, pruner=pruner, seed=seed)
        with self._lock:
            self._storage = _storage(folder)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=_name(control_of),
                direction=_direction(metric),
                load_if_exists=True,
            )
            known = self._study.user_attrs.get(_SETTINGS)
            if known is None:
                self._study.set_user_attr(_SETTINGS, settings)
            elif known != settings:
                changed = next(name for name in settings if settings[name] != known[name])
                raise ValueError(
                    f"sweep_name must be of a search with the same {changed}, got {folder}, where it is "
                    f"{known[changed]}"
                )

    @contextmanager
    def worker(self, launch: str) -> Iterator[None]:
        """Work on the study meanwhile; what the worker leaves unfinished is to be taken up by a later one."""
        with run_folder.alone(self._folder / _WORKERS / launch):
            try:
                yield
            finally:
                with self._lock:
                    self._release(launch)

    def ask(self, count: int, trials: int, launch: str) -> list[Trial]:
        """Trials to run: first those that workers who are gone left, then new ones.

        Args:
            count: at most so many.
            trials: how many the study may have.
            launch: who will run them.
        """
        with self._lock:
            self._release()
            asked = []
            for _ in range(count):
                known = self._study.get_trials(deepcopy=False)
                left = next((trial.number for trial in known if trial.state == TrialState.WAITING), None)
                if left is None and len(known) >= trials:
                    break
                number = len(known) if left is None else left
                self._study.sampler = optuna.samplers.TPESampler(seed=int(fingerprint([self._seed, number])[:8], 16))
                trial = self._study.ask(self._space)
                trial.set_user_attr(_LAUNCH, launch)
                point = {key: typed(value, self._space[key]) for key, value in trial.params.items()}
                trial.set_user_attr(_POINT, point)
                asked.append(trial.number)
            return [trial for trial in self.trials() if trial.number in asked]

    def place(self, trial: Trial, folder: str) -> None:
        """Note the run folder of a trial that is running."""
        self._storage.set_trial_user_attr(trial.id, _FOLDER, folder)

    def tell(self, trial: Trial, epochs: Sequence[Mapping[str, float]], metrics: Mapping[str, float] | None) -> None:
        """Close a trial.

        Args:
            trial: that was taken from the study.
            epochs: its table of epochs, of which the study may know some already.
            metrics: on val at the best epoch; None of a trial that was pruned or diverged.
        """
        _report(self._storage, self._metric, trial.id, epochs)
        value = None if metrics is None else metrics[self._metric.removeprefix("val/")]
        if metrics is None or value is None or math.isnan(value):
            self._study.tell(trial.number, state=TrialState.PRUNED)
            return
        self._storage.set_trial_user_attr(trial.id, _VAL, dict(metrics))
        self._study.tell(trial.number, value)

    def give_up(self, trial: Trial) -> None:
        """Leave a trial that failed to the next launch."""
        (launch,) = (t.user_attrs[_LAUNCH] for t in self._study.get_trials(deepcopy=False) if t.number == trial.number)
        self._storage.set_trial_user_attr(trial.id, _GAVE_UP, launch)

    def trials(self) -> list[Trial]:
        """All of them, in the order of their numbers."""
        return [self._trial(trial) for trial in self._study.get_trials(deepcopy=False)]

    def are_others_at_it(self, launch: str) -> bool:
        """Whether trials are running that another launch took, and has not given up."""
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        owners = ((trial.user_attrs.get(_LAUNCH), trial.user_attrs.get(_GAVE_UP)) for trial in running)
        return any(owner not in (launch, gave_up) for owner, gave_up in owners)

    def best(self) -> list[Trial]:
        """The completed trials, the best first: see `order_of_choice`."""
        is_less = DIRECTIONS[self._metric] == "min"
        found = [trial for trial in self.trials() if trial.status == "completed"]
        return sorted(found, key=lambda trial: order_of_choice(trial.value, trial.nll, less_is_better=is_less))

    def importance(self) -> dict[str, float]:
        """How much each setting matters to being among the better trials, as parts of one, the most important first.

        By PED-ANOVA (Watanabe et al., IJCAI 2023). Empty where there is too little to tell.
        """
        values = {trial.value for trial in self.best()}
        if len(values) < 4 or len(self._space) < 2:
            return {}
        found = optuna.importance.get_param_importances(self._study)
        return found if sum(found.values()) > 0 else {}

    def _trial(self, trial: FrozenTrial) -> Trial:
        attrs = trial.user_attrs
        point, status = attrs.get(_POINT, {}), _STATUS[trial.state]
        foreign = [name for name in point if name not in self._space]  # each is typed into a command of its own
        if foreign:
            raise ValueError(f"{FILE} must have points of {', '.join(self._space)}, got {foreign[0]}")
        is_done = status == "completed"
        value, nll = (trial.value, attrs[_VAL]["nll"]) if is_done else (None, None)
        return Trial(trial.number, trial._trial_id, point, attrs.get(_FOLDER), value, nll, status)

    def _release(self, launch: str | None = None) -> None:
        """Let trials wait for the next launch: those of one launch, or of all launches that are gone."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            owner = trial.user_attrs.get(_LAUNCH)
            is_gone = owner is None or not results.is_in_use(self._folder / _WORKERS / owner)
            if owner == launch or (launch is None and is_gone):
                self._storage.set_trial_state_values(trial._trial_id, TrialState.WAITING)


class EpochPruner:
    """What a trial asks, in the process that trains it, after each of its epochs.

    Args:
        folder: of the search.
        trial: id of the trial.
    """

    def __init__(self, folder: Path, trial: int) -> None:
        self._folder, self._trial = folder, trial
        self._study: optuna.Study | None = None

    def __call__(self, epochs: Sequence[Mapping[str, float]], planned: int) -> str | None:
        """Report the epochs; say why the trial is not worth going on, or None. What is done anyway is not pruned.

        Args:
            epochs: those that it has trained for.
            planned: how many it is to train for.
        """
        if self._study is None:
            self._study = _study_of(self._trial, _storage(self._folder))
            self._settings = self._study.user_attrs[_SETTINGS]
            self._study.pruner = _pruner(self._settings["pruner"], planned)
        metric, storage = self._settings["metric"], self._study._storage
        _report(storage, metric, self._trial, epochs)
        done = int(epochs[-1]["epoch"]) + 1
        if done == planned or not self._study.pruner.prune(self._study, storage.get_trial(self._trial)):
            return None
        return f"pruned after epoch {done} of {planned}: {metric} {epochs[-1].get(metric, math.nan):.4f}"


def metric(setting: str, values: Values) -> str:
    """The metric of METRICS that a search goes by.

    Args:
        setting: one of them, or auto: that on val which the task's runs are compared by, or where it is none of them
            what chooses their best epoch.
        values: the configuration of a run.
    """
    if setting != AUTO:
        return setting
    task = new_task(values["task"], values["dataset"])
    compared_by = f"val/{task.measure}"
    return task.monitor if compared_by not in METRICS and task.monitor in METRICS else compared_by


def describe(space: Mapping[str, BaseDistribution], *, metric: str, pruner: str, seed: int) -> dict[str, object]:
    """What makes a search another one; plain.

    The task is among what is fixed: what a metric of auto stands for makes no other search.
    """
    words = {key: distribution_to_json(values) for key, values in sorted(space.items())}
    return {"space": words, "metric": "val/acc" if metric == AUTO else metric, "pruner": pruner, "seed": seed}


def of_recipe(space: Mapping[str, BaseDistribution]) -> dict[str, BaseDistribution]:
    """What is searched for the control, too: the settings of how a student is trained, with a teacher or without."""
    return {key: values for key, values in space.items() if is_of_recipe(key.lstrip("+"))}


def typed(value: Any, values: BaseDistribution) -> str:
    """A value as a person would type it, and as it is used: six digits of a number, inside its interval."""
    if isinstance(values, FloatDistribution):
        return f"{min(max(float(f'{value:g}'), values.low), values.high)}"
    return str(value)


def ends(values: BaseDistribution) -> list[str]:
    """The least and the greatest value of a range, or every one of a choice."""
    if isinstance(values, CategoricalDistribution):
        return [str(value) for value in values.choices]
    assert isinstance(values, FloatDistribution | IntDistribution)
    return [typed(values.low, values), typed(values.high, values)]


def set_aside(folder: Path) -> None:
    """Move the studies of a search out of the way, to where its runs are moved.

    Raises:
        ValueError: a launch works on them.
    """
    if any(results.is_in_use(worker) for worker in (folder / _WORKERS).glob("*")):
        raise ValueError(f"rerun must be null while another launch works on the search, got all, in {folder}")
    if (folder / FILE).is_file():
        place = folder / results.SUPERSEDED
        place.mkdir(exist_ok=True)
        (folder / FILE).rename(place / f"{len(list(place.glob(f'*{FILE}')))}-{FILE}")


def _direction(metric: str) -> Literal["maximize", "minimize"]:
    return "maximize" if DIRECTIONS[metric] == "max" else "minimize"


def _pruner(name: str, epochs: int) -> BasePruner:
    if name == "median":
        # Below the median of the trials before, at the same epoch; not before there are five, nor in the first fifth.
        return MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 5)
    if name == "hyperband":
        return HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=3)
    return NopPruner()


def _storage(folder: Path) -> optuna.storages.BaseStorage:
    options = {"connect_args": {"timeout": _LOCK_SECONDS}}
    return optuna.storages.RDBStorage(f"sqlite:///{(folder / FILE).absolute()}", engine_kwargs=options)


def _name(control_of: Mapping[str, str] | None) -> str:
    if control_of is None:
        return code_version()
    shared = {key: value for key, value in control_of.items() if is_for_controls(key.lstrip("+"))}
    return f"{code_version()} control {fingerprint(shared)}"


def _study_of(trial: int, storage: optuna.storages.BaseStorage) -> optuna.Study:
    """The study that has a trial, by its id."""
    every = storage.get_all_studies()
    own = next(s for s in every if trial in {t._trial_id for t in storage.get_all_trials(s._study_id, deepcopy=False)})
    return optuna.load_study(study_name=own.study_name, storage=storage)


def _report(
    storage: optuna.storages.BaseStorage, metric: str, trial: int, epochs: Sequence[Mapping[str, float]]
) -> None:
    known = storage.get_trial(trial).intermediate_values
    for row in epochs:
        done = int(row["epoch"]) + 1
        if done not in known and metric in row:  # rows that were lost are rebuilt in part
            storage.set_trial_intermediate_value(trial, done, row[metric])


_STATUS = {
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
}
