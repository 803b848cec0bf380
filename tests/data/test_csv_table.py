"""A csv file as data: compared with scikit-learn's own encoders, scalers and splits."""

import csv
import json
import logging

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.contracts import Source
from kdexp.data.inferred import take
from kdexp.data.splits import make_splits
from kdexp.data.table import load

ROWS = [
    ["age", "job", "code", "married", "risk"],
    *([str(20 + i), ("nurse", "smith", "clerk")[i % 3], str(i % 2), "yes" if i % 5 else "no", ("low", "high")[i % 2]]
      for i in range(40)),
]  # fmt: skip


def written(folder, rows=ROWS, name="my.csv", delimiter=",", encoding="utf-8"):
    with (folder / name).open("w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return str(folder)


def changed(row, column, value, rows=ROWS):
    rows = [list(cells) for cells in rows]
    rows[row][column] = value
    return rows


def composed(folder, *overrides, label="risk"):
    source = [f"dataset.source.file={folder}/my.csv", f"dataset.source.label={label}"]
    return compose(["dataset=csv", *source, *overrides], output_dir=folder)


def whole(source: Source):
    return torch.cat([source.train_inputs, source.test_inputs]), torch.cat([source.train_target, source.test_target])


def test_words_are_one_hot_encoded_and_numbers_kept_as_scikit_learn_does(tmp_path):
    inputs, target = whole(load("my.csv", "risk", written(tmp_path)))
    table = np.array(ROWS[1:], dtype=object)
    words = OneHotEncoder(sparse_output=False)
    expected = np.column_stack(
        [table[:, :1].astype(float), words.fit_transform(table[:, 1:2]), table[:, 2:3].astype(float),
         words.fit_transform(table[:, 3:4]), table[:, 4] == "low"]  # the classes are high, low
    )  # fmt: skip
    assert inputs.dtype == torch.float32
    assert target.dtype == torch.int64
    found = torch.column_stack([inputs, target]).tolist()
    assert sorted(found) == sorted(expected.astype(float).tolist())


def test_the_test_part_is_stratified_and_the_same_whatever_the_seeds_are(tmp_path):
    folder = written(tmp_path)
    a, b = load("my.csv", "risk", folder), load("my.csv", "risk", folder, split_seed=5)
    assert torch.equal(a.test_inputs, b.test_inputs)
    assert a.test_target.bincount().tolist() == [4, 4]
    assert len(load("my.csv", "risk", folder, test_fraction=0.5).test_target) == 20
    assert sorted(whole(a)[0][:, 0].tolist()) == list(range(20, 60))


def test_what_is_inferred_is_what_scikit_learn_finds_in_the_training_split(tmp_path):
    written(tmp_path)
    dataset = composed(tmp_path, "dataset.split_seed=3").dataset
    assert (dataset.kind, dataset.num_classes, dataset.num_outputs) == ("multiclass", 2, 2)
    assert list(dataset.input_shape) == [7]
    source = take(plain(dataset.source))
    train = make_splits(source, kind="multiclass", num_classes=2, val_fraction=0.1, split_seed=3).train
    scaler = StandardScaler().fit(train.inputs[train.index].double().numpy())
    np.testing.assert_allclose(dataset.mean, scaler.mean_, rtol=1e-5)
    np.testing.assert_allclose(dataset.std, scaler.scale_, rtol=1e-5)
    assert list(composed(tmp_path, "dataset.split_seed=4").dataset.mean) != list(dataset.mean)
    # Neither the subset nor the seed changes them: the same teacher serves all runs.
    assert list(
        composed(tmp_path, "dataset.split_seed=3", "dataset.train_fraction=0.5", "seed=9").dataset.mean
    ) == list(dataset.mean)


def test_networks_take_what_is_inferred(tmp_path):
    written(tmp_path)
    config = composed(tmp_path)
    assert config.student.num_classes == config.teacher.num_classes == 2
    assert list(config.student.input_shape) == [7]
    assert list(config.teacher.mean) == list(config.dataset.mean)


def test_the_file_is_read_once_and_again_when_it_has_changed(tmp_path, caplog):
    caplog.set_level(logging.INFO, "kdexp.data.table")
    written(tmp_path)
    source = take(plain(composed(tmp_path).dataset.source))
    assert len(caplog.records) == 1
    assert source.train_inputs.shape[1] == 7
    written(tmp_path, [row[1:] for row in ROWS])
    assert list(composed(tmp_path).dataset.input_shape) == [6]


def test_a_constant_column_is_left_as_it_is(tmp_path):
    written(tmp_path, [[*row, "size" if row[0] == "age" else "3"] for row in ROWS])
    dataset = composed(tmp_path).dataset
    assert (dataset.mean[-1], dataset.std[-1]) == (3, 1)


def test_a_fingerprint_has_the_name_of_the_file_and_not_where_one_stands(tmp_path, monkeypatch):
    found = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        written(tmp_path / name)
        monkeypatch.chdir(tmp_path / name)
        config = plain(compose(["dataset=csv", "dataset.source.file=my.csv", "dataset.source.label=risk"],
                               output_dir=tmp_path))  # fmt: skip
        assert config["dataset"]["source"]["data_dir"][0] == str(tmp_path / name)
        found.append(Identity(config).fingerprint)
    assert found[0] == found[1]


def test_missing_values_are_filled_with_the_means_of_the_known_values_of_the_training_split(tmp_path):
    words = ["red", "blue", "blue"]
    rows = [["x", "word", "y"], *([str(i * i), words[i % 3], "ab"[i % 2]] for i in range(30))]
    rows += [["", "red", "a"], ["900", "NA", "b"]]
    written(tmp_path, rows)
    written(tmp_path, [["x", "word", "y"], ["1", "red", "a"], ["?", "NaN", "b"]], name="test.csv")
    source = load("my.csv", "y", str(tmp_path), test="test.csv", missing="mean", split_seed=1, val_fraction=0.25)
    train = make_splits(source, kind="multiclass", num_classes=2, val_fraction=0.25, split_seed=1).train.index.tolist()
    table = np.array([[float("nan") if cell in ("", "NA") else cell for cell in row[:2]] for row in rows[1:]], object)
    mean = SimpleImputer().fit(table[train, :1].astype(float)).statistics_[0]
    seen = [word for word in table[train, 1] if isinstance(word, str)]
    frequencies = [seen.count("blue") / len(seen), seen.count("red") / len(seen)]
    assert source.test_inputs[0].tolist() == [1, 0, 1]
    assert source.test_inputs[1].tolist() == pytest.approx([mean, *frequencies])
    assert source.train_inputs[30].tolist() == pytest.approx([mean, 0, 1])
    assert source.train_inputs[31].tolist() == pytest.approx([900, *frequencies])


@pytest.mark.parametrize(("delimiter", "encoding"), [(";", "utf-8-sig"), ("\t", "utf-8"), ("|", "utf-8")])
def test_other_delimiters_and_excels_mark_are_understood(tmp_path, delimiter, encoding):
    plainly = load("my.csv", "risk", written(tmp_path))
    found = load("my.csv", "risk", written(tmp_path, delimiter=delimiter, encoding=encoding))
    assert torch.equal(found.train_inputs, plainly.train_inputs)
    assert found.classes == ["high", "low"]


def test_files_of_their_own_for_val_and_test(tmp_path):
    folder = written(tmp_path)
    written(tmp_path, ROWS[:11], name="test.csv")
    # In another order, with a column more.
    written(tmp_path, [[*reversed(row), "more"] for row in ROWS[:6]], name="val.csv")
    source = load("my.csv", "risk", folder, val="val.csv", test="test.csv")
    assert [len(source.train_target), len(source.test_target), len(source.val[1])] == [40, 10, 5]
    assert torch.equal(source.val[0], source.train_inputs[:5])
    assert torch.equal(source.test_target, source.train_target[:10])


def test_words_that_only_the_test_file_has_are_none_of_the_known_ones(tmp_path, caplog):
    folder = written(tmp_path)
    written(tmp_path, changed(1, 1, "baker")[:3], name="test.csv")
    source = load("my.csv", "risk", folder, test="test.csv")
    assert source.test_inputs[0, 1:4].tolist() == [0, 0, 0]
    assert "'job' of test.csv that the training file has not: baker" in caplog.text


@pytest.mark.parametrize(
    ("names", "told", "numbers"),
    [
        (["10", "9", "9", "10"], ["9", "10"], [1, 0, 0, 1]),
        (["1.0", "0.0", "1.0", "0"], None, [1, 0, 1, 0]),
        (["b", "a", "1", "b"], ["1", "a", "b"], [2, 1, 0, 2]),
    ],
    ids=["numbers", "numbers from 0", "words"],
)
def test_classes_are_in_the_order_of_numbers_or_of_the_alphabet(tmp_path, names, told, numbers):
    rows = [["x", "y"], *([str(i), name] for i, name in enumerate(names * 4))]
    source = load("my.csv", "y", written(tmp_path, rows), columns=["x"])
    inputs, target = whole(source)
    assert source.classes == told
    assert target[inputs[:, 0].argsort()].tolist() == numbers * 4


def test_several_label_columns_are_a_multilabel_task(tmp_path):
    rows = [["x", "red", "big"], *([str(i), str(i % 2), ("true", "False")[i // 2 % 2]] for i in range(20))]
    written(tmp_path, rows)
    dataset = composed(tmp_path, label="[red,big]").dataset
    assert (dataset.kind, dataset.num_classes, list(dataset.input_shape)) == ("multilabel", 2, [1])
    source = take(plain(dataset.source))
    assert source.classes == ["red", "big"]
    inputs, target = whole(source)
    assert target.dtype == torch.float32
    assert target[inputs[:, 0].argsort()].tolist() == [[i % 2, 1 - i // 2 % 2] for i in range(20)]


REFUSED = {
    "value missing": (changed(3, 0, ""), {}, "missing must be mean .* got refuse: 'age' has none in line 4 of my.csv"),
    "label missing": (changed(7, 4, ""), {}, "label must be given in each row, got none in 'risk', line 8"),
    "word among numbers": (changed(9, 0, "old"), {}, "numbers or words, got both in 'age': 'old' in line 10"),
    "decimal comma": (changed(9, 0, "12,5"), {}, "got a comma in 12,5 of 'age', line 10 .* write 12.5 in"),
    "decimal commas": (
        [["x", "y"], *([f"-1.000,{i % 3}", "ab"[i % 2]] for i in range(9))], {"label": "y"},
        "decimal points, got a comma in -1.000,0 of 'x', line 2 of my.csv; write -1000.0 in the file",
    ),
    "number among words": (changed(9, 1, "7"), {}, "numbers or words, got both in 'job': '7' in line 10"),
    "infinite": (changed(2, 0, "inf"), {}, "finite numbers, got inf in 'age', line 3"),
    "cells": ([*ROWS, ["1"]], {}, "as many cells in each row as column names, 5, got 1 in line 42"),
    "twice": ([["a", "a", "risk"], ["1", "2", "x"]], {}, "different column names, got 'a' twice"),
    "label column": (ROWS, {"label": "riks"}, r"label must name columns of my.csv \(age, .*, risk\), got 'riks'"),
    "drop": (ROWS, {"drop": ["agee"]}, "drop must name columns of my.csv .* got 'agee'"),
    "nothing left": (ROWS, {"columns": ["risk"]}, "columns must leave a column of my.csv to learn from"),
    "one class": (ROWS[:1] + ROWS[1::2], {}, "label must have at least two classes"),
    "regression": ([["x", "y"], *([str(i), str(i / 7)] for i in range(30))], {"label": "y"}, "classes, .* got 0.14"),
    "ids": ([["x", "y"], *([str(i), str(i)] for i in range(30))], {"label": "y"}, "got 30 different ones in 30 rows"),
    "not 0 or 1": (ROWS, {"label": ["code", "married"]}, "columns of 0 and 1 .* got 'no' in 'married', line 2"),
    "missing=": (ROWS, {"missing": "zero"}, "missing must be refuse or mean, got zero"),
    "fraction": (ROWS, {"test_fraction": 1.5}, r"test_fraction must be in \(0, 1\), got 1.5"),
    "rare class": ([*ROWS, ["1", "nurse", "1", "yes", "rare"]], {"test_fraction": 0.99}, "test_fraction must leave"),
    "no rows": (ROWS[:1], {}, "must have rows below its header"),
    "empty": ([], {}, "must begin with a line of column names"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_table_that_cannot_be_learned_from_is_refused_in_one_line(tmp_path, name):
    rows, settings, words = REFUSED[name]
    with pytest.raises(ValueError, match=words) as error:
        load(**{"file": "my.csv", "label": "risk", "data_dir": written(tmp_path, rows)} | settings)
    assert "\n" not in str(error.value)


def test_a_column_of_names_is_refused_and_may_be_dropped(tmp_path):
    rows = [[*ROWS[0], "name"], *([*row, f"n{i}"] for i, row in enumerate(ROWS[1:] * 3))]
    folder = written(tmp_path, rows)
    with pytest.raises(ValueError, match=r"at most 100 different words, got 120 in 'name' \('n0', 'n1', ...\)"):
        load("my.csv", "risk", folder)
    assert load("my.csv", "risk", folder, drop=["name"]).train_inputs.shape[1] == 7


def test_codes_may_be_read_as_words(tmp_path):
    assert load("my.csv", "risk", written(tmp_path), words=["code"]).train_inputs.shape[1] == 8
    commas = changed(9, 2, "1,5")
    assert load("my.csv", "risk", written(tmp_path, commas), words=["code"]).train_inputs.shape[1] == 9


def test_an_index_that_pandas_wrote_is_left_out(tmp_path, caplog):
    folder = written(tmp_path, [["" if i == 0 else str(i), *row] for i, row in enumerate(ROWS)])
    assert load("my.csv", "risk", folder).train_inputs.shape[1] == 7
    assert "columns of my.csv without a name left out: 1" in caplog.text


def test_other_encodings_are_refused(tmp_path):
    folder = written(tmp_path, changed(2, 1, "Bäcker"), encoding="latin-1")
    with pytest.raises(ValueError, match=r"my.csv must be text in UTF-8, got another encoding"):
        load("my.csv", "risk", folder)


def test_a_file_is_looked_for_where_one_stands_and_then_among_the_data(tmp_path):
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    folders = [str(tmp_path / "here"), written(tmp_path / "data", ROWS[:21])]
    assert len(whole(load("my.csv", "risk", folders))[1]) == 20
    written(tmp_path / "here")
    assert len(whole(load("my.csv", "risk", folders))[1]) == 40
    with pytest.raises(
        FileNotFoundError, match=r"^dataset.source.file: not found: \S*/here/no.csv or \S*/data/no.csv$"
    ):
        load("no.csv", "risk", folders)


def test_what_is_wrong_is_one_line_when_a_configuration_is_composed(tmp_path):
    written(tmp_path, changed(3, 0, ""))
    with pytest.raises(ValueError, match=r"^dataset.source.missing must be mean [^\n]* line 4 of my.csv [^\n]*$"):
        composed(tmp_path)
    with pytest.raises(ValueError, match=r"^dataset.source.file, dataset.source.label must be given, got nothing$"):
        compose(["dataset=csv"], output_dir=tmp_path)


def iris(folder):
    flowers = load_iris()
    rows = [["sl", "sw", "pl", "pw", "species"]]
    rows += [[*x, flowers.target_names[y]] for x, y in zip(flowers.data, flowers.target, strict=True)]
    return written(folder, rows)


def test_a_file_and_a_label_are_all_that_is_typed(command, tmp_path):
    iris(tmp_path)
    typed = ["dataset=csv", "dataset.source.file=my.csv", "dataset.source.label=species", "student=mlp",
             "teacher=mlp_large"]  # fmt: skip
    command("kdexp-train", *typed, "output_dir=run", "hydra.run.dir=run")
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    dataset = results["config"]["dataset"]
    assert dataset["classes"] == ["setosa", "versicolor", "virginica"]
    assert (dataset["num_classes"], dataset["input_shape"]) == (3, [4])
    assert results["teacher"]["test"]["acc"] > 0.9
    assert results["metrics"]["test"]["best"]["acc"] > 0.5
    command("kdexp-eval", "run=run")
    assert "3 classes of species: setosa, versicolor, virginica" in command("kdexp-doctor", *typed).stdout
    refused = command("kdexp-doctor", "dataset=csv", "dataset.source.file=my.csv", "dataset.source.label=kind", rc=2)
    assert refused.stderr == (
        "error: dataset.source.label must name columns of my.csv (sl, sw, pl, pw, species), got 'kind'\n"
    )
