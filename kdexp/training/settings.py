"""Settings of the equation and of conf/trainer, and their rules."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from kdexp.config.require import Values, check_choice_or_auto, is_number, require
from kdexp.data.settings import Dataset
from kdexp.metrics.monitor import AUTO, DIRECTIONS, OF_IMAGES, OF_MASKS


@dataclass
class Schedule:
    """How alpha or the temperature moves over the epochs: from its top-level value to `final`."""

    kind: str = "constant"
    final: float | None = None


@dataclass
class Trainer:
    """See conf/trainer/base.yaml.

    What is ``Any`` has its rule in `check_trainer`: OmegaConf knows no union with a list, and would refuse a value of
    another one in words of its own.
    """

    accelerator: str = MISSING
    devices: Any = MISSING
    num_nodes: int = 1
    strategy: str = "auto"
    precision: str = "32-true"
    max_epochs: int = MISSING
    max_steps: int | None = None
    limit_train_batches: Any = None
    limit_val_batches: Any = None
    accumulate_grad_batches: int = 1
    gradient_clip_val: float | None = None
    sync_batchnorm: bool = False
    channels_last: Any = "auto"
    compile: Any = False
    monitor: str = "auto"
    log_every_n_steps: int = 50
    gradient_stats_every_n_steps: int = 100
    full_train_metrics: bool = False


def is_one_process(trainer: Values) -> bool:
    """Whether a training is sure to be one process on one device."""
    return (trainer["devices"], trainer["num_nodes"], trainer["strategy"]) == (1, 1, "auto")


# Keys of a loss that weigh it, and are not arguments of its constructor.
TERM_KEYS = ("weight", "warmup_epochs", "init_fraction", "weight_after_init")


def check_weights(alpha: float, temperature: float, label_smoothing: float) -> None:
    """Refuse numbers of the equation that are outside of their ranges."""
    require(0 <= alpha <= 1, "alpha", "must be in [0, 1]", alpha)
    require(not temperature <= 0, "temperature", "must be > 0", temperature)
    require(temperature < float("inf"), "temperature", "must be a finite number", temperature)
    require(0 <= label_smoothing < 1, "label_smoothing", "must be in [0, 1)", label_smoothing)


def check_schedules(alpha: Schedule, temperature: Schedule) -> None:
    """Refuse schedules that lead nowhere, or out of the range of what they move."""
    for name, schedule in (("alpha", alpha), ("temperature", temperature)):
        kinds = ("constant", "linear", "cosine")
        require(schedule.kind in kinds, f"{name}_schedule.kind", f"must be one of {', '.join(kinds)}", schedule.kind)
        if schedule.kind == "constant":
            continue
        final = schedule.final
        if final is None:
            raise ValueError(f"{name}_schedule.final is needed by kind={schedule.kind}, got {final}")
        allowed = 0 <= final <= 1 if name == "alpha" else final > 0
        require(allowed, f"{name}_schedule.final", "must be in [0, 1]" if name == "alpha" else "must be > 0", final)


def check_terms(alpha: float, loss: Values, feature_loss: Mapping[str, Values]) -> None:
    """Refuse weights of the terms, and an equation without any."""
    _check_term("loss", loss)
    for name, term in feature_loss.items():
        _check_term(f"feature_loss.{name}", term)
    counts = alpha > 0 or loss.get("weight", 1.0) > 0 or feature_loss
    require(bool(counts), "loss.weight", "must be > 0 when nothing else counts (alpha=0)", loss.get("weight"))


def _check_term(name: str, term: Values) -> None:
    for key in TERM_KEYS:
        value = term.get(key, 0)
        rule = "must be in [0, 1)" if key == "init_fraction" else "must be >= 0"
        holds = is_number(value) and value >= 0 and not (key == "init_fraction" and value >= 1)
        require(holds, f"{name}.{key}", rule, value)


def check_rate(name: str, optimizer: Values) -> None:
    """Refuse a learning rate that is no number of at least 0."""
    rate = optimizer.get("lr")
    require(rate is None or (is_number(rate) and rate >= 0), f"{name}.lr", "must be a number >= 0", rate)


PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
MANY_RANKS = "KDEXP_MANY_RANKS"
"""Environment variable: when it is set, a run may have more ranks than the machine has cores."""


def check_trainer(trainer: Trainer, optimizer: Values) -> None:
    """Refuse settings of conf/trainer."""
    for name in ("limit_train_batches", "limit_val_batches"):
        limit = getattr(trainer, name)
        batches = isinstance(limit, int) and limit >= 1
        share = isinstance(limit, float) and 0 < limit <= 1
        allowed = limit is None or batches or share
        require(allowed, f"trainer.{name}", "must be null, a number of batches or a fraction in (0, 1]", limit)
    devices = trainer.devices
    counted = devices == "auto" or (isinstance(devices, int) and devices >= 1) or not isinstance(devices, int | str)
    require(counted, "trainer.devices", "must be a number of devices, a list of them or auto", devices)
    # A machine has more cores than GPUs. Two ranks are few enough anywhere.
    most = max(os.cpu_count() or 1, 2)
    is_few = not isinstance(devices, int) or devices <= most or bool(os.environ.get(MANY_RANKS))
    rule = f"must be at most {most}, the cores of this machine (unless {MANY_RANKS}=1)"
    require(is_few or trainer.accelerator == "gpu", "trainer.devices", rule, devices)
    for name, least in (("num_nodes", 1), ("log_every_n_steps", 1), ("gradient_stats_every_n_steps", 0)):
        number = getattr(trainer, name)
        require(number >= least, f"trainer.{name}", f"must be at least {least}", number)
    clip = trainer.gradient_clip_val
    require(clip is None or clip > 0, "trainer.gradient_clip_val", "must be null or > 0", clip)
    require(trainer.max_epochs >= 1, "trainer.max_epochs", "must be at least 1", trainer.max_epochs)
    steps = trainer.max_steps
    require(steps is None or steps >= 1, "trainer.max_steps", "must be null or at least 1", steps)
    require(
        trainer.accelerator in ("auto", "cpu", "gpu"),
        "trainer.accelerator",
        "must be auto, cpu or gpu",
        trainer.accelerator,
    )
    require(
        trainer.precision in PRECISIONS,
        "trainer.precision",
        f"must be one of {', '.join(PRECISIONS)}",
        trainer.precision,
    )
    require(
        not (trainer.precision == "16-mixed" and trainer.accelerator == "cpu"),
        "trainer.precision",
        "must be 32-true or bf16-mixed with trainer.accelerator=cpu",
        trainer.precision,
    )
    unscaled = trainer.precision == "16-mixed" and clip is not None
    require(
        not (unscaled and optimizer.get("fused")),
        "optimizer.fused",
        "must be false with trainer.precision=16-mixed and trainer.gradient_clip_val",
        True,
    )
    for setting in ("channels_last", "compile"):
        check_choice_or_auto(f"trainer.{setting}", getattr(trainer, setting))
    require(
        trainer.accumulate_grad_batches >= 1,
        "trainer.accumulate_grad_batches",
        "must be at least 1",
        trainer.accumulate_grad_batches,
    )


def check_monitor_of_task(name: str, monitor: str | None, task: str, targets: str) -> None:
    """Refuse a metric that a task does not have, whose targets are ``masks``, ``images`` or ``labels``."""
    of = {"masks": OF_MASKS, "images": (*OF_IMAGES, "val/loss")}
    fits = monitor in (None, AUTO, *of["images"]) if targets == "images" else monitor not in OF_IMAGES
    fits = fits and (targets == "masks" or monitor not in OF_MASKS)
    require(fits, name, f"must be a metric of {task}", monitor)
    require(monitor in (None, AUTO, *DIRECTIONS), name, f"must be one of {', '.join(DIRECTIONS)}", monitor)


def check_monitor(name: str, monitor: str | None, dataset: Dataset, *, attacked: bool) -> None:
    """Refuse a metric that cannot choose the best epoch; a configuration of an older kdexp has none."""
    absent = {"val/robust_acc"} if not attacked else set()
    absent |= {"val/acc_top5"} if dataset.kind != "multiclass" or dataset.num_classes <= 5 else set()
    absent |= {"val/sensitivity", "val/specificity"} if dataset.kind != "binary" else set()
    known = [AUTO, *(metric for metric in DIRECTIONS if metric not in absent)]
    require(monitor is None or monitor in known, name, f"must be one of {', '.join(known)}", monitor)
