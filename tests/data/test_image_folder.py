import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder

from kdexp.atomic import sha256
from kdexp.config.compose import compose
from kdexp.contracts import Splits
from kdexp.data import content
from kdexp.data.data_module import DataModule
from kdexp.data.image_folder import load
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
    splits = make_splits(source, kind="multiclass", num_classes=2, val_fraction=0.2, split_seed=0)
    assert isinstance(splits, Splits)
    assert splits.val.target.bincount().tolist() == [2, 2]
    data = DataModule(splits, augment=[], mean=[0.0], std=[1.0], batch_size=4, eval_batch_size=3, drop_last=True,
                      seed=0)  # fmt: skip
    for batch in data.eval_batches("val", "cpu"):
        np.testing.assert_allclose(batch.inputs[:, 0, 0, 0], batch.target * 100 / 255, rtol=1e-6)


def test_a_fingerprint_changes_when_an_image_does_and_not_when_it_lies_elsewhere(tmp_path):
    folder, store = write(tmp_path), tmp_path / "store"

    def fingerprint(place=folder, size=4):
        return load(place, "mine", size=size).train_inputs.fingerprint(store)

    first = fingerprint()
    assert fingerprint() == first
    assert fingerprint(size=5) != first
    copied = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "mine", copied / "mine", copy_function=shutil.copyfile)  # with other times
    assert fingerprint(str(copied)) == first
    path = tmp_path / "mine" / "train" / "cat" / "0.png"
    path.rename(path.with_name("00.png"))
    assert fingerprint() == first, "another name, the same order"
    path.with_name("00.png").rename(path.with_name("zero.png"))
    assert fingerprint() != first, "another order"
    path.with_name("zero.png").rename(path)
    assert fingerprint() == first
    image = path.read_bytes()
    other = (path.parent / "1.png").read_bytes()
    path.write_bytes(other)
    assert fingerprint() != first, "another image"
    path.write_bytes(image)
    assert fingerprint() == first
    status = path.stat()
    changed = bytearray(image)
    changed[-20] ^= 1
    path.write_bytes(changed)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert fingerprint() != first, "another image of the same size and time"


def test_images_are_read_once_and_remembered_where_that_can_be_written(tmp_path, monkeypatch):
    images, store = load(write(tmp_path), "mine", size=4).train_inputs, tmp_path / "store"
    reads = []
    monkeypatch.setattr(content, "sha256", lambda path: reads.append(path) or sha256(path))
    first = images.fingerprint(store)
    assert len(reads) == len(images)
    assert images.fingerprint(store) == first
    assert len(reads) == len(images)
    status = images.files[0].stat()
    os.utime(images.files[0], ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert images.fingerprint(store) == first
    assert len(reads) == 2 * len(images), "another time: it may be another image"
    for remembered in (store / "contents").iterdir():
        remembered.write_text("half a dig")
    assert images.fingerprint(store) == first
    assert images.fingerprint(Path(os.devnull)) == first, "a store that cannot be written to"


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=rf"^dataset.source.root: not found: {tmp_path / 'mine'}$"):
        load(str(tmp_path), "mine", size=4)
    folder = write(tmp_path, parts=("test",))
    with pytest.raises(FileNotFoundError, match=rf"must have train/ beside test/, got {tmp_path / 'mine'}$"):
        load(folder, "mine", size=4)


def test_a_root_is_looked_for_where_one_stands_and_then_among_the_data(tmp_path):
    here, data = write(tmp_path / "here", n=10), write(tmp_path / "data", n=5)
    assert len(load([here, data], "mine", size=4).test_inputs) == 20
    assert len(load([str(tmp_path), data], "mine", size=4).test_inputs) == 10


