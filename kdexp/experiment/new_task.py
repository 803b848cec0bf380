"""The task of an experiment."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.data.settings import Dataset

if TYPE_CHECKING:
    from kdexp.contracts import Task


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
