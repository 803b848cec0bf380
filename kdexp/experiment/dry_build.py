"""What can be built before anything is trained, built once to find what is wrong; a run's own parts stay unmade."""

from pathlib import Path

import torch
from pytorch_lightning.strategies import StrategyRegistry
from torch import nn

from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.config.suggest import did_you_mean
from kdexp.config.typed import wrong_argument
from kdexp.data.settings import Dataset
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.losses import build_term
from kdexp.experiment.members import ROWS, compared_by, has_soft_term
from kdexp.experiment.networks import build_network, init_from_teacher
from kdexp.experiment.new_metrics import new_metrics


def dry_build(experiment: Experiment) -> None:
    """Build once what can be built without data, so that a wrong setting is found before a teacher is trained.

    Raises:
        ValueError: a setting that its constructor refuses.
    """
    config = experiment.config
    if config.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError("trainer.accelerator must be auto or cpu on a machine without a GPU, got gpu")
    strategies = ("auto", *StrategyRegistry.available_strategies())
    if config.trainer.strategy not in strategies:
        raise ValueError(
            f"trainer.strategy must be auto or a name that Lightning knows, got {config.trainer.strategy}"
            f"{did_you_mean(config.trainer.strategy, strategies)}"
        )
    student = experiment.new_student(pretrained=None)
    _dry_build_recipe(config.optimizer, config.scheduler, "")
    if has_soft_term(config):
        loss = build_term(config.loss).loss
        if compared_by(loss) == ROWS:
            _try_loss(loss, config.dataset)
    for setting, member in experiment.members.items():
        if member["weights"] == "auto":
            recipe = member["recipe"]
            _dry_build_recipe(recipe["optimizer"], recipe["scheduler"], f"{setting}.recipe.")
    blocks = config.student.get("init_from_teacher")
    if config.feature_loss or (blocks and experiment.members):
        setting, member = experiment.one_teacher
        teacher = build_network(member, setting, config.dataset, config.task)
        if config.feature_loss:
            experiment.new_feature_losses(student, teacher, torch.zeros(2, dtype=torch.int64))
        if blocks:
            init_from_teacher(student, teacher, blocks)


def refuse_to_fetch(experiment: Experiment, checkpoints: Path) -> None:
    """See that a run that is resumed, which may be somebody else's, needs no published weights for its students.

    Args:
        experiment: the run's.
        checkpoints: the folder of the run's.

    Raises:
        ValueError: it does, since it has no checkpoint.
    """
    config = experiment.config
    if not config.resume or any(checkpoints.glob("*.ckpt")):
        return
    peers = {f"scheme.peers.{name}": peer for name, peer in experiment.peer_settings.items()}
    students = {"student": config.student} | peers
    for name, member in students.items():
        if member.get("pretrained"):
            raise ValueError(
                f"resume must be a run with a checkpoint where {name}.pretrained=true, since nothing is downloaded "
                f"for it, got none in {checkpoints}; run its command again"
            )
        if (member.get("tokenizer") or {}).get("file"):
            rule = f"must be a run with a checkpoint where {name}.tokenizer.file is set"
            raise ValueError(f"resume {rule}, got none in {checkpoints}; run its command again")


def refuse_undefined_monitor(experiment: Experiment) -> None:
    """See that the metrics that are set to choose the best epoch exist on val; auto does without.

    Raises:
        ValueError: an AUC where a single class occurs.
    """
    chosen_by = {"trainer.monitor": experiment.config.trainer.get("monitor")}
    chosen_by |= {f"{name}.recipe.monitor": each["recipe"].get("monitor") for name, each in experiment.members.items()}
    for setting, value in chosen_by.items():
        if value == "val/auc" and not _has_auc(experiment):
            raise ValueError(f"{setting} must be defined on val, got val/auc, and only one class there")


def _has_auc(experiment: Experiment) -> bool:
    data = experiment.data
    any_logits = new_metrics(data, "val")
    shape = data.task.logits_shape(data.student.splits.val.inputs[0].shape)
    for part in torch.split(data.student.splits.val.target, 16 if data.is_dense else 4096):
        any_logits.update(torch.zeros(len(part), *shape), part)
    return "auc" in any_logits.compute()


def refuse_single_samples(experiment: Experiment) -> None:
    """See that no batch is of one sample where a network normalises over the batch; before anything is trained.

    Raises:
        ValueError: the student's or a teacher's is; or a teacher's recipe does not fit the data.
    """
    config, data = experiment.config, experiment.data
    trainer = config.trainer
    counted = isinstance(trainer.devices, int) and not trainer.sync_batchnorm
    ranks = trainer.devices * trainer.num_nodes if counted else 1
    if data.student.smallest_batch // ranks <= 1:
        students = {"student": experiment.new_student(pretrained=None)} | experiment.new_peers()
        for student in students.values():
            _refuse_single_samples(student, "dataset.batch_size", config.dataset.batch_size, config.dataset)
    for setting, member in experiment.teachers_to_be_trained().items():
        if data.for_teacher(member, setting).smallest_batch <= 1:
            built = build_network(member, setting, config.dataset, config.task)
            size = member["recipe"]["batch_size"]
            _refuse_single_samples(built, f"{setting}.recipe.batch_size", size, config.dataset)


def _refuse_single_samples(built: nn.Module, setting: str, size: int, dataset: Dataset) -> None:
    try:
        with torch.no_grad():
            built.train()(torch.zeros(1, *dataset.input_shape))
    except ValueError as error:  # batch normalisation's: of more than one number a channel it takes a single sample
        rule = "must leave at least 2 samples in each batch for a network with batch normalisation"
        raise ValueError(f"{setting} {rule}, got {size}") from error


def _try_loss(soft_loss: nn.Module, dataset: Dataset) -> None:
    """Call a loss once: what it refuses or warns of (two classes, say) is known now."""
    logits = torch.randn(2, 4, dataset.num_outputs)
    target = torch.zeros(4, dtype=torch.int64)
    if dataset.kind == "multilabel":
        target = torch.zeros(4, dataset.num_outputs)
    soft_loss(logits[0], logits[1], target)


def _dry_build_recipe(optimizer: Values, scheduler: Values, prefix: str) -> None:
    setting, new = f"{prefix}optimizer", None
    try:
        new = instantiate(optimizer, "optimizer")
        built = new([nn.Parameter(torch.zeros(1))])
        setting, new = f"{prefix}scheduler", instantiate(scheduler, "scheduler")
        new(built, total_steps=10)
    except (TypeError, ValueError) as error:
        wrong = wrong_argument(new.func, new.keywords) if new and isinstance(error, TypeError) else None
        if wrong:
            raise ValueError(f"{setting}.{wrong}") from error
        text = str(error)
        raise ValueError(prefix + text if text.startswith("scheduler.") else f"{setting}: {text}") from error
