"""What do teacher, control and student make of the same test images, and what do they make up?"""

import io
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from kdexp.report import image_examples
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Picture, Section
from kdexp.report.examples_of_runs import of_first_seed
from kdexp.report.image_examples import ImageExamples
from kdexp.report.png_figures.drawing import write_png
from kdexp.report.png_figures.images import images_figure, rows_of


def sections(comparison: Comparison) -> Iterator[Section]:
    """The picture, where the runs keep examples."""
    if (section := _section(comparison)) is not None:
        yield section


@lru_cache(maxsize=1)  # the page and the file have the same picture
def _section(comparison: Comparison) -> Section | None:
    unread: list[str] = []
    seed, examples = of_first_seed(comparison, _read, unread)
    if not examples and not unread:
        return None
    lead = "No run keeps examples that can be shown."
    if examples:
        lead = (
            "Test images, what the networks make of them, and what they decode from the same points drawn from "
            f"N(0, I), at the best epoch by validation, seed {seed}."
        )
    picture = _picture(*examples) if examples else None
    lead = "\n".join([lead, *(f"left out: {line}" for line in unread)])
    return Section("images", "Test images, and images made up", lead, picture=picture, wide=True)


def _read(folder: Path) -> list[ImageExamples]:
    """Those of a run are one picture."""
    found = image_examples.read(folder)
    return [found] if found is not None else []


def _picture(examples: ImageExamples) -> Picture:
    file = io.BytesIO()
    write_png(images_figure(examples), file)
    rows = ", ".join(rows_of(examples))
    return Picture(rows.capitalize(), f"A row each: {rows}.", file.getvalue())