def test_of_a_flat_folder_a_stratified_fifth_is_tested_on(tmp_path, caplog):
    caplog.set_level("INFO", "kdexp.data.image_folder")
    folder = write(tmp_path, parts=(".",), classes=("cat", "dog", "owl"))
    source = load(folder, "mine", size=4)
    assert "has no train/: its folders are the 3 classes, a fifth of their images is tested on" in caplog.text
    assert source.classes == ["cat", "dog", "owl"]
    assert source.train_target.bincount().tolist() == [8, 8, 8]
    assert source.test_target.bincount().tolist() == [2, 2, 2]
    for inputs, target in ((source.train_inputs, source.train_target), (source.test_inputs, source.test_target)):
        assert [int(inputs[i][0, 0, 0]) for i in range(len(inputs))] == (100 * target).tolist()
    paths = {path for inputs in (source.train_inputs, source.test_inputs) for path in inputs.files}
    assert len(paths) == 30
    again = load(folder, "mine", size=4)
    assert again.test_inputs.files == source.test_inputs.files


def test_a_flat_folder_of_one_class_is_refused(tmp_path):
    folder = write(tmp_path, parts=(".",), classes=("cat",))
    with pytest.raises(FileNotFoundError, match=r"for at least two classes, got images of 'cat' alone"):
        load(folder, "mine", size=4)


def test_too_few_images_to_split_off_a_test_part_name_the_folder(tmp_path):
    for name, count in (("cat", 1), ("dog", 1)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (0, 20 * i, 250)).save(tmp_path / "mine" / name / f"{i}.png")
    message = "^dataset.source.root, of which a fifth is split off to test on, must leave samples "
    with pytest.raises(ValueError, match=message):
        load(str(tmp_path), "mine", size=8)


def test_without_val_and_test_a_fifth_of_train_is_tested_on(tmp_path, caplog):
    caplog.set_level("INFO", "kdexp.data.image_folder")
    source = load(write(tmp_path, parts=("train",)), "mine", size=4)
    assert source.test_target.bincount().tolist() == [2, 2]
    assert "has no test/: a fifth of train/ is split off to test on" in caplog.text


def test_what_a_folder_leaves_open_is_inferred(tmp_path):
    write(tmp_path, parts=(".",), classes=("cat", "dog", "owl"))
    config = compose(["dataset=image_folder", f"dataset.source.root={tmp_path}/mine", "dataset.source.size=16"],
                     output_dir=tmp_path)  # fmt: skip
    assert config.dataset.num_classes == config.student.num_classes == 3
    assert list(config.student.input_shape) == [3, 16, 16]


def test_parts_with_different_classes_are_refused(tmp_path):
    folder = write(tmp_path, parts=("train",))
    write(tmp_path, parts=("test",), classes=("cat", "cow"))
    with pytest.raises(ValueError, match=r"^dataset.source.root must have the same classes .* \['cow', 'dog'\] in one"):
        load(folder, "mine", size=4)


def test_a_truncated_image_is_named(tmp_path):
    folder = write(tmp_path, size=(64, 64))
    path = tmp_path / "mine" / "train" / "cat" / "3.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(ValueError, match=f"has the corrupt file {path}: "):
        load(folder, "mine", size=4).train_inputs[3]


def test_postscript_by_another_name_is_no_image_and_is_not_run(tmp_path, monkeypatch):
    folder = write(tmp_path)
    path = tmp_path / "mine" / "train" / "cat" / "3.png"
    Image.new("RGB", (12, 8)).save(path, "EPS")
    with Image.open(path) as image:
        assert image.format == "EPS"  # what Pillow makes of it, whatever its name
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was called"))
    inputs = load(folder, "mine", size=4).train_inputs
    assert len([inputs[i] for i in range(len(inputs))]) == 19


# What a person sees

GREY = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
UPPER = GREY // 256
COLOURS = np.stack([np.full((8, 8), value, np.uint8) for value in (200, 100, 50)], 2)
ALPHA = np.dstack([COLOURS, np.where(np.arange(8)[:, None] < 4, 255, 0) * np.ones((8, 8))]).astype(np.uint8)
ON_WHITE = np.where(ALPHA[..., 3:] == 255, COLOURS, 255)
HALF = np.dstack([COLOURS, np.full((8, 8), 128, np.uint8)])
LEFT_TO_RIGHT = np.dstack([np.arange(64, dtype=np.uint8).reshape(8, 8) * 3] * 3)


