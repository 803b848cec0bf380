"""Arrays in files as data."""

import json

import numpy as np
import pytest
import torch

from kdexp.config.compose import compose, plain
from kdexp.data import own
from kdexp.data.arrays import load
from kdexp.data.inferred import take
from kdexp.data.splits import make_splits

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(60, 5)), np.arange(60) % 3
IMAGES = RNG.integers(0, 256, (60, 6, 8, 3), dtype=np.uint8)


def saved(folder, name="my.npz", **arrays):
    np.savez(folder / name, **arrays)
    return str(folder)


def composed(folder, *overrides):
    return compose(["dataset=arrays", f"dataset.source.file={folder}/my.npz", *overrides], output_dir=folder)


def whole(source):
    return torch.cat([source.train_inputs, source.test_inputs]), torch.cat([source.train_target, source.test_target])


def rows(inputs, target):
    return sorted(np.column_stack([inputs.reshape(len(inputs), -1), target]).tolist())


@pytest.mark.parametrize("names", [("x", "y"), ("data", "target"), ("X", "labels")])
def test_a_npz_file_with_usual_names(tmp_path, names):
    source = load("my.npz", saved(tmp_path, **dict(zip(names, (X, Y), strict=True))))
    assert source.train_inputs.dtype == torch.float32
    assert source.train_target.dtype == torch.int64
    assert source.classes is None
    assert source.test_target.bincount().tolist() == [4, 4, 4]
    inputs, target = whole(source)
    assert rows(inputs.numpy(), target.numpy()) == rows(X.astype(np.float32), Y)


def test_own_names_are_given_by_two_settings(tmp_path):
    folder = saved(tmp_path, spectra=X, kind=Y, x=IMAGES, more=X)
    assert list(load("my.npz", folder, inputs="spectra", labels="kind").train_inputs.shape) == [48, 5]


@pytest.mark.parametrize("form", ["{name}_{part}", "{part}_{name}"], ids=["as Keras", "as MedMNIST"])
def test_parts_in_one_file(tmp_path, form):
    sizes = {"train": 30, "val": 12, "test": 18}
    arrays, start = {}, 0
    for part, size in sizes.items():
        at = slice(start, start := start + size)
        arrays |= {
            form.format(name="images", part=part): IMAGES[at],
            form.format(name="labels", part=part): Y[at, None],
        }
    source = load("my.npz", saved(tmp_path, **arrays))
    assert [len(source.train_target), len(source.val[1]), len(source.test_target)] == [30, 12, 18]
    np.testing.assert_array_equal(source.test_inputs.numpy(), IMAGES[42:].transpose(0, 3, 1, 2))
    assert source.val[1].tolist() == Y[30:42].tolist()


def test_a_pair_of_npy_files_and_another_pair_for_test(tmp_path):
    for name, array in {"x": X[:40], "y": Y[:40], "a": X[40:], "b": Y[40:]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    source = load("x.npy", str(tmp_path), labels="y.npy", test="a.npy", test_labels="b.npy")
    np.testing.assert_array_equal(source.train_inputs.numpy(), X[:40].astype(np.float32))
    assert source.test_target.tolist() == Y[40:].tolist()
    with pytest.raises(ValueError, match=r"labels must be the npy file of the labels of x.npy, got None"):
        load("x.npy", str(tmp_path))


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES, [3, 6, 8]),
        (IMAGES.transpose(0, 3, 1, 2), [3, 6, 8]),
        (IMAGES[..., 0], [1, 6, 8]),
        (IMAGES[..., :1], [1, 6, 8]),
        (np.concatenate([IMAGES, IMAGES[..., :1]], 3), [4, 6, 8]),
    ],
    ids=["hwc", "chw", "hw", "hw1", "rgba"],
)
def test_images_are_recognised_by_their_channels(tmp_path, images, shape):
    folder = saved(tmp_path, x=images, y=Y)
    found = whole(load("my.npz", folder))[0]
    assert list(found.shape[1:]) == shape
    assert found.dtype == torch.uint8
    assert sorted(found[:, 0].flatten(1).tolist()) == sorted(IMAGES[..., 0].reshape(60, -1).tolist())
    floats = whole(load("my.npz", saved(tmp_path, x=images / 255, y=Y)))[0]
    assert floats.dtype == torch.float32
    if images.ndim == 4:
        assert list(floats.shape[1:]) == shape


