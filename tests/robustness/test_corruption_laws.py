"""What holds for every corruption in conf/corruption."""

from difflib import SequenceMatcher

import numpy as np
import pytest
import torch
from operators import as_strings, corruptions, images, texts

from kdexp.robustness.corruption import SEVERITIES, Corruption

ALL = corruptions()

# Where the published severities do not rise in distance: glass_blur and spatter change the kind of damage between them,
# saturate goes from paler to more colourful, elastic_transform from large bends to small ones.
UNORDERED = {"glass_blur", "spatter", "saturate", "elastic_transform"}


def inputs(corruption: Corruption, n=12, size=32):
    if corruption.applies_to == "tabular":
        return torch.randn(n, 30, generator=torch.Generator().manual_seed(0))
    if corruption.applies_to == "texts":
        words = [
            "the",
            "quiet",
            "film",
            "about",
            "Vienna",
            ",",
            "which",
            "nobody",
            "had",
            "expected",
            "to",
            "be",
            "seen",
            "so",
            "often",
            "by",
            "so",
            "many",
            "people",
        ]
        return texts([" ".join(words[i % 5 :] + words[: i % 7]) for i in range(n)])
    return images(n, 3, size)


def distance(x, found):
    """Root mean square; of texts the mean share of characters that differ."""
    if x.is_floating_point():
        return (found - x).pow(2).mean().sqrt().item()
    both = zip(as_strings(x), as_strings(found), strict=True)
    return np.mean([1 - SequenceMatcher(None, *pair, autojunk=False).ratio() for pair in both])


@pytest.mark.parametrize("size", [8, 32, 72])
@pytest.mark.parametrize("name", ALL)
def test_shape_type_and_range_are_kept(name, size):
    corruption = ALL[name]
    for channels in (1, 3) if corruption.applies_to == "images" else (3,):
        x = inputs(corruption, 3, size)
        x = x[:, :channels] if x.dim() == 4 else x
        before = x.clone()
        for severity in (1, 5):
            found = corruption(x, torch.arange(3), severity=severity, seed=0)
            assert found.shape == x.shape
            assert found.dtype == x.dtype
            assert found.isfinite().all()
            if x.dim() == 4:
                assert found.min() >= 0
                assert found.max() <= 1 + 1e-6
        assert torch.equal(x, before), "the inputs are left alone"


@pytest.mark.parametrize("name", ALL)
def test_a_sample_is_a_function_of_seed_and_index(name):
    corruption, x = ALL[name], inputs(ALL[name])
    index = torch.arange(100, 112)
    whole = corruption(x, index, severity=3, seed=4)
    some = torch.tensor([7, 2, 2])
    torch.testing.assert_close(corruption(x[some], index[some], severity=3, seed=4), whole[some], atol=1e-6, rtol=0)
    random = not torch.equal(corruption(x, index, severity=3, seed=5), whole)
    same = x[:1].expand_as(x)
    others = corruption(same, index, severity=3, seed=4)
    of_its_own = not torch.allclose(others[0], others[1], atol=1e-6)
    fixed = {"gaussian_blur", "defocus_blur", "zoom_blur", "brightness", "contrast", "saturate", "pixelate",
             "jpeg_compression", "scale"}  # fmt: skip
    assert random == (name not in fixed)
    assert of_its_own == (name not in fixed | {"feature_shift"})


@pytest.mark.parametrize("size", [32, 72])
@pytest.mark.parametrize("name", ALL)
def test_severity_is_distance_from_the_clean_inputs(name, size):
    corruption = ALL[name]
    x = inputs(corruption, 12 if size == 32 else 4, size)
    index = torch.arange(len(x))
    distances = [distance(x, corruption(x, index, severity=s, seed=0)) for s in SEVERITIES]
    assert min(distances) > 1e-3
    # motion_blur's severities 3 and 4 are alike but for the cut-off of a Gaussian where it is as good as zero.
    rises = (np.diff(distances) > -1e-5).all() and distances[4] > 1.2 * distances[0]
    assert rises or name in UNORDERED, distances


def test_what_does_not_apply_is_said():
    assert ALL["fog"].why_not([30]) == "for images"
    assert ALL["missing_values"].why_not([1, 8, 8]) == "for tables"
    assert ALL["saturate"].why_not([1, 8, 8]) == "for images in colour"
    assert ALL["saturate"].why_not([3, 8, 8]) is None
    assert ALL["feature_shift"].why_not([5, 30]) is None
    assert ALL["typo_swap"].why_not([30]) == ALL["typo_swap"].why_not([3, 8, 8]) == "for texts"
    assert ALL["typo_swap"].why_not([30], is_text=True) is None
    assert ALL["missing_values"].why_not([30], is_text=True) == "for tables"
    assert ALL["fog"].why_not([30], is_text=True) == "for images"
    with pytest.raises(ValueError, match=r"^severity must be 1, 2, 3, 4 or 5, got 6$"):
        ALL["fog"](images(1), torch.arange(1), severity=6, seed=0)


def test_large_images_have_the_severities_for_large_images():
    fog = ALL["fog"]
    assert fog.parameters(1, [3, 32, 32]) == fog.parameters(1, [3, 64, 300]) == {"amount": 0.2, "decay": 3.0}
    assert fog.parameters(1, [3, 65, 65]) == {"amount": 1.5, "decay": 2.0}
    assert ALL["rotate"].parameters(2, [3, 224, 224]) == {"angle": 0.4}
