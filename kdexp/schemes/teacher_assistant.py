"""A chain of students, each the teacher of the next."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kdexp.config.require import Values
from kdexp.data.settings import Dataset
from kdexp.schemes.base import Scheme, check_networks
from kdexp.schemes.prior_run_settings import as_teacher, prior_run


@dataclass(frozen=True, kw_only=True)
class TeacherAssistant(Scheme):
    """Each assistant learns from the one before it, the first from the teacher, and the student from the last.

    Mirzadeh et al. 2020 (arXiv 1902.03393).

    Attributes:
        assistants: the settings of each assistant's network, by its name, in their order.
    """

    assistants: Mapping[str, Values]

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the assistants' outputs."""
        super().check(setting, dataset)
        check_networks(f"{setting}.assistants", self.assistants, dataset)

    def prior_runs(self, values: Values) -> Iterator[tuple[str, Values]]:
        """A run for each assistant, with the student's recipe."""
        teacher = values["teacher"]
        for name, network in self.assistants.items():
            yield prior_run(values, name, student=network, teacher=teacher)
            teacher = as_teacher(values, name, network)
        yield "", {**values, "teacher": teacher}
