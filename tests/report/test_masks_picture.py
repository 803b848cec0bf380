import matplotlib
import numpy as np
import pytest
from matplotlib.image import imread

from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.masks import masks, masks_figure

BLACK, WHITE, FALSE_POSITIVE, MISSED = (0, 0, 0), (255, 255, 255), (213, 94, 0), (86, 180, 233)
NO_LABEL, ROAD, CAR = (140, 140, 140), (0, 114, 178), (213, 94, 0)

pytestmark = pytest.mark.pixels


def drawn(examples, classes):
    """The pictures in their order, as uint8, and all that is written."""
    figure = masks_figure(examples, classes)
    pictures = [np.asarray(axes.images[0].get_array()) for axes in figure.axes]
    pictures = [np.round(255 * picture) if picture.dtype == float else picture for picture in pictures]
    return pictures, [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def colors(picture):
    return [tuple(int(value) for value in pixel) for pixel in picture.reshape(-1, 3)]


def test_errors_of_a_binary_mask_have_a_color_each():
    truth, mask = np.array([[0, 1, 0, 1, -3]]), np.array([[0, 1, 1, 0, 1]])
    example = MaskExample(7, np.zeros((1, 1, 5), np.uint8), truth, {"teacher": truth.clip(0), "student": mask})
    (_, of_truth, teacher, student), written = drawn([example], ["background", "vessel"])
    assert colors(of_truth) == colors(teacher) == [BLACK, WHITE, BLACK, WHITE, NO_LABEL]
    assert colors(student) == [BLACK, WHITE, FALSE_POSITIVE, MISSED, NO_LABEL]
    assert {"test image 7", "image", "truth", "teacher", "student"} <= set(written)
    assert {"Dice 100.0 %", "Dice 50.0 %"} <= set(written)  # one pixel right, one missed, one too many
    assert {"vessel", "false positive", "missed", "background", "no label"} <= set(written)


def test_of_several_classes_the_right_one_is_pale_and_an_error_has_the_color_of_what_was_said():
    truth, mask = np.array([[0, 1, 1, -2]]), np.array([[0, 1, 0, 2]])
    example = MaskExample(7, np.zeros((3, 1, 4), np.uint8), truth, {"student": mask})
    (_, of_truth, student), written = drawn([example], ["road", "car", "sky"])

    def pale(color):
        return tuple(int(np.rint(value + 0.7 * (255 - value))) for value in color)

    np.testing.assert_allclose(colors(of_truth), [pale(ROAD), pale(CAR), pale(CAR), NO_LABEL], atol=1)
    np.testing.assert_allclose(colors(student), [pale(ROAD), pale(CAR), ROAD, NO_LABEL], atol=1)
    assert {"road", "car", "sky", "no label", "pixel error 33.3 %"} <= set(written)


def test_an_image_is_shown_in_its_colors_or_in_gray():
    truth = np.zeros((2, 3), int)
    image = np.arange(18, dtype=np.uint8).reshape(3, 2, 3)
    examples = [MaskExample(7, image, truth, {}), MaskExample(7, image[:1], truth, {})]
    (rgb, _, gray, _), written = drawn(examples, ["no", "yes"])
    assert np.array_equal(rgb, image.transpose(1, 2, 0))
    assert np.array_equal(gray, np.stack([image[0]] * 3, -1))
    assert "no label" not in written


def test_a_mask_without_any_label_is_all_gray():
    truth = np.full((2, 3), -1)
    example = MaskExample(7, np.zeros((3, 2, 3), np.uint8), truth, {"student": truth + 2})
    (_, _, student), written = drawn([example], ["no", "yes"])
    assert set(colors(student)) == {NO_LABEL}
    assert written.count("no label") == 2


@pytest.mark.parametrize("names", [(), ("teacher", "control", "student")])
@pytest.mark.parametrize("classes", [2, 10, 40])
def test_it_is_a_png_of_which_nothing_is_cut_off(tmp_path, classes, names):
    rng = np.random.default_rng(0)
    truth, *predicted = rng.integers(0, classes, (1 + len(names), 40, 60))
    truth[0] = -2
    example = MaskExample(7, np.zeros((3, 40, 60), np.uint8), truth, dict(zip(names, predicted, strict=True)))
    masks([example, example], [f"a long name of {i}" for i in range(classes)], tmp_path / "figures" / "masks.png")
    picture = imread(tmp_path / "figures" / "masks.png")[..., :3]
    assert 600 < len(picture) < 1100
    assert all(edge.min() == 1 for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]))


def test_the_name_of_a_class_is_no_formula(tmp_path):
    truth = np.zeros((2, 3), int)
    names = ["$\\frac$", "$x_{$"]
    masks([MaskExample(7, np.zeros((3, 2, 3), np.uint8), truth, {"student": truth})], names, tmp_path / "masks.png")
    assert imread(tmp_path / "masks.png").size


def test_where_no_pixel_is_of_the_class_dice_is_not_defined():
    nothing = np.zeros((2, 3), int)
    _, written = drawn([MaskExample(7, np.zeros((3, 2, 3), np.uint8), nothing, {"student": nothing})], ["no", "yes"])
    assert "Dice not defined" in written
