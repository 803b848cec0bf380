"""Which task, teachers and terms a configuration has; known without torch."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from kdexp.atomic import sha256
from kdexp.config.identity import Identity
from kdexp.config.objects import instantiate, target
from kdexp.config.require import Values, require
from kdexp.data.settings import Dataset
from kdexp.teacher.settings import NO_FILES

if TYPE_CHECKING:
    from torch import nn

    from kdexp.contracts import Source, Task
    from kdexp.models.tiles import Tiles


def new_task(task: Values, dataset: "Dataset | Values", label_smoothing: float = 0.0) -> "Task":
    """What a batch becomes.

    Args:
        task: its configuration.
        dataset: that of the data set, its settings or plain values.
        label_smoothing: of the hard term: the student and a teacher that is trained each have their own.
    """
    of = dataset if isinstance(dataset, Mapping) else vars(dataset)
    built: Task = instantiate(task, "task", of["num_outputs"], of["kind"], label_smoothing)
    return built


ROWS = "rows"


def compared_by(loss_or_task: object) -> str:
    """What a soft loss compares, or what a task has to be compared: rows of logits, if nothing else is said."""
    return str(getattr(loss_or_task, "compares", ROWS))


def targets_of(task: "Task", dataset: Dataset) -> str:
    """What a task's targets are: ``images``, ``masks`` or ``labels``."""
    if "images" in task.supports:
        return "images"
    return "masks" if len(task.logits_shape(list(dataset.input_shape))) > 1 else "labels"


def with_own_targets(task: "Task", source: "Source") -> "Source":
    """The data set with the targets that a task has in place of its labels; as it is for a task without any."""
    own_targets = getattr(task, "own_targets", None)
    found: Source = source if own_targets is None else own_targets(source)
    return found


def tiles_of(task: "Task") -> "Tiles | None":
    """How networks are evaluated on large images, see `kdexp.models.tiles.tiled`; None: whole."""
    return getattr(task, "tiles", None)


def tile_large_images(network: "nn.Module", task: "Task") -> None:
    """See that a network is evaluated as its task says."""
    if (tiles := tiles_of(task)) is not None:
        from kdexp.models.tiles import evaluate_in_tiles  # here: needs torch

        evaluate_in_tiles(network, tiles)


def teacher_files(values: Values) -> dict[str, str]:
    """SHA-256 of the files that teachers' weights come from, or that they are, by the teacher's setting; those there.

    Args:
        values: a configuration, as `plain` gives it.
    """
    files = {
        setting: Path(found)
        for setting, member in teachers(values).items()
        if (found := _file_of(member)) not in NO_FILES
    }
    return {setting: sha256(file) for setting, file in files.items() if file.is_file()}


def _file_of(member: Values) -> str:
    folder = member.get("folder") if member["weights"] == "built" else None
    found: str = f"{folder}/model.safetensors" if folder else member.get("file") or member["weights"]
    return found


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
    if "members" not in values["teacher"]:
        return {"teacher": values["teacher"]}
    members = values["teacher"]["members"]
    require(members, "teacher.members", "must have a teacher at least", members)
    return {f"teacher.members.{name}": member for name, member in members.items()}
