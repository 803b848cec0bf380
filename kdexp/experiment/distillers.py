"""The training of a student as configured."""

from collections.abc import Mapping

from omegaconf import DictConfig
from torch import nn

from kdexp.config.compose import plain
from kdexp.config.identity import Identity
from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.experiment.data import Data
from kdexp.experiment.known_classes import on_known_classes
from kdexp.experiment.losses import Losses, annealed
from kdexp.experiment.new_metrics import new_metrics
from kdexp.metrics import monitor
from kdexp.schemes.base import SchemeContext, scheme_of_run
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller


def peer_settings(values: Values) -> Mapping[str, Values]:
    """The configuration of each network that learns along with the student, by its name, as the scheme says.

    Args:
        values: the experiment's configuration, in plain values.
    """
    return scheme_of_run(values).peer_settings(values["student"])


def build_distiller(
    config: DictConfig,
    data: Data,
    student: nn.Module,
    peers: Mapping[str, nn.Module],
    teacher: Teacher | None,
    losses: Losses,
) -> Distiller:
    """The student's training as configured, of the kind that the scheme says.

    Args:
        config: the experiment's.
        data: the experiment's.
        student: its network.
        peers: the networks that learn along, by name.
        teacher: the frozen one; None where there is none.
        losses: the terms of the student's loss besides the hard one.
    """
    context = SchemeContext(config.dataset, teacher, losses.features, peers)
    training = scheme_of_run(plain(config)).distiller(context)(
        student,
        instantiate(config.optimizer, "optimizer"),
        task=on_known_classes(data.task, teacher, losses.soft.loss if losses.soft is not None else None),
        soft_loss=losses.soft,
        alpha=annealed(config.alpha, config.alpha_schedule),
        temperature=annealed(config.temperature, config.temperature_schedule),
        scheduler=instantiate(config.scheduler, "scheduler"),
        seed=config.seed,
        val_metrics=new_metrics(
            data, "val", fidelity=teacher is not None and teacher.knows("val", data.student.splits.val), alone=False
        ),
        train_metrics=data.task.metrics(
            split=data.student.splits.train, of_training=not config.trainer.full_train_metrics
        ),
        gradient_stats_every_n_steps=config.trainer.gradient_stats_every_n_steps,
        log_every_n_steps=config.trainer.log_every_n_steps,
    )
    training.monitor, training.tie_breaker = monitor.rule(
        config.trainer.get("monitor"), data.task.monitor, attacked=Identity(config).is_attacked
    )
    return training
