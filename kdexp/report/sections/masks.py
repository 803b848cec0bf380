"""What do teacher, control and student make of the same test images?"""

import io
from collections.abc import Iterator, Sequence
from functools import lru_cache

from kdexp.report import mask_examples
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Picture, Section
from kdexp.report.examples_of_runs import of_first_seed
from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.drawing import write_png
from kdexp.report.png_figures.masks import masks_figure, score


def sections(comparison: Comparison) -> Iterator[Section]:
    """The picture, where the runs keep examples."""
    if (section := _section(comparison)) is not None:
        yield section


@lru_cache(maxsize=1)  # the page and the file have the same picture
def _section(comparison: Comparison) -> Section | None:
    unread: list[str] = []
    seed, examples = of_first_seed(
        comparison, lambda folder: mask_examples.read(folder, len(comparison.class_names)), unread
    )
    if not examples and not unread:
        return None
    lead = "No run keeps examples that can be shown."
    if examples:
        lead = (
            f"Test images from little to much foreground (no network has a part in the choice), at the best epoch "
            f"by validation, seed {seed}. Large images are shown smaller; the numbers are of the labelled "
            "pixels shown."
        )
    picture = _picture(examples, comparison.class_names) if examples else None
    lead = "\n".join([lead, *(f"left out: {line}" for line in unread)])
    return Section("masks", "Test images and their masks", lead, picture=picture, wide=True)


def _picture(examples: Sequence[MaskExample], classes: Sequence[str]) -> Picture:
    file = io.BytesIO()
    write_png(masks_figure(examples, classes), file)
    said = (
        f"image {example.sample}: "
        + ", ".join(f"{name} {score(mask, example.truth, len(classes))}" for name, mask in example.predictions.items())
        for example in examples
    )
    columns = ", ".join(["image", "truth", *examples[0].predictions])
    return Picture(columns.capitalize(), f"Test images, a row each: {columns}. {'; '.join(said)}.", file.getvalue())
