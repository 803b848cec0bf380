"""Teachers that were made elsewhere, fitted to the data of an experiment."""

from pathlib import Path

from torch import nn

from kdexp.config.require import Values
from kdexp.experiment.data import Data
from kdexp.teacher import class_mapping
from kdexp.teacher.saved_outputs import SavedOutputs


def fitted(built: nn.Module, member: Values, setting: str, data: Data) -> nn.Module:
    """The same network, with its saved outputs read, where it is that, and its classes those of the data set.

    Args:
        built: a teacher's network with its weights; changed in place.
        member: its configuration, in plain values.
        setting: its name, for messages.
        data: the experiment's.

    Raises:
        ValueError: its file does not fit the data, or the mapping of its classes does not.
    """
    if isinstance(built, SavedOutputs):
        built.bind(data.student.splits, setting)
    if member.get("classes"):
        task = data.task
        count = 2 if task.kind == "binary" else task.num_outputs
        own = data.classes or list(map(str, range(count)))
        # Of a single output for yes and no the classes are two.
        outputs = max(member["num_classes"], 2 if task.kind == "binary" else 1)
        try:
            order = class_mapping.read(Path(member["classes"]), outputs, own, getattr(built, "class_names", None))
        except ValueError as error:
            raise ValueError(f"{setting}.classes {error}") from error
        class_mapping.map_classes(built, order, task.kind)
    return built
