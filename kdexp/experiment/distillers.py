"""The training of a student as configured."""

from omegaconf import DictConfig
from torch import nn

from kdexp.config.identity import Identity
from kdexp.config.objects import instantiate
from kdexp.experiment.data import Data
from kdexp.experiment.losses import annealed
from kdexp.experiment.new_metrics import new_metrics
from kdexp.metrics import monitor
from kdexp.schemes.base import Scheme, SchemeContext
from kdexp.training.distiller import Distiller
from kdexp.training.terms import Term


def build_distiller(
    config: DictConfig,
    scheme: Scheme,
    context: SchemeContext,
    student: nn.Module,
    data: Data,
    soft_loss: Term | None,
) -> Distiller:
    """The student's training as configured.

    Args:
        config: the experiment's.
        scheme: the experiment's.
        context: what only some schemes' training takes.
        student: its network.
        data: the experiment's.
        soft_loss: see `kdexp.experiment.losses.Losses`.
    """
    training = scheme.distiller(context)(
        student,
        instantiate(config.optimizer, "optimizer"),
        task=data.task,
        soft_loss=soft_loss,
        alpha=annealed(config.alpha, config.alpha_schedule),
        temperature=annealed(config.temperature, config.temperature_schedule),
        scheduler=instantiate(config.scheduler, "scheduler"),
        seed=config.seed,
        val_metrics=new_metrics(data, "val", fidelity=context.teacher is not None, alone=False),
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