def test_where_the_channels_might_be_in_two_places_the_layout_is_given(tmp_path, caplog):
    folder = saved(tmp_path, x=IMAGES.reshape(60, 3, 16, 3), y=Y)
    with pytest.raises(ValueError, match=r"layout must be chw or hwc .* shape \(60, 3, 16, 3\)"):
        load("my.npz", folder)
    assert list(load("my.npz", folder, layout="hwc").train_inputs.shape) == [48, 3, 3, 16]
    assert list(load("my.npz", folder, layout="chw").train_inputs.shape) == [48, 3, 16, 3]


def test_what_is_read_is_said(tmp_path, caplog):
    caplog.set_level("INFO", "kdexp.data.arrays")
    load("my.npz", saved(tmp_path, x=IMAGES, y=np.array(["cat", "dog", "elk"])[Y]))
    assert (
        f"{tmp_path}/my.npz (x, y): 48 train, 12 test samples; images (channels, height, width) [3, 6, 8] of uint8, "
        "given as [6, 8, 3]; 3 classes: cat, dog, elk"
    ) in caplog.text


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.array(["b", "a", "c"])[Y], ["a", "b", "c"]),
        (np.array([b"b", b"a", b"c"])[Y], ["a", "b", "c"]),
        (np.array([7, -1, 10])[Y], ["-1", "7", "10"]),
        (Y.astype(np.float64), None),
        (Y.astype(np.uint8)[:, None], None),
        (Y > 0, None),
    ],
    ids=["words", "bytes", "numbers", "floats", "column", "booleans"],
)
def test_labels_are_words_or_whole_numbers(tmp_path, labels, classes):
    source = load("my.npz", saved(tmp_path, x=np.arange(60.0)[:, None], y=labels))
    inputs, target = whole(source)
    assert source.classes == classes
    flat = labels.reshape(60)
    expected = np.unique(flat, return_inverse=True)[1]
    assert target[inputs[:, 0].argsort()].tolist() == expected.tolist()


def test_rows_of_0_and_1_are_a_multilabel_task(tmp_path, caplog):
    y = RNG.integers(0, 2, (60, 4))
    saved(tmp_path, x=X, y=y)
    dataset = composed(tmp_path).dataset
    assert (dataset.kind, dataset.num_classes, dataset.num_outputs) == ("multilabel", 4, 4)
    inputs, target = whole(take(plain(dataset.source)))
    assert target.dtype == torch.float32
    assert rows(inputs.numpy(), target.numpy()) == rows(X.astype(np.float32), y)
    assert "argmax" not in caplog.text
    load("my.npz", saved(tmp_path, x=X, y=np.eye(3)[Y]))
    assert "exactly one of 3 labels: for classes that exclude each other give numbers, y.argmax(1)" in caplog.text


def test_statistics_of_images_are_those_of_the_training_split_by_channel(tmp_path):
    saved(tmp_path, x=IMAGES, y=Y)
    dataset = composed(tmp_path).dataset
    source = take(plain(dataset.source))
    train = make_splits(source, kind="multiclass", num_classes=3, val_fraction=0.1, split_seed=0).train
    pixels = train.inputs[train.index].numpy() / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean((0, 2, 3)), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, pixels.std((0, 2, 3)), rtol=1e-5)
    assert list(dataset.input_shape) == [3, 6, 8]


