"""The training of a student as configured."""

from collections.abc import Callable, Mapping
from functools import partial

from omegaconf import DictConfig
from torch import nn

from kdexp.config.compose import plain
from kdexp.config.identity import is_attacked, is_control
from kdexp.config.objects import instantiate
from kdexp.data.loading import DataModule
from kdexp.experiment.data import new_metrics
from kdexp.experiment.losses import annealed
from kdexp.metrics import monitor
from kdexp.metrics.classification import Metrics
from kdexp.robustness.attacks import PIXELS, Attack
from kdexp.schemes.adversarial import ARD, IAD, RSLAD, TRADES, AdaAD, AdversarialDistiller, PGDTraining
from kdexp.schemes.online import EMADistiller, MutualDistiller
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller
from kdexp.training.terms import Term

ADVERSARIAL: dict[str, type[AdversarialDistiller]] = {
    "pgd_at": PGDTraining,
    "trades": TRADES,
    "ard": ARD,
    "rslad": RSLAD,
    "iad": IAD,
    "adaad": AdaAD,
}


def adversarial(scheme: DictConfig, dataset: DictConfig, setting: str) -> Callable[..., Distiller]:
    """The kind of training on adversarial examples that a scheme names.

    Raises:
        ValueError: an attack that makes no sense.
    """
    settings = plain(scheme)
    is_image = len(dataset.input_shape) == 3
    try:
        attack = Attack(**settings.pop("attack"), bounds=PIXELS if is_image else None)
    except ValueError as error:
        raise ValueError(f"{setting}.attack: {error}") from error
    mean, std = (list(dataset.mean), list(dataset.std)) if is_image else ([0.0], [1.0])
    return partial(ADVERSARIAL[settings.pop("name")], attack=attack, mean=mean, std=std, **settings)


def build_distiller(
    config: DictConfig,
    learner: nn.Module,
    frozen: Teacher | None,
    data: DataModule,
    soft_loss: Term | None,
    features: Mapping[str, Term],
    peers: Mapping[str, nn.Module],
) -> Distiller:
    """The student's training as configured.

    Args:
        config: the experiment's.
        learner: the student.
        frozen: the teacher.
        data: the student's.
        soft_loss: see `kdexp.experiment.experiment.Losses`.
        features: likewise.
        peers: the other students of ``scheme=mutual``.
    """
    scheme = "" if is_control(config) else config.scheme.get("name")
    kind: Callable[..., Distiller] = partial(Distiller, teacher=frozen, feature_losses=features)
    if scheme == "ema":
        kind = partial(EMADistiller, decay=config.scheme.decay)
    elif scheme == "mutual":
        kind = partial(MutualDistiller, peers=peers)
    elif scheme in ADVERSARIAL:
        kind = partial(adversarial(config.scheme, config.dataset, "scheme"), teacher=frozen)
    training = kind(
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
        val_metrics=new_metrics(config.dataset, data, "val", fidelity=frozen is not None, alone=False),
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
        config.trainer.get("monitor"), config.dataset, attacked=is_attacked(config)
    )
    return training
