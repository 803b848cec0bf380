"""Images that a run keeps, and the picture of them; the file may be somebody else's."""

import re

import numpy as np
import pytest
from matplotlib.image import imread

from kdexp.report import image_examples
from kdexp.report.image_examples import ImageExamples
from kdexp.report.png_figures.images import images, images_figure, rows_of


def made(seed=0, networks=("teacher", "student"), shape=(3, 1, 4, 6)):
    draw = np.random.default_rng(seed)
    of = [{name: draw.integers(0, 256, shape, np.uint8) for name in networks} for _ in range(2)]
    return ImageExamples(np.full(shape, 7, np.uint8), *of)


@pytest.mark.parametrize("networks", [("teacher", "student"), ("student",)])
def test_what_is_written_is_read_again(tmp_path, networks):
    examples = made(networks=networks)
    image_examples.write(examples, tmp_path)
    found = image_examples.read(tmp_path)
    assert np.array_equal(found.images, examples.images)
    for own, other in ((found.rebuilt, examples.rebuilt), (found.sampled, examples.sampled)):
        assert list(own) == list(networks)
        assert all(np.array_equal(own[name], other[name]) for name in networks)


def test_a_run_without_the_file_has_none(tmp_path):
    assert image_examples.read(tmp_path) is None


@pytest.mark.parametrize(("change", "message"), [
    ({"images": np.zeros((9, 1, 2, 2), np.uint8)}, "images must be 1 to 8 of (C, H, W) uint8, at most 512 a side, got"),
    ({"images": np.zeros((3, 1, 4, 600), np.uint8)}, "images must be 1 to 8 of"),
    ({"student_sampled": np.zeros((3, 1, 4, 6))}, "student_sampled must be 1 to 8 of (C, H, W) uint8"),
    ({"student_rebuilt": np.array([{}], dtype=object)}, "Object arrays cannot be loaded"),
])  # fmt: skip
def test_what_is_no_such_file_is_one_line(tmp_path, change, message):
    image_examples.write(made(), tmp_path)
    path = tmp_path / image_examples.FILE
    with np.load(path) as arrays:
        np.savez_compressed(path, **({name: arrays[name] for name in arrays} | change))
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))} must hold example images of a run: ") as refused:
        image_examples.read(tmp_path)
    assert message in str(refused.value)
    path.write_bytes(b"PK")
    with pytest.raises(ValueError, match="must hold example images of a run"):
        image_examples.read(tmp_path)


def test_the_control_stands_between_teacher_and_student():
    shown = made().with_control(made(1))
    assert list(rows_of(shown)) == [
        *("test images", "teacher, reconstructed", "control, reconstructed", "student, reconstructed"),
        *("teacher, sampled", "control, sampled", "student, sampled"),
    ]
    assert np.array_equal(shown.sampled["control"], made(1).sampled["student"])
    figure = images_figure(shown)
    assert len(figure.axes) == 7 * 3


@pytest.mark.pixels
def test_gray_and_colored_images_are_drawn_as_they_are(tmp_path):
    for channels in (1, 3):
        images(made(networks=("student",), shape=(1, channels, 4, 4)), tmp_path / "images.png")
        picture = imread(tmp_path / "images.png")[..., :3]
        assert (abs(picture - 7 / 255).max(-1) < 0.01).sum() > 5000  # the test image
