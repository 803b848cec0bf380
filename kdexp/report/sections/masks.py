"""What do teacher, control and student make of the same test images?"""

import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache

from kdexp.report import mask_examples
from kdexp.report.comparison import Comparison
from kdexp.report.elements import Picture, Section
from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.drawing import write_png
from kdexp.report.png_figures.masks import masks_figure, score
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


def _examples(comparison: Comparison, unread: list[str]) -> tuple[int | None, list[MaskExample]]:
    """Those of the chosen configuration and its control, of the first seed that both have; and that seed."""
    control = _by_seed(comparison, comparison.control, unread)
    winner = _by_seed(comparison, comparison.winner, unread)
    for seed, own in winner.items():
        alone = control.get(seed, [])
        if len(alone) == len(own) and all(map(MaskExample.shows_the_same_as, own, alone)):
            return seed, [_beside(one, other) for one, other in zip(own, alone, strict=True)]
    found = winner or control
    return next(iter(found.items()), (None, []))


def _by_seed(comparison: Comparison, group: RunGroup | None, unread: list[str]) -> dict[int, list[MaskExample]]:
    found = {}
    for run in group.runs if group else ():
        try:
            examples = mask_examples.read(run.folder, len(comparison.class_names))
        except ValueError as error:
            unread.append(str(error))
            continue
        if examples:
            found[run.seed] = examples
    return found


def _beside(own: MaskExample, control: MaskExample) -> MaskExample:
    """The control's mask between the teacher's and the student's."""
    student = own.predictions["student"]
    taught = {name: mask for name, mask in own.predictions.items() if name != "student"}
    return replace(own, predictions={**taught, "control": control.predictions["student"], "student": student})


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
