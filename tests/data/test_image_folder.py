import os

import numpy as np
import pytest
import torch
from PIL import Image

from kdexp.contracts import Splits
from kdexp.data.image_folder import load
from kdexp.data.loading import DataModule
from kdexp.data.splits import make_splits

PARTS = ("train", "val", "test")


def write(folder, parts=PARTS, classes=("cat", "dog"), n=10, size=(12, 8)):
    for part in parts:
        for c, name in enumerate(classes):
            (folder / "mine" / part / name).mkdir(parents=True)
            for i in range(n):
                colour = (100 * c, 20 * i, 250)
                Image.new("RGB", size, colour).save(folder / "mine" / part / name / f"{i}.png")
    return str(folder)


def test_images_are_found_with_their_classes_in_alphabetical_order(tmp_path):
    source = load(write(tmp_path), "mine", size=6)
    assert len(source.train_inputs) == len(source.train_target) == 20
    assert source.train_target.dtype == torch.int64
    for inputs, target in ((source.train_inputs, source.train_target), (source.test_inputs, source.test_target)):
        for i, label in enumerate(target.tolist()):
            image = inputs[i]
            assert image.dtype == torch.uint8
            assert tuple(image.shape) == (3, 6, 6)
            assert set(image[0].flatten().tolist()) == {100 * label}
    assert source.val is not None
    assert len(source.val[0]) == 20


def test_an_image_is_scaled_by_its_shorter_side_and_its_middle_kept(tmp_path):
    folder = write(tmp_path, classes=("cat",), n=1)
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16] = 255  # the middle third of a wide image
    Image.fromarray(stripes).save(tmp_path / "mine" / "train" / "cat" / "0.png")
    assert load(folder, "mine", size=8).train_inputs[0].float().mean() == 255
    assert load(folder, "mine", size=4).train_inputs[0].float().mean() > 230


def test_a_grey_image_gets_three_channels(tmp_path):
    folder = write(tmp_path, classes=("cat",), n=1)
    Image.new("L", (8, 8), 77).save(tmp_path / "mine" / "train" / "cat" / "0.png")
    assert (load(folder, "mine", size=8).train_inputs[0] == 77).all()


def test_without_a_val_folder_val_is_carved_from_train(tmp_path):
    source = load(write(tmp_path, parts=("train", "test")), "mine", size=4)
    splits = make_splits(source, task="multiclass", num_classes=2, val_fraction=0.2, split_seed=0)
    assert isinstance(splits, Splits)
    assert splits.val.target.bincount().tolist() == [2, 2]
    data = DataModule(splits, augment=[], mean=[0.0], std=[1.0], batch_size=4, eval_batch_size=3, drop_last=True,
                      seed=0)  # fmt: skip
    for batch in data.eval_batches("val", "cpu"):
        np.testing.assert_allclose(batch.inputs[:, 0, 0, 0], batch.target * 100 / 255, rtol=1e-6)


def test_a_fingerprint_changes_when_a_file_does(tmp_path):
    folder = write(tmp_path)
    first = load(folder, "mine", size=4).train_inputs.fingerprint()
    assert load(folder, "mine", size=4).train_inputs.fingerprint() == first
    assert load(folder, "mine", size=5).train_inputs.fingerprint() != first
    path = tmp_path / "mine" / "train" / "cat" / "0.png"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert load(folder, "mine", size=4).train_inputs.fingerprint() != first, "another time"
    path.write_bytes(path.read_bytes() + b" ")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(folder, "mine", size=4).train_inputs.fingerprint() != first, "another size"
    path.write_bytes(path.read_bytes()[:-1])
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert load(folder, "mine", size=4).train_inputs.fingerprint() == first
    path.rename(path.with_name("zero.png"))
    assert load(folder, "mine", size=4).train_inputs.fingerprint() != first, "another name"


def test_a_missing_folder_is_named(tmp_path):
    folder = write(tmp_path, parts=("train",))
    with pytest.raises(FileNotFoundError, match=rf"train/ and test/, got {tmp_path / 'mine'}$"):
        load(folder, "mine", size=4)


def test_parts_with_different_classes_are_refused(tmp_path):
    folder = write(tmp_path, parts=("train",))
    write(tmp_path, parts=("test",), classes=("cat", "cow"))
    with pytest.raises(ValueError, match=r"^dataset.source.root must have the same classes .* \['cow', 'dog'\] in one"):
        load(folder, "mine", size=4)


@pytest.mark.parametrize("content", [b"", b"not an image"])
def test_a_damaged_image_is_named(tmp_path, content):
    folder = write(tmp_path)
    path = tmp_path / "mine" / "train" / "cat" / "3.png"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"got the damaged {path}: "):
        load(folder, "mine", size=4).train_inputs[3]


def test_a_truncated_image_is_named(tmp_path):
    folder = write(tmp_path, size=(64, 64))
    path = tmp_path / "mine" / "train" / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=f"got the damaged {path}: "):
        load(folder, "mine", size=4).train_inputs[3]