def read(tmp_path, name: str, image: Image.Image | bytes, **options) -> np.ndarray:
    """The (8, 8, 3) array that kdexp makes of an image file of this name."""
    folder = write(tmp_path, classes=("cat",), n=1)
    path = tmp_path / "mine" / "train" / "cat" / name
    path.write_bytes(image) if isinstance(image, bytes) else image.save(path, **options)
    (tmp_path / "mine" / "train" / "cat" / "0.png").unlink()
    return load(folder, "mine", size=8).train_inputs[0].permute(1, 2, 0).numpy()


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.jp2"])
def test_of_16_bits_the_upper_8_are_seen(tmp_path, name):
    found = read(tmp_path, name, Image.fromarray(GREY))
    assert np.array_equal(found, np.dstack([UPPER] * 3))


def test_of_16_bits_in_the_other_byte_order_too(tmp_path):
    found = read(tmp_path, "a.tif", Image.fromarray(GREY.astype(">u2")))
    assert np.array_equal(found, np.dstack([UPPER] * 3))


def grey_tiff(values: bytes, bits: int, photometric: int) -> bytes:
    """An 8 x 8 TIFF of one strip, written by hand."""
    entries = [(256, 8), (257, 8), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1), (278, 8)]
    entries.append((279, len(values)))
    directory = len(entries).to_bytes(2, "little")
    for tag, value in entries:
        directory += tag.to_bytes(2, "little") + b"\4\0" + (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    return b"II*\0" + (8 + len(values)).to_bytes(4, "little") + values + directory + bytes(4)


def test_a_16_bit_tiff_whose_zero_is_white_is_inverted(tmp_path):
    found = read(tmp_path, "a.tif", grey_tiff(GREY.tobytes(), 16, photometric=0))
    assert np.array_equal(found, np.dstack([255 - UPPER] * 3))


def test_a_tiff_of_12_bits_reaches_from_black_to_white(tmp_path):
    packed = int("".join(f"{value:012b}" for value in (0, 4095) * 32), 2).to_bytes(96)
    found = read(tmp_path, "a.tif", grey_tiff(packed, 12, photometric=1))
    assert np.array_equal(found[..., 0], np.tile([0, 255], (8, 4)))


@pytest.mark.parametrize(
    ("name", "image"),
    [
        ("rgba.png", Image.fromarray(ALPHA)),
        ("rgba.webp", Image.fromarray(ALPHA)),
        ("rgba.tif", Image.fromarray(ALPHA)),
        ("palette.png", Image.fromarray(ALPHA).quantize(4)),
    ],
)
def test_what_is_transparent_is_white(tmp_path, name, image):
    found = read(tmp_path, name, image, **({"lossless": True, "exact": True} if "webp" in name else {}))
    assert np.array_equal(found, ON_WHITE)


def test_a_half_transparent_colour_is_half_white_and_grey_has_transparency_too(tmp_path):
    assert np.abs(read(tmp_path, "a.png", Image.fromarray(HALF)) - (COLOURS * 128.0 + 255 * 127) / 255).max() <= 1
    grey = np.dstack([np.full((8, 8), 60, np.uint8), ALPHA[..., 3]])
    found = read(tmp_path / "grey", "a.png", Image.fromarray(grey))
    assert np.array_equal(found[..., 1], np.where(ALPHA[..., 3] == 255, 60, 255))


def test_a_colour_that_is_named_transparent_is_white(tmp_path):
    image = Image.fromarray(LEFT_TO_RIGHT)
    found = read(tmp_path, "a.png", image, transparency=(189, 189, 189))
    assert np.array_equal(found, np.where(LEFT_TO_RIGHT == 189, 255, LEFT_TO_RIGHT))


@pytest.mark.parametrize("kind", ["png", "webp", "tif"])
@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(1, lambda x: x), (2, np.fliplr), (3, lambda x: np.rot90(x, 2)), (4, np.flipud),
     (5, lambda x: x.transpose(1, 0, 2)), (6, lambda x: np.rot90(x, -1)),
     (7, lambda x: np.rot90(x, 2).transpose(1, 0, 2)), (8, np.rot90)],
)  # fmt: skip
def test_an_orientation_tag_is_followed(tmp_path, kind, orientation, turned):
    tags = Image.Exif()
    tags[0x0112] = orientation
    options = {"lossless": True} if kind == "webp" else {}
    found = read(tmp_path, f"a.{kind}", Image.fromarray(LEFT_TO_RIGHT), exif=tags, **options)
    assert np.array_equal(found, turned(LEFT_TO_RIGHT))


