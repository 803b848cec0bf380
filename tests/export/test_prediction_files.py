import csv
import os

import numpy as np
import pytest
import torch
from PIL import Image
from saved_students import saved

from kdexp.export.prediction_files import write
from kdexp.export.student import load
from kdexp.export.table_files import read_texts


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def photos(folder, n=7):
    numbers = np.random.default_rng(0)
    for i in range(n):
        place = folder / f"part {i % 2}" / f"{i},.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(numbers.integers(256, size=(9 + i, 12, 3), dtype=np.uint8)).save(place)
    return folder


def test_each_image_has_a_row_and_one_that_cannot_be_read_does_not_lose_the_others(tmp_path):
    saved(tmp_path / "run", "dataset=digits", "student=cnn_small")
    folder = photos(tmp_path / "in")
    (folder / "part 0" / "broken.png").write_bytes(b"nothing")
    (folder / "notes.txt").write_text("no image")
    student = load(tmp_path / "run")
    written = write(student, folder, tmp_path / "out.csv", batch_size=3)
    rows = rows_of(tmp_path / "out.csv")
    assert (written.samples, written.unread) == (8, 1) == (len(rows), sum(bool(row["error"]) for row in rows))
    assert list(rows[0]) == ["file", "label", "confidence", *(f"p_{i}" for i in range(10)), "error"]
    for row in rows:
        if row["file"] == "part 0/broken.png":
            assert row["label"] == row["p_3"] == ""
            assert "corrupt file" in row["error"]
            continue
        said = student.predict(folder / row["file"])
        assert [row["label"]] == said.labels
        shares = [float(row[f"p_{number}"]) for number in range(10)]
        np.testing.assert_allclose(shares, said.probabilities[0], rtol=1e-4)
        assert max(shares) == float(row["confidence"])


def test_names_are_no_formulas_and_nothing_that_a_terminal_obeys(tmp_path):
    saved(tmp_path / "run", "dataset=breast_cancer", "student=mlp", classes=["=1+2", "@b\x1b[2J"])
    student = load(tmp_path / "run")
    np.save(tmp_path / "x.npy", np.zeros((1, 30), np.float32))
    write(student, tmp_path / "x.npy", tmp_path / "out.csv")
    (row,) = rows_of(tmp_path / "out.csv")
    assert list(row) == ["row", "label", "confidence", "p_=1+2", r"p_@b\x1b[2J", "error"]
    assert row["label"] in ("'=1+2", r"'@b\x1b[2J")
    names = ["=1+2.png", "-a\x1b]0;b\x07.png", "a\n\\b.png", os.fsdecode(b"\xff.png")]
    saved(tmp_path / "seen", "dataset=digits", "student=cnn_small")
    (tmp_path / "in").mkdir()
    for name in names:
        Image.new("L", (8, 8)).save(tmp_path / "in" / name)
    written = write(load(tmp_path / "seen"), tmp_path / "in", tmp_path / "images.csv")
    assert (written.samples, written.unread) == (4, 0)
    shown = [row["file"] for row in rows_of(tmp_path / "images.csv")]
    assert all(name.isprintable() and name[0] not in "=+-@" for name in shown)
    back = {name.removeprefix("'").encode("latin-1", "backslashreplace").decode("unicode_escape") for name in shown}
    assert back == {*names}


def test_what_is_there_is_replaced_only_if_asked_and_never_by_half(tmp_path):
    saved(tmp_path / "run", "dataset=digits", "student=cnn_small")
    student, out = load(tmp_path / "run"), tmp_path / "out.csv"
    out.write_text("mine")
    with pytest.raises(ValueError, match=r"^out must not be there yet \(overwrite=true replaces it\), got .*out.csv$"):
        write(student, photos(tmp_path / "in"), out)
    with pytest.raises(FileNotFoundError, match=r"^inputs must be a file or a folder, not found: "):
        write(student, tmp_path / "nowhere", out, overwrite=True)
    assert out.read_text() == "mine"
    write(student, tmp_path / "in", out, overwrite=True)
    assert len(rows_of(out)) == 7
    with pytest.raises(ValueError, match=r"^out must be a csv file, got the folder "):
        write(student, tmp_path / "in", tmp_path / "run", overwrite=True)


def test_masks_are_files_of_class_numbers(tmp_path):
    saved(tmp_path / "run", "dataset=shapes", "task=segmentation", "student=unet", "dataset.classes=[sky,car,dog]")
    folder = photos(tmp_path / "in", 3)
    Image.new("RGB", (9, 9)).save(folder / "part 0" / "0,.jpg")
    (folder / "broken.jpg").write_bytes(b"nothing")
    student = load(tmp_path / "run")
    written = write(student, folder, tmp_path / "out")
    assert (written.table, written.unread) == (tmp_path / "out" / "predictions.csv", 1)
    rows = [row for row in rows_of(written.table) if not row["error"]]
    assert {row["mask"] for row in rows} == {
        "part 0/0,.png.png", "part 0/0,.jpg.png", "part 1/1,.png", "part 0/2,.png",
    }  # fmt: skip
    for row in rows:
        said = student.predict(folder / row["file"])
        with Image.open(tmp_path / "out" / row["mask"]) as image:
            mask = np.asarray(image)
        assert np.array_equal(mask, said.masks[0])
        assert float(row["share_car"]) == pytest.approx((mask == 1).mean(), abs=1e-5)
        assert float(row["confidence"]) == pytest.approx(float(said.confidences[0].mean()), abs=1e-5)
    with pytest.raises(ValueError, match=r"^out must not be there yet"):
        write(student, folder, tmp_path / "out")