@pytest.mark.parametrize("shape", [(60, 5), (60, 7, 5)], ids=["tables", "sequences"])
def test_statistics_of_anything_else_are_by_feature(tmp_path, shape):
    x = RNG.normal(3, 2, shape)
    saved(tmp_path, x=x, y=Y, x_val=x[:6], y_val=Y[:6], x_test=x, y_test=Y, x_train=x, y_train=Y)
    with pytest.raises(ValueError, match=r"must have one pair of training arrays, got .*'x', 'y'.* and .*x_train"):
        composed(tmp_path)
    saved(tmp_path, x_val=x[:6], y_val=Y[:6], x_test=x, y_test=Y, x_train=x, y_train=Y)
    dataset = composed(tmp_path).dataset
    flat = x.astype(np.float32).astype(np.float64).reshape(-1, 5)
    np.testing.assert_allclose(dataset.mean, flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(dataset.std, flat.std(0), rtol=1e-5)


NAN = np.where(np.arange(60)[:, None] == [[7, 9, 60, 60, 60]], np.nan, X)
REFUSED = {
    "token ids": ({"x": np.zeros((60, 128), np.int64)}, "must be floats, or images of uint8, got int64 .*token ids"),
    "NaN": ({"x": NAN}, r"must be finite, got NaN or Inf in 2 samples of .*my.npz \(x, y\), the first at 7"),
    "objects": ({"x": np.array([{}] * 60)}, "must hold plain arrays, got: Object arrays cannot be loaded"),
    "scalars": ({"x": X[:, 0]}, r"must have inputs \(N, ...\) and labels .*, got \(60,\) and \(60,\)"),
    "lengths": ({"y": Y[:50]}, r"got \(60, 5\) and \(50,\)"),
    "fractions": ({"y": Y / 2}, "labels must be classes, as words or whole numbers, got 0.5 at 1"),
    "missing labels": ({"y": np.where(Y == 2, np.nan, Y)}, "labels must be given for each sample, got nan at 2"),
    "rows": ({"y": np.stack([Y, Y], 1)}, "labels must be 0 and 1 where a sample has several, got 2"),
    "bands": ({"x": np.zeros((60, 13, 8, 8))}, r"layout must be chw or hwc .* \(60, 13, 8, 8\)"),
    "other test classes": (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1},
        "must have the classes of the training samples .0, 1, 2., got '3' in .*x_test, y_test",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arrays_that_cannot_be_learned_from_are_refused_in_one_line(tmp_path, name):
    arrays, words = REFUSED[name]
    given = arrays if "x_train" in arrays else {"x": X, "y": Y} | arrays
    with pytest.raises(ValueError, match=f"^dataset.source.*{words}") as error:
        load("my.npz", saved(tmp_path, **given))
    assert "\n" not in str(error.value)


def test_names_that_are_not_there_are_told_with_those_that_are(tmp_path):
    folder = saved(tmp_path, spectra=X, kind=Y)
    with pytest.raises(ValueError, match=r"arrays of my.npz \(spectra, kind\), got none, and none has a usual name"):
        load("my.npz", folder)
    with pytest.raises(ValueError, match=r"arrays of my.npz \(spectra, kind\), got inputs=a and labels=b"):
        load("my.npz", folder, inputs="a", labels="b")


@pytest.mark.parametrize("name", ["my.npz", "my.npy", "my.parquet"])
def test_files_that_are_none_are_refused_in_one_line(tmp_path, name):
    pytest.importorskip("pyarrow") if name == "my.parquet" else None
    (tmp_path / name).write_bytes(b"not an array")
    with pytest.raises(ValueError, match=rf"dataset.source: \S*{name} must be a whole [^\n]*$"):
        load(name, str(tmp_path), labels=name)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "my.mat").touch()
    with pytest.raises(ValueError, match=r"dataset.source.file must be a npz, npy or parquet file, got \S*my.mat"):
        load("my.mat", str(tmp_path))


def test_a_parquet_file(tmp_path):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    words = np.array(["b", "a", "c"])[Y]
    table = {"u": X[:, 0], "v": np.arange(60), "vector": list(X), "label": words, "on": Y % 2, "off": 1 - Y % 2}
    table |= {"gap": [None, *[1.0] * 59], "uneven": [[0.0] * (1 + i % 2) for i in range(60)]}
    parquet.write_table(pa.table(table), tmp_path / "my.parquet")

    def loaded(**settings):
        return load("my.parquet", str(tmp_path), **settings)

    source = loaded(inputs=["u", "v"])
    inputs, target = whole(source)
    assert source.classes == ["a", "b", "c"]
    expected = np.column_stack([X[:, 0], np.arange(60)]).astype(np.float32)
    assert rows(inputs.numpy(), target.numpy()) == rows(expected, np.unique(words, return_inverse=True)[1])
    source = loaded(inputs="vector", labels=["on", "off"])
    assert source.classes == ["on", "off"]
    inputs, target = whole(source)
    assert rows(inputs.numpy(), target.numpy()) == rows(X.astype(np.float32), np.column_stack([Y % 2, 1 - Y % 2]))
    for settings, words in (
        ({"inputs": ["u", "gap"]}, r"inputs must have a value in each row, got none in 'gap', row 0 \(from 0\)"),
        ({"inputs": "uneven"}, r"lists of them of one length, got 'uneven' of type list<"),
        ({"inputs": ["u", "label"], "labels": "on"}, r"columns of numbers, .* got 'label' of type string"),
        ({"inputs": ["u", "vector"]}, r"one column of lists or several of numbers, got \['u', 'vector'\]"),
        ({"inputs": "w"}, r"inputs must name columns of my.parquet \(u, v, .*\), got 'w'"),
    ):
        with pytest.raises(ValueError, match=words):
            loaded(**settings)


def test_a_few_bytes_that_stand_for_many_are_not_unpacked(tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(own, "_UNPACKED", 2**16)
    parquet.write_table(pa.table({"u": np.zeros(10**6), "label": np.zeros(10**6, int)}), tmp_path / "my.parquet")
    np.savez_compressed(tmp_path / "my.npz", x=np.zeros((10**6, 1)), y=np.zeros(10**6, int))
    for name in ("my.parquet", "my.npz"):
        with pytest.raises(ValueError, match=rf"{name} must have at most \S+ GB unpacked, got 0.0149 GB$"):
            load(name, str(tmp_path))
    words = pa.table({"u": [1.0, 2.0] * 500, "label": ["a" * 200, "b" * 200] * 500})
    parquet.write_table(words, tmp_path / "words.parquet")
    assert load("words.parquet", str(tmp_path)).classes == ["a" * 200, "b" * 200]


def test_without_pyarrow_a_parquet_file_is_refused_with_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    (tmp_path / "my.parquet").touch()
    with pytest.raises(ValueError, match=r"pip install 'kdexp\[parquet\]'"):
        load("my.parquet", str(tmp_path))


def test_a_file_is_all_that_is_typed(command, tmp_path):
    images = np.where((Y == 0)[:, None, None, None], 255 - IMAGES // 4, IMAGES // 4)
    saved(tmp_path, x=np.tile(images, (1, 2, 2, 1)), y=RNG.integers(0, 2, (60, 2)))
    command("kdexp-train", "dataset=arrays", "dataset.source.file=my.npz", "student=cnn", "teacher=cnn",
            "output_dir=run", "hydra.run.dir=run", "trainer.max_epochs=1", "teacher.recipe.max_epochs=1",
            "dataset.batch_size=16", "teacher.recipe.batch_size=16")  # fmt: skip
    dataset = json.loads((tmp_path / "run" / "results.json").read_text())["config"]["dataset"]
    assert (dataset["kind"], dataset["num_classes"], dataset["input_shape"]) == ("multilabel", 2, [3, 12, 16])
    saved(tmp_path, x=np.zeros((60, 12), np.int64), y=Y)
    for program in ("kdexp-train", "kdexp-doctor"):
        refused = command(program, "dataset=arrays", "dataset.source.file=my.npz", rc=2).stderr
        assert refused.startswith("error: dataset.source.inputs must be floats, or images of uint8, got int64")
        assert refused.count("\n") == 1
