"""One training: from the data to results.json."""

from pathlib import Path

from kdexp.experiment.experiment import Experiment
from kdexp.experiment.new_metrics import new_decisions, new_examples
from kdexp.experiment.preparation import prepare
from kdexp.experiment.ranks import rank
from kdexp.experiment.run_cost import add_training_cost, timed
from kdexp.experiment.run_figures import draw_figures
from kdexp.experiment.run_robustness import robustness_of_run
from kdexp.experiment.run_tracking import begin_tracking, summarize
from kdexp.experiment.student_evaluation import EVALUATED, evaluate_student
from kdexp.experiment.trainer_settings import trainer_settings
from kdexp.results import Results
from kdexp.training.fit import Pruner, TrialPruned, fit


def distill(
    experiment: Experiment,
    folder: Path,
    record: Results,
    pruner: Pruner | None = None,
    owner: str | None = None,
) -> None:
    """Train, evaluate, export and draw; every rank calls it, rank 0 alone evaluates and writes.

    Args:
        experiment: of a checked configuration.
        folder: the run folder.
        record: results, added to as they come, so that a failure keeps what was there before it.
        pruner: of a trial of a search: it may end the training, and the test split is left alone.
        owner: identifies the training, see `kdexp.training.checkpoints.refuse_foreign`; None: the run's fingerprint
            does.

    Raises:
        ValueError: a setting that does not fit the data or the networks, or checkpoints of another run in the folder.
        FileNotFoundError: data or weights are not where the settings say.
        Diverged: see `kdexp.training.fit.fit`.
    """
    owner = owner or str(record["fingerprint"])
    evaluator = prepare(experiment, folder, record, owner=owner, is_measured=rank() == 0 and pruner is None)
    config = experiment.config
    record["epochs"]["planned"] = experiment.epochs
    module = experiment.distiller
    settings = trainer_settings(config.trainer, config.feature_loss, experiment.epochs)
    module.cache, module.teacher_on_val = experiment.cache, experiment.teacher_memory.on_val
    if rank() != 0:
        fit(module, experiment.batches, folder, settings, owner=owner, pruner=pruner)
        return
    seconds = record["cost"]["seconds"]
    tracker = begin_tracking(experiment.values["tracking"], folder, record)
    try:
        with timed(seconds, "fit"):
            fitted = fit(
                module, experiment.batches, folder, settings, owner=owner, loggers=tracker.loggers, pruner=pruner
            )
        add_training_cost(record, fitted, len(experiment.data.student.splits.train))
        record["cost"] |= experiment.cost()
        with timed(seconds, "evaluation"):
            splits, data = EVALUATED[: 2 if pruner is None else 1], experiment.data
            examples, decisions = new_examples(data), new_decisions(data)
            watchers = [each for each in (examples, decisions) if each is not None]
            curves = evaluate_student(experiment, record, fitted, folder, splits, watchers)
        if pruner is None:
            if decisions is not None:
                decisions.save(folder)
            with timed(seconds, "figures"):
                names = draw_figures(experiment, fitted.epochs, curves, examples, folder)
            summarize(tracker, folder, record, curves, names)
        if evaluator is not None:
            with timed(seconds, "robustness"):
                report = robustness_of_run(evaluator, experiment, record, folder)
            tracker.robustness(report)
    except BaseException as error:
        tracker.finish(0 if isinstance(error, TrialPruned) else 1)
        raise
    tracker.finish(0)