def test_predictions_never_take_the_place_of_their_inputs(tmp_path):
    saved(tmp_path / "run", "dataset=shapes", "task=segmentation", "student=unet")
    folder = photos(tmp_path / "in", n=2)
    for place in (folder, tmp_path):
        with pytest.raises(ValueError, match=r"^out must be another place than inputs, got "):
            write(load(tmp_path / "run"), folder, place, overwrite=True)


def test_rows_of_a_table_have_rows(tmp_path):
    saved(tmp_path / "run", "dataset=breast_cancer", "student=mlp")
    student, x = load(tmp_path / "run"), torch.rand(5, 30)
    np.save(tmp_path / "x.npy", x.numpy())
    names = [f"c{i}" for i in range(30)]
    lines = [",".join(names), *(",".join(map(str, row)) for row in x.tolist())]
    (tmp_path / "x.csv").write_text("\n".join(lines))
    for name in ("x.npy", "x.csv"):
        write(student, tmp_path / name, tmp_path / "out.csv", overwrite=True)
        rows = rows_of(tmp_path / "out.csv")
        assert [row["row"] for row in rows] == list("12345")
        assert [row["label"] for row in rows] == student.predict(x).labels
        assert list(rows[0]) == ["row", "label", "confidence", "p_malignant", "p_benign", "error"]
    np.save(tmp_path / "objects.npy", np.array([{"a": 1}]), allow_pickle=True)
    (tmp_path / "less.csv").write_text("a,b\n1,2\n")
    for name, message in (
        ("objects.npy", "objects.npy cannot be read: Array can't be memory-mapped: Python objects in dtype"),
        ("less.csv", r"less.csv must have 30 columns of numbers, got a, b$"),
    ):
        with pytest.raises(ValueError, match=message):
            write(student, tmp_path / name, tmp_path / "out2.csv")
        assert not (tmp_path / "out2.csv").exists()


def test_the_program_says_what_it_wrote_and_ends_with_1_where_a_file_could_not_be_read(command, tmp_path):
    saved(tmp_path / "run", "dataset=digits", "student=cnn_small")
    photos(tmp_path / "in", 2)
    words = ("kdexp-predict", "run=run", "inputs=in", "accelerator=cpu")
    assert "2 predicted: predictions.csv" in command(*words).stdout
    assert "error: out must not be there yet" in command(*words, rc=2).stderr
    (tmp_path / "in" / "x.png").write_bytes(b"nothing")
    done = command(*words, "out=more.csv", rc=1)
    assert "1 of them could not be read: see the column error" in done.stderr
    assert len(rows_of(tmp_path / "more.csv")) == 3
    assert "error: inputs must be a file or a folder, got nothing" in command("kdexp-predict", "run=run", rc=2).stderr


def test_a_line_is_a_text_whatever_it_holds(tmp_path):
    (tmp_path / "x.txt").write_text("one\u2028still one\r\ntwo\x0c\n", newline="")
    assert read_texts(tmp_path / "x.txt") == ["one\u2028still one", "two\x0c"]
    (tmp_path / "x.txt").write_text("one\n \ntwo\n")
    with pytest.raises(ValueError, match=r"x.txt must have a text in each row, got none in row 2$"):
        read_texts(tmp_path / "x.txt")


def test_a_file_with_an_array_of_images_has_a_row_for_each(tmp_path):
    saved(tmp_path / "run", "dataset=digits", "student=cnn_small")
    saved(tmp_path / "dense", "dataset=shapes", "task=segmentation", "student=unet")
    student, dense = load(tmp_path / "run"), load(tmp_path / "dense")
    images = np.random.default_rng(0).integers(256, size=(5, 1, 8, 8), dtype=np.uint8)
    for name, x in {"bytes": images, "floats": images / 255, "large": images.repeat(3, 2).repeat(3, 3)}.items():
        np.save(tmp_path / f"{name}.npy", x)
        write(student, tmp_path / f"{name}.npy", tmp_path / f"{name}.csv", batch_size=2)
        rows = rows_of(tmp_path / f"{name}.csv")
        assert [row["row"] for row in rows] == list("12345")
        assert (
            [row["label"] for row in rows]
            == student.predict(x).labels
            == student.predict(tmp_path / f"{name}.npy").labels
        )
    coloured = np.random.default_rng(0).integers(256, size=(2, 9, 12, 3), dtype=np.uint8)
    np.save(tmp_path / "coloured.npy", coloured)
    rows = rows_of(write(dense, tmp_path / "coloured.npy", tmp_path / "masks").table)
    assert [row["mask"] for row in rows] == ["1.png", "2.png"]
    with Image.open(tmp_path / "masks" / "2.png") as image:
        assert np.array_equal(image, dense.predict(coloured).masks[1])
    np.save(tmp_path / "long.npy", images.astype(np.int64))
    np.savez(tmp_path / "x.npz", images)
    for name, message in (
        ("long.npy", r"long.npy must have uint8 in 0..255 or floats, got int64 of shape \[5, 1, 8, 8\]$"),
        ("x.npz", r"^x must be an image, .*, or a npy file of images \(N, C, H, W\): uint8, or floats in .*x.npz$"),
    ):
        with pytest.raises(ValueError, match=message):
            write(student, tmp_path / name, tmp_path / "no.csv")
    assert not (tmp_path / "no.csv").exists()
