import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from kdexp.contracts import UNLABELED, VOID
from kdexp.data.shapes import load


@pytest.mark.parametrize("num_classes", [2, 3, 6, 21])
@pytest.mark.parametrize("input_shape", [(3, 64, 64), (1, 33, 50), (4, 24, 16)])
def test_images_and_masks_are_of_any_size_and_every_class_is_in_both_parts(input_shape, num_classes):
    source = load(input_shape, num_classes, 40, 20)
    for n, images, masks in (
        (40, source.train_inputs, source.train_target),
        (20, source.test_inputs, source.test_target),
    ):
        assert tuple(images.shape) == (n, *input_shape)
        assert images.dtype == torch.uint8
        assert tuple(masks.shape) == (n, *input_shape[1:])
        assert masks.dtype == torch.int8
        assert masks.unique().tolist() == list(range(num_classes))
        assert 0.3 < (masks == 0).float().mean() < 0.9


def test_a_call_with_the_same_seed_makes_the_same_and_the_parts_differ():
    first, again, other = load(seed=1), load(seed=1), load(seed=2)
    assert torch.equal(first.train_inputs, again.train_inputs)
    assert torch.equal(first.test_target, again.test_target)
    assert not torch.equal(first.train_target, other.train_target)
    assert not torch.equal(first.train_target[:32], first.test_target)


def test_a_mask_is_what_the_image_shows():
    """A tree that is told the colours of single training pixels knows those of the test images."""
    source = load(num_classes=4, noise=0.03)

    def pixels(images, masks):
        return images.permute(0, 2, 3, 1).flatten(0, 2)[::37], masks.flatten()[::37]

    tree = DecisionTreeClassifier(random_state=0).fit(*pixels(source.train_inputs, source.train_target))
    x, y = pixels(source.test_inputs, source.test_target)
    foreground = y > 0
    assert tree.score(x[foreground], y[foreground]) > 0.98


def test_shapes_are_discs_squares_triangles_and_rings():
    """Of its bounding box a shape fills pi/4, all, a half, and pi/4 less the hole."""
    masks = load((1, 200, 200), 5, 60, 4).train_target
    filled = {c: [] for c in range(1, 5)}
    for mask in masks:
        for c in set(mask.unique().tolist()) - {0}:
            y, x = (mask == c).nonzero(as_tuple=True)
            box = mask[y.min() : y.max() + 1, x.min() : x.max() + 1]
            inside = min(y.min(), x.min()) > 0 and max(y.max(), x.max()) < 199
            if inside and set(box.unique().tolist()) <= {0, c}:
                filled[c].append((box == c).float().mean().item())
    for c, share in ((1, 0.785), (2, 1.0), (3, 0.5), (4, 0.785 * 0.7)):
        assert len(filled[c]) > 2
        assert torch.tensor(filled[c]).median().item() == pytest.approx(share, abs=0.05)


def test_void_is_in_both_parts_and_what_is_unlabelled_in_the_training_part():
    source = load((1, 64, 64), void_fraction=0.2, unlabeled_fraction=0.3)
    train, test = source.train_target, source.test_target
    assert (train == UNLABELED).float().mean().item() == pytest.approx(0.3, abs=0.01)
    assert (train == VOID).float().mean().item() == pytest.approx(0.2 * 0.7, abs=0.01)
    assert (test == VOID).float().mean().item() == pytest.approx(0.2, abs=0.01)
    assert (test == UNLABELED).sum() == 0


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"num_classes": 1}, "num_classes must be >= 2, background and shapes, got 1"),
        ({"void_fraction": 1.0}, "void_fraction must be in [0, 1), got 1.0"),
        ({"unlabeled_fraction": -0.1}, "unlabeled_fraction must be in [0, 1), got -0.1"),
    ],
)
def test_wrong_settings_are_refused(setting, rule):
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        load(**setting)
    assert str(caught.value) == f"dataset.source.{rule}"
