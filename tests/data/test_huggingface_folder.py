"""dataset=huggingface: folders as the library writes them, against what was put into them."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from kdexp.data.huggingface import load
from kdexp.data.image_folder import ImageFiles
from kdexp.data.texts import texts_of

datasets = pytest.importorskip("datasets", reason="pip install 'kdexp[huggingface]'")
pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
datasets.disable_progress_bars()
NAMES = ["zebra", "ant"]  # not in the alphabet's order
LABEL = datasets.ClassLabel(names=NAMES)


def picture(number, mode="RGB"):
    return Image.fromarray(np.random.default_rng(number).integers(0, 255, (8, 12, 3), np.uint8)).convert(mode)


def written(image, form="PNG") -> bytes:
    image.save(file := io.BytesIO(), form)
    return file.getvalue()


def split(n=12, **columns):
    words, labels = dict.fromkeys(("text", "word", "kind"), datasets.Value("string")), {"label": LABEL}
    features = {"image": datasets.Image(), "x": datasets.Value("int16"), "on": datasets.Value("bool")}
    features |= {"off": datasets.Value("int8"), "tags": datasets.List(LABEL)} | words | labels
    features |= {"sound": datasets.List(datasets.Value("float32"))}
    rows = {
        "image": [{"bytes": written(picture(i)), "path": None} for i in range(n)],
        "label": [i % 2 for i in range(n)],
        "text": [f"text number {i}" for i in range(n)],
        "x": list(range(n)),
        "word": ["a", "b", "c"] * (n // 3),
        "kind": ["yes", "no"] * (n // 2),
        "on": [i % 2 == 0 for i in range(n)],
        "off": [i % 2 for i in range(n)],
        "tags": [[0, 1] if i % 3 == 0 else [1] if i % 3 == 1 else [] for i in range(n)],
        "sound": [[0.0]] * n,
    }
    return datasets.Dataset.from_dict({**rows, **columns}, features=datasets.Features(features))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "data"
    datasets.DatasetDict({"train": split(), "validation": split(6), "test": split(6)}).save_to_disk(str(folder))
    return folder


def test_images_are_those_of_the_same_files_in_a_folder(saved, tmp_path):
    source = load(str(saved), "label", image="image", size=16)
    assert (source.classes, source.train_target.tolist()) == (NAMES, [0, 1] * 6)
    (path := tmp_path / "5.png").write_bytes(written(picture(5)))
    assert torch.equal(source.train_inputs[5], ImageFiles([path], 16)[0])
    assert source.val is not None
    assert (len(source.val[1]), len(source.test_inputs)) == (6, 6)


def test_a_table_has_numbers_as_they_are_and_words_one_hot(saved):
    source = load(str(saved), "label", columns=["x", "word", "on"])
    wanted = [[i, i % 3 == 0, i % 3 == 1, i % 3 == 2, i % 2 == 0] for i in range(12)]
    assert torch.equal(source.train_inputs, torch.tensor(wanted, dtype=torch.float32))
    assert source.classes == NAMES


def test_texts_and_classes_in_words(saved):
    source = load(str(saved), "kind", text="text")
    assert texts_of(source.test_inputs) == [f"text number {i}" for i in range(6)]
    assert (source.classes, source.test_target.tolist()) == (["no", "yes"], [1, 0] * 3)


def test_several_labels_a_row(saved):
    lists = load(str(saved), "tags", columns=["x"])
    assert lists.train_target[:3].tolist() == [[1, 1], [0, 1], [0, 0]]
    assert lists.classes == NAMES
    columns = load(str(saved), ["on", "off"], columns=["x"])
    assert columns.train_target[:2].tolist() == [[1, 0], [0, 1]]
    assert columns.classes == ["on", "off"]


@pytest.mark.parametrize("form", ["parquet", "arrow", "one"])
def test_other_folders_give_the_same(saved, tmp_path, form):
    stored = datasets.load_from_disk(str(saved))
    if form == "one":
        stored["train"].save_to_disk(str(tmp_path))
    elif form == "arrow":  # as the library's own cache has them
        for name, rows in stored.items():
            (tmp_path / f"mine-{name}.arrow").write_bytes((saved / name / "data-00000-of-00001.arrow").read_bytes())
            assert len(rows)
    else:
        (tmp_path / "data").mkdir()
        halves = stored["train"].select(range(6)), stored["train"].select(range(6, 12))
        for number, half in enumerate(halves):
            half.to_parquet(str(tmp_path / "data" / f"train-0000{number}-of-00002.parquet"))
        stored["validation"].to_parquet(str(tmp_path / "data" / "dev.parquet"))
        stored["test"].to_parquet(str(tmp_path / "data" / "test-00000-of-00001.parquet"))
    found, wanted = (load(str(folder), "label", image="image", size=8) for folder in (tmp_path, saved))
    assert found.classes == wanted.classes
    if form == "one":  # a fifth is tested on
        assert (len(found.train_target), len(found.test_target), found.val) == (10, 2, None)
        return
    assert torch.equal(found.train_target, wanted.train_target)
    assert all(torch.equal(found.train_inputs[i], wanted.train_inputs[i]) for i in range(12))
    assert len(found.val[1]) == 6


def test_splits_are_taken_by_name(saved):
    source = load(str(saved), "label", columns=["x"], test="validation")
    assert source.val is None
    assert len(source.test_target) == 6
    small = load(str(saved), "label", columns=["x"], train="test", test="train")
    assert (len(small.train_target), len(small.test_target), len(small.val[1])) == (6, 12, 6)


def test_an_image_set_is_known_by_its_files_rows_and_size(saved, tmp_path):
    def digest(**changed):
        return load(**{"folder": str(saved), "label": "label", "image": "image", "size": 8} | changed).train_inputs

    first = digest().fingerprint(tmp_path)
    assert first == digest().fingerprint(tmp_path)
    assert (
        len({first, digest(size=9).fingerprint(tmp_path), digest(train="test", test="train").fingerprint(tmp_path)})
        == 3
    )


@pytest.mark.parametrize("form", ["TIFF", "GIF", "JPEG"])
def test_other_forms_of_images(tmp_path, form):
    files = [{"bytes": written(picture(i), form), "path": None} for i in range(12)]
    split(image=files).save_to_disk(str(tmp_path))
    assert load(str(tmp_path), "label", image="image", size=8).train_inputs[0].shape == (3, 8, 8)


LOST = [{"bytes": None, "path": "/etc/passwd"}] + [{"bytes": b"x", "path": None}] * 11


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label": "lable"}, r"dataset.source.label must name columns of train \(.*\), got 'lable'"),
        ({"image": "photo"}, r"dataset.source.image must name columns of train \(.*\), got 'photo'"),
        ({"image": "x"}, r"dataset.source.image must name a column of images, got 'x' of type int16; for arrays .*"),
        ({"text": "x"}, r"dataset.source.text must name a column of texts, got 'x' of type int16"),
        ({"columns": ["sound"]}, r"dataset.source.columns must be numbers or words, got 'sound' of type list<.*"),
        ({"text": "text", "image": "image"}, r"dataset.source.text must be null with dataset.source.image, got text"),
        ({"text": "text", "words": ["x"]}, r"dataset.source.words must not be set with images or texts, got \['x'\]"),
        ({"label": []}, r"dataset.source.label must name a column, got none"),
        ({"test": "dev"}, r"dataset.source.test must be a split of data \(train, validation, test\), got dev"),
        ({"test": "train"}, r"dataset.source must have different splits for train, val and test, got .*"),
        ({"label": "sound"}, r"dataset.source.label must be numbers or words, got 'sound' of type list<.*"),
        ({"label": "text"}, r"dataset.source.label must have classes, as words or whole numbers, got 12 different .*"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(saved, settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        load(**{"folder": str(saved), "label": "label"} | settings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"label": [-1] + [0, 1] * 5 + [0]}, "label must be given in each row, got none in 'label', row 0 of train"),
        ({"label": [0, None] + [0, 1] * 5}, "label must be given in each row, got none in 'label', row 1 of train"),
        ({"image": LOST}, "image must have the images in .*, got the name of a file, '/etc/passwd', in row 0 of .*"),
        ({"image": LOST[::-1]}, "image must hold images of 8 or 16 bits a channel, got another in row 0 of train"),
        ({"image": [None] * 12}, "image must have the images in the data set, got none in row 0 of train"),
    ],
)
def test_what_is_wrong_with_rows_is_one_line(tmp_path, columns, message):
    split(**({} if "image" in columns else columns)).to_parquet(str(tmp_path / "train.parquet"))
    if "image" in columns:  # the library would look for the file
        table = parquet.read_table(tmp_path / "train.parquet")
        images = pyarrow.array(columns["image"], table.schema.field("image").type)
        table = table.set_column(table.column_names.index("image"), "image", images)
        parquet.write_table(table, tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=rf"^dataset\.source\.{message}$"):
        load(str(tmp_path), "label", image="image")


def test_a_missing_value_of_a_table_is_refused_or_filled(tmp_path):
    split(x=[None, *range(1, 12)]).save_to_disk(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"^dataset.source.missing must be mean where .*: 'x' has none in line 1 of train"
    ):
        load(str(tmp_path), "label", columns=["x"])
    source = load(str(tmp_path), "label", columns=["x"], missing="mean")
    assert source.train_inputs.isfinite().all()
    assert source.test_inputs.isfinite().all()


def test_an_image_that_is_cut_off_is_named_when_it_is_read(tmp_path):
    whole = written(picture(0))
    split(image=[{"bytes": whole[:-30], "path": None}] * 12).save_to_disk(str(tmp_path))
    source = load(str(tmp_path), "label", image="image")
    with pytest.raises(ValueError, match=r"^dataset.source.image must hold whole images, got in row \d+ of train: "):
        source.train_inputs[0]


def test_folders_that_are_none_are_one_line(tmp_path, saved, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^dataset.source.folder: not found: .*imdb"):
        load("imdb", "label", data_dir=str(tmp_path))
    (tmp_path / "imdb.py").write_text("raise SystemExit('run')")
    with pytest.raises(
        FileNotFoundError, match=r"save_to_disk wrote.* with imdb.py, a loading script, which is not run$"
    ):
        load(str(tmp_path), "label")
    with pytest.raises(ValueError, match=r"^dataset.source.folder must be a folder, got the file "):
        load(str(tmp_path / "imdb.py"), "label")
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"^dataset.source.folder must hold a whole data set, got [^\n]*$"):
        load(str(tmp_path), "label")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "train.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="must have the files of train in one folder, all parquet or all arrow, got "):
        load(str(tmp_path), "label")
    split().select([]).save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(ValueError, match=r"must hold a whole data set, got .*empty: train must have rows, got none$"):
        load(str(tmp_path / "empty"), "label")
    monkeypatch.setattr("importlib.import_module", lambda name: (_ for _ in ()).throw(ImportError(name)))
    with pytest.raises(ValueError, match=r"^datasets must be installed for .*: pip install 'kdexp\[huggingface\]'$"):
        load(str(saved), "label")


@pytest.mark.parametrize("name", ["../other.arrow", "/etc/passwd"])
def test_a_saved_folder_that_names_what_is_outside_is_refused(tmp_path, name):
    split().save_to_disk(str(tmp_path / "mine"))
    state = json.loads((tmp_path / "mine" / "state.json").read_text())
    (tmp_path / "mine" / "state.json").write_text(json.dumps(state | {"_data_files": [{"filename": name}]}))
    with pytest.raises(ValueError, match=r"^dataset.source.folder must hold a whole data set, got .*which is outside$"):
        load(str(tmp_path / "mine"), "label", columns=["x"])
