"""The training of a student as configured."""

from omegaconf import DictConfig
from torch import nn

from kdexp.config.identity import Identity
from kdexp.config.objects import instantiate
from kdexp.data.data_module import DataModule
from kdexp.experiment.data import new_metrics
from kdexp.experiment.losses import annealed
from kdexp.metrics import monitor
from kdexp.metrics.classification import Metrics
from kdexp.schemes.base import Scheme, SchemeContext
from kdexp.training.distiller import Distiller
from kdexp.training.terms import Term


def build_distiller(
    config: DictConfig,
    scheme: Scheme,
    context: SchemeContext,
    learner: nn.Module,
    data: DataModule,
    soft_loss: Term | None,
) -> Distiller:
    """The student's training as configured.

    Args:
        config: the experiment's.
        scheme: the experiment's.
        context: what only some schemes' training takes.
        learner: the student.
        data: the student's.
        soft_loss: see `kdexp.experiment.experiment.Losses`.
    """
    training = scheme.distiller(context)(
        learner,
        instantiate(config.optimizer, "optimizer"),
        task=config.dataset.task,
        num_outputs=config.dataset.num_outputs,
        soft_loss=soft_loss,
        alpha=annealed(config.alpha, config.alpha_schedule),
        temperature=annealed(config.temperature, config.temperature_schedule),
        scheduler=instantiate(config.scheduler, "scheduler"),
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        val_metrics=new_metrics(config.dataset, data, "val", fidelity=context.teacher is not None, alone=False),
        train_metrics=Metrics(
            config.dataset.task,
            config.dataset.num_outputs,
            samples=len(data.splits.train),
            accuracy_only=not config.trainer.full_train_metrics,
        ),
        gradient_stats_every_n_steps=config.trainer.gradient_stats_every_n_steps,
        log_every_n_steps=config.trainer.log_every_n_steps,
    )
    training.monitor, training.tie_breaker = monitor.rule(
        config.trainer.get("monitor"), config.dataset, attacked=Identity(config).is_attacked
    )
    return training
