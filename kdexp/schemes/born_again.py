"""Generations of students of one architecture, each the teacher of the next."""

from collections.abc import Iterator
from dataclasses import dataclass

from kdexp.config.require import Values, is_count, require
from kdexp.data.settings import Dataset
from kdexp.schemes.base import Scheme
from kdexp.schemes.prior_run_settings import as_teacher, prior_run


@dataclass(frozen=True, kw_only=True)
class BornAgain(Scheme):
    """The first student learns from the teacher, each later one from the one before, from new initial weights.

    Furlanello et al. 2018 (arXiv 1805.04770).

    Attributes:
        generations: of students, the run's own among them; >= 2.
    """

    generations: int

    def check(self, setting: str, dataset: Dataset) -> None:
        """Check the number of generations."""
        super().check(setting, dataset)
        count = self.generations
        require(is_count(count) and count >= 2, f"{setting}.generations", "must be at least 2", count)

    def prior_runs(self, values: Values) -> Iterator[tuple[str, Values]]:
        """A run for each generation but the last, which has the run's own seed: it is paired with that control."""
        teacher = values["teacher"]
        for generation in range(1, self.generations):
            name = f"generation_{generation}"
            yield prior_run(values, name, seed=values["seed"] + generation, teacher=teacher)
            teacher = as_teacher(values, name, values["student"])
        yield "", {**values, "teacher": teacher}