def test_a_jpeg_with_tags_that_cannot_be_read_is_shown_as_it_lies(tmp_path):
    plain = io.BytesIO()
    Image.fromarray(LEFT_TO_RIGHT).save(plain, "jpeg", quality=95)
    found = read(tmp_path, "a.jpg", Image.fromarray(LEFT_TO_RIGHT), quality=95, exif=b"Exif\0\0nothing that is one")
    assert np.array_equal(found, np.asarray(Image.open(plain).convert("RGB")))


@pytest.mark.parametrize(
    ("name", "image", "expected"),
    [
        ("cmyk.tif", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), (255, 0, 0)),
        ("bit.png", Image.new("1", (8, 8), 1), (255, 255, 255)),
        ("palette.png", Image.fromarray(COLOURS).quantize(2), (200, 100, 50)),
        ("palette.gif", Image.fromarray(COLOURS).quantize(2), (200, 100, 50)),
    ],
)
def test_other_forms_are_seen_in_their_colours(tmp_path, name, image, expected):
    assert (read(tmp_path, name, image) == expected).all()


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_of_several_frames_the_first_is_seen(tmp_path, name):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("blue", "red")]
    options = {"lossless": True} if "webp" in name else {}
    found = read(tmp_path, name, frames[0], save_all=True, append_images=frames[1:], **options)
    assert (found == (0, 0, 255)).all()


@pytest.mark.parametrize("values", [GREY.astype(np.int32), GREY / np.float32(65535)])
def test_an_image_whose_range_nobody_knows_is_refused_by_its_name_before_it_is_used(tmp_path, values):
    rule = "dataset.source.root must hold images of 8 or 16 bits a channel"
    with pytest.raises(ValueError, match=rf"^{rule}, got .*/train/cat/deep.tif of mode [IF]$"):
        read(tmp_path, "deep.tif", Image.fromarray(values))


# What lies in the folder


def left_out(caplog, folder, size=4):
    """What is said to be left out, and the source."""
    caplog.clear()
    with caplog.at_level("WARNING"):
        source = load(folder, "mine", size=size)
    prefix = "warning: dataset.source: "
    assert all(message.startswith(prefix) and "\n" not in message for message in caplog.messages)
    return [message.removeprefix(prefix) for message in caplog.messages], source


def test_classes_and_files_have_torchvisions_order_and_the_folders_names(tmp_path, caplog):
    folder = write(tmp_path, classes=("0", "1", "10", "2", "a-b", "a"), n=3)
    for nested in ("x", "x-y", "x/z"):
        place = tmp_path / "mine" / "train" / "10" / nested
        place.mkdir()
        Image.new("RGB", (8, 8)).save(place / "1.JPG", "jpeg")
    said, source = left_out(caplog, folder)
    assert not said
    wanted = ImageFolder(str(tmp_path / "mine" / "train"))
    assert source.classes == wanted.classes == ["0", "1", "10", "2", "a", "a-b"]
    assert [(str(path), label) for path, label in
            zip(source.train_inputs.files, source.train_target.tolist(), strict=True)] == wanted.samples  # fmt: skip


def test_what_is_no_image_or_hidden_or_broken_is_counted_and_named_in_one_line_each(tmp_path, caplog):
    folder = write(tmp_path)
    mine = tmp_path / "mine"
    clean = load(folder, "mine", size=4).train_inputs.fingerprint(tmp_path / "store")
    for place in (".git", "extra", "__MACOSX", "train/.ipynb_checkpoints", "train/cat/.ipynb_checkpoints", "test/owl"):
        (mine / place).mkdir()
        Image.new("RGB", (8, 8)).save(mine / place / "0.png") if place != "test/owl" else None
    (mine / "train" / "list.csv").write_text("a")
    (mine / "train" / "dog" / "._0.png").write_bytes(b"resource fork")
    (mine / "val" / "cat" / "Thumbs.db").write_bytes(b"thumbs")
    for number in range(8):
        (mine / "test" / "dog" / f"bad{number}.jpg").write_bytes(b"<html>404</html>")
    (mine / "train" / "dog" / "gone.png").symlink_to("/nowhere/gone.png")
    said, source = left_out(caplog, folder)
    assert sorted(said) == [
        "broken files left out: 9 (train/dog/gone.png, test/dog/bad0.jpg, test/dog/bad1.jpg, test/dog/bad2.jpg, "
        "test/dog/bad3.jpg, ...)",
        "class folders without images left out: 1 (test/owl)",
        "files outside of class folders left out: 1 (train/list.csv)",
        "files that are not images left out: 1 (val/cat/Thumbs.db)",
        "folders besides train, test and val left out: 1 (extra)",
        "hidden files and folders left out: 5 (.git, __MACOSX, train/.ipynb_checkpoints, "
        "train/cat/.ipynb_checkpoints, train/dog/._0.png)",
    ]
    assert source.classes == ["cat", "dog"]
    assert source.train_inputs.fingerprint(tmp_path / "store") == clean
    assert len(source.test_inputs) == 20


