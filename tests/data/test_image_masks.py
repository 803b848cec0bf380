import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from kdexp.contracts import ABSENT, VOID
from kdexp.data import image_masks
from kdexp.data.content import of_source
from kdexp.data.image_masks import PaddedImages, load
from kdexp.data.mask_layouts import LAYOUTS

CLASSES = {"background": 0, "vessel": 255}


def picture(seed, size=(5, 7)):
    return np.random.default_rng(seed).integers(256, size=(*size, 3), dtype=np.uint8)


def write(path, array, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(array, np.uint8))
    if mode == "P":
        image.putpalette(list(range(30)))
        assert image.mode == "P"
    image.save(path)


def pairs(folder, n=4, values=(0, 255), size=(5, 7), images="images", masks="masks", seed=0):
    """Images with grey masks of all of these values; what the masks were."""
    rng, written = np.random.default_rng(seed), []
    for i in range(n):
        mask = rng.permutation(np.resize(values, size[0] * size[1])).reshape(size)
        write(folder / images / f"{i}.png", picture(seed + i, size))
        write(folder / masks / f"{i}.png", mask)
        written.append(mask)
    return written


def own(tmp_path, parts=("train", "val", "test"), **settings):
    return {part: pairs(tmp_path / "mine" / part, seed=10 * i, **settings) for i, part in enumerate(parts)}


def of(source, part):
    return {
        "train": (source.train_inputs, source.train_target),
        "val": source.val,
        "test": (source.test_inputs, source.test_target),
    }[part]


def test_each_part_has_its_images_and_masks(tmp_path):
    written = own(tmp_path)
    source = load(str(tmp_path), "mine", CLASSES)
    assert source.classes == ["background", "vessel"]
    for i, part in enumerate(("train", "val", "test")):
        images, masks = of(source, part)
        assert images.dtype == torch.uint8
        assert masks.dtype == torch.int8
        assert np.array_equal(masks, np.stack(written[part]) == 255)
        expected = np.stack([picture(10 * i + n) for n in range(4)])
        assert np.array_equal(images.permute(0, 2, 3, 1), expected)


def test_without_a_val_folder_there_is_no_val_part_and_without_a_test_folder_val_is_tested_on(tmp_path):
    own(tmp_path, ("train", "test"))
    assert load(str(tmp_path), "mine", CLASSES).val is None
    (tmp_path / "mine" / "test").rename(tmp_path / "mine" / "valid")
    source = load(str(tmp_path), "mine", CLASSES)
    assert source.val is None
    assert len(source.test_target) == 4


def test_images_alone_are_split_at_random_by_the_seed(tmp_path):
    written = pairs(tmp_path / "mine", 20)
    first, again, other = (load(str(tmp_path), "mine", CLASSES, seed=seed) for seed in (0, 0, 1))
    assert (len(first.train_target), len(first.test_target)) == (16, 4)
    assert torch.equal(first.test_target, again.test_target)
    assert not torch.equal(first.test_target, other.test_target)
    assert first.val is None
    all_of_them = torch.cat((first.train_target, first.test_target)).flatten(1).tolist()
    assert sorted(all_of_them) == sorted((mask == 255).astype(int).flatten().tolist() for mask in written)
    assert len(load(str(tmp_path), "mine", CLASSES, test_fraction=0.5).test_target) == 10


def test_a_train_folder_alone_is_split_too(tmp_path):
    own(tmp_path, ("train",), n=10)
    source = load(str(tmp_path), "mine", CLASSES)
    assert (len(source.train_target), len(source.test_target)) == (8, 2)


def test_images_of_different_sizes_are_padded_at_the_right_and_bottom(tmp_path):
    pairs(tmp_path / "mine" / "train", 2, size=(5, 7))
    pairs(tmp_path / "mine" / "test", 2, size=(6, 4))
    source = load(str(tmp_path), "mine", CLASSES)
    for (images, masks), (h, w) in ((of(source, "train"), (5, 7)), (of(source, "test"), (6, 4))):
        assert tuple(images.shape) == (2, 3, 6, 7)
        exists = torch.zeros(2, 6, 7, dtype=torch.bool)
        exists[:, :h, :w] = True
        assert torch.equal(masks != ABSENT, exists)
        assert (images.amax(1)[~exists] == 0).all()
        assert np.array_equal(images[0, :, :h, :w].permute(1, 2, 0), picture(0, (h, w)))


