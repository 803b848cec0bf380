"""Settings of conf/tracking, of the loss statement and of a budget, and their rules."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec

from omegaconf import MISSING

from kdexp.config.require import is_number, require


@dataclass
class Tracking:
    """See conf/tracking/base.yaml."""

    tool: str = MISSING
    wandb: str = "auto"
    uri: str | None = None
    project: str = "kdexp"
    entity: str | None = None
    group: str | None = None
    name: str | None = None
    tags: list[str] = field(default_factory=list)


MOST_OF_TAG = 64
"""Characters of a tag: W&B refuses longer ones."""


def check_tracking(tracking: Tracking) -> None:
    """Refuse settings of conf/tracking that the tool would refuse later."""
    require(
        tracking.wandb in ("auto", "online", "offline", "disabled"),
        "tracking.wandb",
        "must be auto, online, offline or disabled",
        tracking.wandb,
    )
    tools = ("wandb", "tensorboard", "mlflow", "csv", "none")
    require(tracking.tool in tools, "tracking.tool", f"must be one of {', '.join(tools)}", tracking.tool)
    if tracking.tool == "wandb":  # else it says so itself, when the teacher is trained
        for tag in tracking.tags:
            require(
                1 <= len(tag) <= MOST_OF_TAG, "tracking.tags", f"must be of 1 to {MOST_OF_TAG} characters each", tag
            )
        project = tracking.project
        require(
            re.fullmatch(r"[^/\\#?%:]{1,128}", project),
            "tracking.project",
            "must be of 1 to 128 characters without / \\ # ? % :",
            project,
        )
    if tracking.tool in ("tensorboard", "mlflow") and find_spec(tracking.tool) is None:
        raise ValueError(f"tracking={tracking.tool} needs what is not installed: pip install 'kdexp[{tracking.tool}]'")


@dataclass
class LossStatement:
    """See ``loss_statement`` in conf/train.yaml; a run of before there was such a setting has no margins.

    Attributes:
        margins: metric -> the largest difference, as the metric is stored, at which it counts as kept.
        relative_margins: the same as a share of the control's mean.
        acceptable: why what was lost is acceptable, in the user's words.
    """

    margins: dict[str, float] = field(default_factory=dict)
    relative_margins: dict[str, float] = field(default_factory=dict)
    acceptable: str = ""


def check_loss_statement(statement: LossStatement) -> None:
    """Refuse margins within which nothing can lie."""
    for name in ("margins", "relative_margins"):
        margins: Mapping[str, float] = getattr(statement, name)
        for metric, margin in margins.items():
            holds = is_number(margin) and 0 < margin < float("inf")
            require(holds, f"loss_statement.{name}.{metric}", "must be a number > 0", margin)
    for metric in sorted({*statement.margins} & {*statement.relative_margins}):
        rule = f"must be left out of one of the two (~loss_statement.margins.{metric})"
        given = f"both {statement.margins[metric]} and a share of {statement.relative_margins[metric]}"
        raise ValueError(f"loss_statement.margins.{metric} {rule}, got {given}")


@dataclass
class Budget:
    """See conf/sweep/budget.yaml; without it all are null."""

    bytes: float | None = None
    latency_ms: float | None = None
    threads: int | None = None
    robustness: str | None = None
    halving: bool | None = None


def check_budget(budget: Budget, axes: Sequence[str]) -> None:
    """The rules of conf/sweep/budget.yaml.

    Args:
        budget: as it was typed.
        axes: those of conf/robustness that each run is evaluated on and that have the measure.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    limits = {"budget.bytes": budget.bytes, "budget.latency_ms": budget.latency_ms}
    if budget.threads is None:
        others = {"budget.robustness": budget.robustness, "budget.halving": budget.halving}
        for setting, value in {**limits, **others}.items():
            require(value is None, setting, "must be null without +sweep=budget", value)
        return
    rule = "must be given with +sweep=budget, one of them or both"
    require(any(limit is not None for limit in limits.values()), " and ".join(limits), rule, "nothing")
    for setting, limit in limits.items():
        require(limit is None or 0 < limit < float("inf"), setting, "must be > 0", limit)
    require(budget.halving is not None, "budget.halving", "must be true or false", budget.halving)
    require(budget.threads >= 1, "budget.threads", "must be at least 1", budget.threads)
    known = f"one of {', '.join(axes)}" if axes else "null without robustness=NAME, of which an axis has accuracy"
    require(budget.robustness in (None, *axes), "budget.robustness", f"must be {known}", budget.robustness)
