from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from kdexp.contracts import ABSENT
from kdexp.data import chase_db1

load = cache(chase_db1.load)
PATIENTS = {"train": range(1, 9), "val": (9, 10), "test": range(11, 15)}


def parts(data_dir):
    source = load(data_dir)
    return {
        "train": (source.train_inputs, source.train_target),
        "val": source.val,
        "test": (source.test_inputs, source.test_target),
    }


def test_there_are_16_4_and_8_images_with_the_first_observers_masks_split_by_patient(real_data):
    folder = Path(real_data("chase_db1"))
    for part, (images, masks) in parts(str(folder)).items():
        assert images.dtype == torch.uint8
        assert masks.dtype == torch.int8
        assert masks.unique().tolist() == [ABSENT, 0, 1]
        names = [f"Image_{patient:02}{eye}" for patient in PATIENTS[part] for eye in "LR"]
        assert tuple(images.shape) == (len(names), 3, 960, 999)
        assert tuple(masks.shape) == (len(names), 960, 999)
        for image, mask, name in zip(images, masks, names, strict=True):
            with Image.open(folder / "CHASE_DB1" / f"{name}.jpg") as file:
                assert np.array_equal(image.permute(1, 2, 0), file)
            with Image.open(folder / "CHASE_DB1" / f"{name}_1stHO.png") as file:
                assert np.array_equal(mask[mask != ABSENT] == 1, np.asarray(file)[mask != ABSENT])
    assert list(load(str(folder)).classes) == ["background", "vessel"]


def test_the_field_of_view_is_one_disc(real_data):
    for _, masks in parts(real_data("chase_db1")).values():
        for field in (masks != ABSENT).numpy():
            pieces, _ = ndimage.label(field)
            assert field.sum() - np.bincount(pieces[field]).max() <= 21, "specks"
            assert ndimage.binary_fill_holes(field).sum() - field.sum() <= 20
            radius = np.sqrt(field.sum() / np.pi)
            y, x = np.nonzero(field)
            away = np.hypot(y - y.mean(), x - x.mean())
            assert 440 < radius < 470
            assert np.percentile(away, 99.9) < 1.01 * radius
            assert (away > 0.99 * radius).sum() > 0.95 * (1 - 0.99**2) * len(away)


def test_the_second_observer_agrees_with_the_first_as_published(real_data):
    """Dice 0.798 over the last 8 images, in the field of view (tasks.md, section 3.7): no mask is moved or turned."""
    folder = Path(real_data("chase_db1"))
    _, masks = parts(str(folder))["test"]
    names = [f"Image_{patient}{eye}_2ndHO.png" for patient in PATIENTS["test"] for eye in "LR"]
    other = torch.stack([torch.from_numpy(np.array(Image.open(folder / "CHASE_DB1" / name))) for name in names])
    seen = masks != ABSENT
    both = ((masks == 1) & other).sum()
    assert 2 * both / ((masks == 1).sum() + (other & seen).sum()) == pytest.approx(0.798, abs=0.001)


def test_what_is_missing_or_damaged_is_said_in_one_line(tmp_path):
    def message(error):
        with pytest.raises(error) as caught:
            chase_db1.load(str(tmp_path))
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = tmp_path / "CHASE_DB1" / "Image_01L.jpg"
    assert message(FileNotFoundError).startswith(
        "data_dir must hold CHASE_DB1/Image_01L.jpg, Image_01L_1stHO.png ... Image_14R_1stHO.png, got no "
        f"{path}: set data_dir or KDEXP_DATA_DIR; "
    )
    path.parent.mkdir()
    path.write_bytes(b"no image")
    assert message(ValueError) == f"dataset.source has the corrupt file {path}: unpack it again"
    Image.new("RGB", (960, 999)).save(path)
    assert message(ValueError).endswith("unpack it again, its height and width are (999, 960) and not (960, 999)")


@pytest.mark.parametrize("tile", [0, 961, 1.5, "large"])
def test_a_tile_that_no_image_holds_is_one_line(tile):
    with pytest.raises(ValueError, match=rf"^dataset.source.tile must be null or in \[1, 960\], got {tile}$"):
        chase_db1.load("nowhere", tile)