RED, GREEN, BLUE = [255, 0, 0], [0, 255, 0], [0, 0, 254]


@pytest.mark.parametrize(
    ("kind", "classes", "ignore"),
    [
        ("grey", {"a": [0, 2], "b": 1}, 9),
        ("palette", {"a": [0, 2], "b": 1}, [9]),
        ("deep", {"a": [0, 20_000], "b": 256}, [40_000]),
        ("bilevel", {"a": 0, "b": 1}, None),
        ("colours", {"a": [RED, GREEN], "b": [BLUE]}, [9, 9, 9]),
        ("colours", {"a": [RED, GREEN], "b": BLUE}, [[9, 9, 9]]),
        ("transparent", {"a": (RED, GREEN), "b": BLUE}, [[9, 9, 9]]),
    ],
)
def test_masks_are_grey_or_have_a_palette_or_colours(tmp_path, kind, classes, ignore):
    which = np.arange(35).reshape(5, 7) % (2 if kind == "bilevel" else 4)  # numbers of four kinds of pixels
    expected = np.array([0, 1, 0, VOID] if kind != "bilevel" else [0, 1])[which]
    for part in ("train", "test"):
        folder = tmp_path / "mine" / part
        write(folder / "images" / "x.png", picture(0))
        ids = np.array([0, 1, 2, 9], np.uint8)[which]
        if kind in ("grey", "palette"):
            write(folder / "masks" / "x.png", ids, "P" if kind == "palette" else None)
        elif kind == "deep":
            (folder / "masks").mkdir()
            Image.fromarray(np.array([0, 256, 20_000, 40_000], np.uint16)[which]).save(folder / "masks" / "x.png")
        elif kind == "bilevel":
            (folder / "masks").mkdir()
            Image.fromarray(which == 1).save(folder / "masks" / "x.png")
        else:
            colours = np.array([RED, BLUE, GREEN, [9, 9, 9]], np.uint8)[which]
            alpha = np.full((5, 7, 1), 40, np.uint8)
            write(folder / "masks" / "x.png", np.dstack((colours, alpha)) if kind == "transparent" else colours)
    masks = load(str(tmp_path), "mine", classes, ignore).train_target
    assert np.array_equal(masks[0], expected)


def test_images_are_found_in_folders_below_and_hidden_files_are_not(tmp_path, caplog):
    own(tmp_path)
    folder = tmp_path / "mine" / "train"
    write(folder / "images" / "patient 1" / "left.JPG", picture(0))
    write(folder / "masks" / "patient 1" / "left.png", np.full((5, 7), 255))
    (folder / "images" / ".thumb.png").write_bytes(b"")
    (folder / "masks" / "x.png").write_bytes(b"")
    (folder / "images" / "notes.txt").write_text("")
    masks = load(str(tmp_path), "mine", CLASSES).train_target
    assert len(masks) == 5
    assert (masks[-1] == 1).all()
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        f"warning: dataset.source: {what} left out of {folder}: {name}"
        for what, name in (("files that are no images", "images/notes.txt"), ("masks without an image", "masks/x.png"))
    ]


def test_an_orientation_tag_is_followed(tmp_path):
    own(tmp_path)
    stored = Image.fromarray(picture(0, (7, 5)))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    stored.save(tmp_path / "mine" / "train" / "images" / "turned.jpg", exif=exif, quality=100, subsampling=0)
    write(tmp_path / "mine" / "train" / "masks" / "turned.png", np.zeros((5, 7)))
    image = load(str(tmp_path), "mine", CLASSES).train_inputs[-1].permute(1, 2, 0).numpy().astype(int)
    assert np.abs(image - np.rot90(picture(0, (7, 5)), -1)).mean() < 12


def test_what_does_not_fit_in_memory_is_read_one_at_a_time(tmp_path, monkeypatch):
    own(tmp_path)
    held = load(str(tmp_path), "mine", CLASSES)
    monkeypatch.setattr(image_masks, "_IN_MEMORY", 12 * 5 * 7 * 4 - 1)
    streamed = load(str(tmp_path), "mine", CLASSES)
    for part in ("train", "val", "test"):
        images, masks = of(streamed, part)
        assert isinstance(images, PaddedImages)
        assert len(images) == len(masks) == 4
        assert torch.equal(torch.stack([images[i] for i in range(4)]), of(held, part)[0])
        assert torch.equal(masks, of(held, part)[1])
    monkeypatch.setattr(image_masks, "_IN_MEMORY", 12 * 5 * 7 * 4)
    assert isinstance(load(str(tmp_path), "mine", CLASSES).train_inputs, torch.Tensor)