def test_a_class_without_images_in_train_is_none_and_one_without_images_in_test_is_said(tmp_path, caplog):
    folder = write(tmp_path)
    mine = tmp_path / "mine"
    (mine / "train" / "owl").mkdir()
    for path in (mine / "test" / "dog").iterdir():
        path.unlink()
    said, source = left_out(caplog, folder)
    assert said == ["class folders without images left out: 2 (train/owl, test/dog)"]
    assert source.classes == ["cat", "dog"]
    assert source.test_target.bincount(minlength=2).tolist() == [10, 0]
    (mine / "test" / "owl").mkdir()
    Image.new("RGB", (8, 8)).save(mine / "test" / "owl" / "0.png")
    with pytest.raises(ValueError, match=r"the same classes in train/ and test/, got \['owl'\] in one only$"):
        load(folder, "mine", size=4)


def test_a_folder_with_nothing_to_train_on_is_refused(tmp_path):
    folder = write(tmp_path, classes=())
    for part in PARTS:
        (tmp_path / "mine" / part).mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=r"^dataset.source.root must have class folders with images in train/"):
        load(folder, "mine", size=4)


@pytest.mark.parametrize("name", ["validation", "valid"])
def test_other_names_of_val(tmp_path, name, caplog):
    folder = write(tmp_path)
    (tmp_path / "mine" / "val").rename(tmp_path / "mine" / name)
    said, source = left_out(caplog, folder)
    assert not said
    assert source.val is not None
    assert len(source.val[0]) == 20
    write(tmp_path, parts=("val",))
    with pytest.raises(
        ValueError, match=rf"^dataset.source.root must have one folder .*, got val and {name} in .*/mine"
    ):
        load(folder, "mine", size=4)


def test_of_train_and_val_alone_val_is_tested_on_as_with_imagenet(tmp_path, caplog):
    caplog.set_level("INFO", "kdexp.data.image_folder")
    source = load(write(tmp_path, parts=("train", "val")), "mine", size=4)
    assert source.val is None
    assert {path.parent.parent.name for path in source.test_inputs.files} == {"val"}
    assert len(source.train_inputs) == len(source.test_inputs) == 20
    assert "has no test/: its val/ is tested on, val is split off from train/" in caplog.text


def test_links_in_a_circle_are_followed_once_and_other_links_are_followed(tmp_path, caplog):
    folder = write(tmp_path)
    mine = tmp_path / "mine"
    (mine / "train" / "cat" / "again").symlink_to(".")
    (mine / "train" / "cat" / "up").symlink_to("..")
    (mine / "train" / "loop").symlink_to("..")
    (mine / "train" / "dog").rename(tmp_path / "dogs")
    (mine / "train" / "dog").symlink_to(tmp_path / "dogs")
    (tmp_path / "more").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "more" / "0.png")
    (tmp_path / "dogs" / "more").symlink_to(tmp_path / "more")
    (tmp_path / "more" / "back").symlink_to(tmp_path / "dogs")
    said, source = left_out(caplog, folder)
    assert said == [
        "links to folders that are read already left out: 4 (train/cat/again, train/cat/up, train/dog/more/back, "
        "train/loop)"
    ]
    assert source.classes == ["cat", "dog"]
    assert source.train_target.bincount().tolist() == [10, 11]
