"""Which teachers a configuration has."""

from pathlib import Path

from kdexp.atomic import sha256
from kdexp.config.identity import Identity
from kdexp.config.objects import target
from kdexp.config.require import Values
from kdexp.teacher.settings import NO_FILES


def teacher_files(values: Values) -> dict[str, str]:
    """SHA-256 of the files that teachers' weights come from, by the teacher's setting; those that are there.

    Args:
        values: a configuration, as `plain` gives it.
    """
    weights = {setting: member["weights"] for setting, member in teachers(values).items()}
    files = {setting: Path(file) for setting, file in weights.items() if file not in NO_FILES}
    return {setting: sha256(file) for setting, file in files.items() if file.is_file()}


def has_soft_term(values: Values) -> bool:
    """Whether the student's loss has the term of conf/loss."""
    return not Identity(values).is_control and values["scheme"].get("teacher") != "none"


def teachers(values: Values) -> dict[str, Values]:
    """The setting of each teacher and its configuration: none, the one, or the members of an ensemble."""
    found = possible_teachers(values)
    if not found or not (values["feature_loss"] or getattr(target(values["loss"], "loss"), "needs_teacher", True)):
        return {}
    return found


def possible_teachers(values: Values) -> dict[str, Values]:
    """The same whatever the loss, which may need none: to know that, its file is imported.

    None for a student that is trained alone, or by a scheme that has no teacher.
    """
    if Identity(values).is_control or values["scheme"].get("teacher", "trained") != "trained":
        return {}
    members = values["teacher"].get("members")
    if members:
        return {f"teacher.members.{name}": member for name, member in members.items()}
    return {"teacher": values["teacher"]}
