"""Which teachers a configuration has."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kdexp.atomic import sha256
from kdexp.config.identity import Identity
from kdexp.config.objects import target
from kdexp.teacher.settings import NO_FILES


def teacher_files(values: Mapping[str, Any]) -> dict[str, str]:
    """SHA-256 of the files that teachers' weights come from, by the teacher's setting; those that are there.

    Args:
        values: a configuration, as `plain` gives it.
    """
    members = teachers(OmegaConf.create(dict(values)))
    files = {setting: Path(member.weights) for setting, member in members.items() if member.weights not in NO_FILES}
    return {setting: sha256(file) for setting, file in files.items() if file.is_file()}


def has_soft_term(config: Any) -> bool:
    """Whether the student's loss has the term of conf/loss."""
    return not Identity(config).is_control and config["scheme"].get("teacher") != "none"


def teachers(config: Any) -> dict[str, Any]:
    """The setting of each teacher and its configuration: none, the one, or the members of an ensemble."""
    found = possible_teachers(config)
    if not found or not (config.feature_loss or getattr(target(config.loss, "loss"), "needs_teacher", True)):
        return {}
    return found


def possible_teachers(config: Any) -> dict[str, Any]:
    """The same whatever the loss, which may need none: to know that, its file is imported.

    None for a student that is trained alone, or by a scheme that has no teacher.
    """
    if Identity(config).is_control or config.scheme.get("teacher", "trained") != "trained":
        return {}
    members = config.teacher.get("members")
    if members:
        return {f"teacher.members.{name}": member for name, member in members.items()}
    return {"teacher": config.teacher}
