"""What do teacher, control and student make of the same test images, and what do they make up?"""

import io
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from kdexp.report import image_examples
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Picture, Section
from kdexp.report.image_examples import ImageExamples
from kdexp.report.png_figures.drawing import write_png
from kdexp.report.png_figures.images import images_figure, rows_of
from kdexp.report.run_group import RunGroup


def sections(comparison: Comparison) -> Iterator[Section]:
    """The picture, where the runs keep examples."""
    if (section := _section(comparison)) is not None:
        yield section


def png(comparison: Comparison) -> bytes | None:
    """The picture as a file; None where the runs keep no examples."""
    section = _section(comparison)
    return section.picture.png if section is not None and section.picture is not None else None


@lru_cache(maxsize=1)  # the page and the file have the same picture
def _section(comparison: Comparison) -> Section | None:
    unread: list[str] = []
    seed, examples = _examples(comparison, unread)
    if examples is None and not unread:
        return None
    lead = "No run keeps examples that can be shown."
    if examples is not None:
        lead = (
            "Test images, what the networks make of them, and what they decode from the same points drawn from "
            f"N(0, I), at the best epoch by validation, seed {seed}."
        )
    lead = "\n".join([lead, *(f"left out: {line}" for line in unread)])
    return Section("images", "Test images, and images made up", lead, picture=_picture(examples), wide=True)


def _examples(comparison: Comparison, unread: list[str]) -> tuple[int | None, ImageExamples | None]:
    """Those of the chosen configuration and its control, of the first seed that both have; and that seed."""
    control = _by_seed(comparison.control, unread)
    winner = _by_seed(comparison.winner, unread)
    for seed, own in winner.items():
        if seed in control and np.array_equal(own.images, control[seed].images):
            return seed, own.with_control(control[seed])
    return next(iter((winner or control).items()), (None, None))


def _by_seed(group: RunGroup | None, unread: list[str]) -> dict[int, ImageExamples]:
    found = {}
    for run in group.runs if group else ():
        try:
            examples = image_examples.read(run.folder)
        except ValueError as error:
            unread.append(str(error))
            continue
        if examples is not None:
            found[run.seed] = examples
    return found


def _picture(examples: ImageExamples | None) -> Picture | None:
    if examples is None:
        return None
    file = io.BytesIO()
    write_png(images_figure(examples), file)
    rows = ", ".join(rows_of(examples))
    return Picture(rows.capitalize(), f"A row each: {rows}.", file.getvalue())