def test_a_fingerprint_changes_when_a_mask_or_its_meaning_does_and_not_when_it_lies_elsewhere(tmp_path, monkeypatch):
    own(tmp_path)
    monkeypatch.setattr(image_masks, "_IN_MEMORY", 0)

    def fingerprint(place=tmp_path, classes=CLASSES):
        source = load(str(place), "mine", classes)
        return source.train_inputs.fingerprint(tmp_path / "s"), of_source(source, tmp_path / "s")

    images, masks = fingerprint()
    assert fingerprint() == (images, masks)
    shutil.copytree(tmp_path / "mine", tmp_path / "copy" / "mine", copy_function=shutil.copyfile)
    assert fingerprint(tmp_path / "copy") == (images, masks)
    other = fingerprint(classes={"vessel": 255, "background": 0})
    assert other[0] == images
    assert other[1] != masks
    write(tmp_path / "mine" / "train" / "masks" / "0.png", np.zeros((5, 7)))
    assert fingerprint()[0] == images
    assert fingerprint()[1] != masks


# Known layouts


def value_of(value):
    """One of the values that a class has in its masks."""
    while isinstance(value, list) and isinstance(value[0], list):
        value = value[-1]
    return value


def known(folder, preset, pairs_of):
    """Write a small folder of a layout: every class as a row of its mask, and a row that is ignored."""
    layout = LAYOUTS[preset]
    values = [value_of(value) for value in (*layout.classes.values(), list(layout.ignore))]
    if isinstance(values[-1], list) and isinstance(layout.ignore[0], int):
        values[-1] = values[-1][0]
    rows = np.array(values, np.uint8)
    mask = np.repeat(rows[:, None], 4, axis=1)
    for image, its_mask in pairs_of:
        write(folder / image, picture(0, mask.shape[:2]))
        write(folder / its_mask, mask)
    return [*range(len(layout.classes)), VOID]


@pytest.mark.parametrize(
    ("preset", "files", "counts", "num_classes"),
    [
        (
            "cityscapes",
            {
                f"leftImg8bit/{part}/{city}/{city}_00000{i}_000019_leftImg8bit.png":
                f"gtFine/{part}/{city}/{city}_00000{i}_000019_gtFine_labelIds.png"
                for part, city in (("train", "aachen"), ("train", "bochum"), ("val", "munster"))
                for i in range(2)
            },
            (4, 2),
            19,
        ),
        (
            "camvid",
            {f"{p}/0001TP_00{i}.png": f"{p}annot/0001TP_00{i}.png" for p in ("train", "val", "test") for i in range(3)},
            (3, 3),
            11,
        ),
        (
            "camvid_colours",
            {f"{p}/0006R0_f{i}.png": f"{p}_labels/0006R0_f{i}_L.png" for p in ("train", "val", "test") for i in (1, 2)},
            (2, 2),
            11,
        ),
        (
            "kitti_road",
            {
                f"training/image_2/{kind}_00000{i}.png": f"training/gt_image_2/{kind}_road_00000{i}.png"
                for kind in ("um", "umm", "uu")
                for i in range(5)
            },
            (12, 3),
            2,
        ),
    ],
)  # fmt: skip
def test_a_known_layout_is_read_with_its_classes(tmp_path, preset, files, counts, num_classes):
    rows = known(tmp_path / "set", preset, files.items())
    # What else lies there and is none of ours.
    write(tmp_path / "set" / "training" / "gt_image_2" / "um_lane_000000.png", picture(0))
    write(tmp_path / "set" / "gtFine" / "train" / "aachen" / "aachen_000000_000019_gtFine_color.png", picture(0))
    write(tmp_path / "set" / "leftImg8bit" / "test" / "berlin" / "berlin_000000_000019_leftImg8bit.png", picture(0))
    source = load(str(tmp_path), "set", preset=preset)
    assert (len(source.train_target), len(source.test_target)) == counts
    assert (source.val is not None) == preset.startswith("camvid")
    assert len(source.classes) == num_classes
    for mask in (*source.train_target, *source.test_target):
        assert mask[:, 0].tolist() == rows


def test_cityscapes_label_ids_become_train_ids():
    """trainId -> labelId of cityscapesscripts/helpers/labels.py, and the ids without one."""
    train_ids = {0: 7, 1: 8, 2: 11, 3: 12, 4: 13, 5: 17, 6: 19, 7: 20, 8: 21, 9: 22, 10: 23, 11: 24, 12: 25, 13: 26,
                 14: 27, 15: 28, 16: 31, 17: 32, 18: 33}  # fmt: skip
    layout = LAYOUTS["cityscapes"]
    assert dict(enumerate(layout.classes.values())) == train_ids
    assert sorted([*layout.ignore, *train_ids.values()]) == list(range(34))


def test_camvids_32_colours_are_31_of_11_classes_and_void():
    colours = [tuple(colour) for of_class in LAYOUTS["camvid_colours"].classes.values() for colour in of_class]
    assert len(set(colours)) == len(colours) == 31
    assert (0, 0, 0) not in colours
    assert list(LAYOUTS["camvid"].classes) == list(LAYOUTS["camvid_colours"].classes)


# What is wrong


def message(error, *args, **settings):
    with pytest.raises(error) as caught:
        load(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_mask_of_another_size_than_its_image(tmp_path):
    own(tmp_path)
    path = tmp_path / "mine" / "test" / "masks" / "3.png"
    write(path, np.zeros((7, 5)))
    assert message(ValueError, str(tmp_path), "mine", CLASSES) == (
        f"dataset.source.root must have masks of their images' height and width, got (7, 5) in {path} and (5, 7) in "
        "3.png"
    )


def test_an_id_or_a_colour_that_is_not_named(tmp_path):
    own(tmp_path, values=(0, 255, 7))
    path = tmp_path / "mine" / "train" / "masks" / "0.png"
    assert message(ValueError, str(tmp_path), "mine", CLASSES) == (
        f"dataset.source.classes must name every id in the masks, or dataset.source.ignore, got 7 in {path}"
    )
    assert (load(str(tmp_path), "mine", CLASSES, ignore=7).train_target == VOID).any()
    for part in ("train", "val", "test"):
        for i in range(4):
            write(tmp_path / "mine" / part / "masks" / f"{i}.png", np.resize([*RED, *BLUE, *GREEN], (5, 7, 3)))
    assert message(ValueError, str(tmp_path), "mine", {"a": RED, "b": BLUE}) == (
        "dataset.source.classes must name every colour in the masks, or dataset.source.ignore, got [0, 255, 0] in "
        f"{path}"
    )


def test_a_class_that_no_training_mask_has(tmp_path):
    own(tmp_path, ("train",), values=(0, 1))
    own(tmp_path, ("test",), values=(0, 1, 2))
    assert message(ValueError, str(tmp_path), "mine", {"a": 0, "b": 1, "c": 2}) == (
        "dataset.source.classes must be in the training masks, got 'c', which none of the 4 has"
    )


def test_an_image_without_a_mask(tmp_path):
    own(tmp_path)
    folder = tmp_path / "mine" / "val"
    (folder / "masks" / "2.png").rename(folder / "masks" / "2.jpg")
    assert message(FileNotFoundError, str(tmp_path), "mine", CLASSES) == (
        f"dataset.source.root must have a mask for each image, got no {folder}/masks/2.png for 2.png (1 of 4 images "
        "have none)"
    )


def test_a_folder_without_masks_or_images(tmp_path):
    own(tmp_path, ("train", "test"))
    folder = tmp_path / "mine" / "test"
    shutil.rmtree(folder / "masks")
    rule = "dataset.source.root must have"
    assert message(FileNotFoundError, str(tmp_path), "mine", CLASSES) == (
        f"{rule} a folder of masks, got no {folder}/masks"
    )
    (folder / "masks").mkdir()
    shutil.rmtree(folder / "images")
    assert message(FileNotFoundError, str(tmp_path), "mine", CLASSES) == (
        f"{rule} a folder of images, got no {folder}/images"
    )
    (folder / "images").mkdir()
    assert message(FileNotFoundError, str(tmp_path), "mine", CLASSES) == (
        f"{rule} PNG or JPEG images, got none in {folder}/images"
    )
    (tmp_path / "empty").mkdir()
    assert message(FileNotFoundError, str(tmp_path), "empty", CLASSES) == (
        f"{rule} a folder of images, got no {tmp_path}/empty/images"
    )
    assert message(FileNotFoundError, str(tmp_path), "nothing", CLASSES).startswith("dataset.source.root: not found")


def test_masks_of_two_kinds(tmp_path):
    own(tmp_path)
    path = tmp_path / "mine" / "val" / "masks" / "1.png"
    write(path, picture(0))
    rule = "dataset.source.root must have masks of one kind"
    assert message(ValueError, str(tmp_path), "mine", CLASSES) == (
        f"{rule}, grey or with a palette as others are, got {path}"
    )


def test_files_that_are_damaged_or_of_16_bits(tmp_path):
    own(tmp_path)
    mask, image = (tmp_path / "mine" / "train" / what / "1.png" for what in ("masks", "images"))
    whole = mask.read_bytes()
    mask.write_bytes(whole[:50])
    assert f"has the corrupt file {mask}" in message(ValueError, str(tmp_path), "mine", CLASSES)
    Image.new("L", (7, 5)).save(mask, "JPEG")
    assert f"has the corrupt file {mask}" in message(ValueError, str(tmp_path), "mine", CLASSES)
    mask.write_bytes(whole)
    Image.fromarray(np.zeros((5, 7), np.uint16)).save(image)
    assert "images of 8 bits a channel" in message(ValueError, str(tmp_path), "mine", CLASSES)
    image.write_bytes(b"no image")
    assert f"has the corrupt file {image}" in message(ValueError, str(tmp_path), "mine", CLASSES)


def test_two_val_folders(tmp_path):
    own(tmp_path, ("train", "val", "valid"))
    assert message(ValueError, str(tmp_path), "mine", CLASSES) == (
        f"dataset.source.root must have one folder of val, validation, valid, got val and valid in {tmp_path / 'mine'}"
    )


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"classes": {"a": 0}}, "classes must be 2 to 127, got 1"),
        ({"classes": {str(i): i for i in range(128)}}, "classes must be 2 to 127, got 128"),
        ({"classes": {"a": 0, "b": 0}}, "classes.b must be in the masks what no other class is, got 0"),
        ({"classes": CLASSES, "ignore": [3, 0]}, "ignore must be in the masks what no other class is, got [3, 0]"),
        (
            {"classes": {"a": 0, "b": "#ff0000"}},
            "classes.b must be ids, of 0 to 65,535, in grey or palette masks such as 0.png, got #ff0000",
        ),
        (
            {"classes": {"a": 0, "b": [RED]}},
            "classes.b must be ids, of 0 to 65,535, in grey or palette masks such as 0.png, got [[255, 0, 0]]",
        ),
        ({"classes": {"a": 0, "b": True}}, "classes.b must be ids, of 0 to 65,535, in grey or palette masks such as "
         "0.png, got True"),
        ({"classes": CLASSES, "test_fraction": 1.0}, "test_fraction must be in (0, 1) and leave images for train and "
         "test, got 1.0 of 4 images"),
        ({"classes": CLASSES, "test_fraction": "half"}, "test_fraction must be in (0, 1), got half"),
        ({"classes": ["a", "b"]}, "classes must be names with what each is in the masks, got ['a', 'b']"),
        ({"classes": CLASSES, "test_fraction": 0.1}, "test_fraction must be in (0, 1) and leave images for train and "
         "test, got 0.1 of 4 images"),
    ],
)  # fmt: skip
def test_wrong_settings(tmp_path, settings, expected):
    pairs(tmp_path / "mine")
    assert message(ValueError, str(tmp_path), "mine", **settings) == f"dataset.source.{expected}"


def test_ids_are_refused_where_masks_have_colours(tmp_path):
    for i in range(4):
        write(tmp_path / "mine" / "images" / f"{i}.png", picture(i))
        write(tmp_path / "mine" / "masks" / f"{i}.png", picture(i))
    for value in (3, [RED, 4], [0, 1], [0, 1, 256]):
        assert message(ValueError, str(tmp_path), "mine", {"a": BLUE, "b": value}) == (
            f"dataset.source.classes.b must be colours [r, g, b] of 0 to 255, in RGB masks such as 0.png, got {value}"
        )


@pytest.mark.parametrize("settings", [{}, {"classes": CLASSES, "preset": "camvid"}, {"preset": "voc"}])
def test_either_classes_or_a_preset(tmp_path, settings):
    text = message(ValueError, str(tmp_path), "mine", **settings)
    assert text.startswith("dataset.source must have classes, or preset (cityscapes, camvid, camvid_colours, kitti_")
