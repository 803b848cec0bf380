"""Texts as code points, the published data sets, and texts of one's own."""

import csv
import json
import logging

import pytest
import torch

from kdexp.config.compose import compose
from kdexp.config.identity import Identity
from kdexp.contracts import Source
from kdexp.data import mr, sst2, subj, text_table, trec
from kdexp.data.own import split_off_test
from kdexp.data.table import load
from kdexp.data.texts import characters, code_points, texts_of
from kdexp.tasks.classification import Classification
from kdexp.tasks.text import Text

TEXTS = ["Where is Köln ?", "", "a\0b", "日本語 😀", "x" * 30]


def test_texts_are_their_code_points_and_come_back():
    inputs = code_points(TEXTS)
    assert inputs.dtype == torch.int32
    assert inputs.shape == (5, 30)
    assert inputs[0, : len(TEXTS[0])].tolist() == [ord(character) for character in TEXTS[0]]
    assert texts_of(inputs) == [text.replace("\0", " ") for text in TEXTS]
    assert characters(inputs).tolist() == [len(text) for text in TEXTS]
    assert texts_of(code_points(TEXTS, 4)) == ["Wher", "", "a b", "日本語 ", "xxxx"]
    assert code_points(["a"], 3).tolist() == [[97, 0, 0]]


def test_trec_is_read_with_its_odd_byte(real_data):
    source = trec.load(real_data("trec"))
    texts = texts_of(source.train_inputs)
    assert texts[0] == "How did serfdom develop in and then leave Russia ?"
    assert texts[65] == "Which city has the oldest relationship as a sisterðcity with Los Angeles ?"
    assert source.train_target.bincount().tolist() == [1162, 1250, 86, 1223, 835, 896]
    assert source.test_target.bincount().tolist() == [138, 94, 9, 65, 81, 113]


def test_sets_without_a_test_part_have_always_the_same_stratified_one(real_data):
    for module in (mr, subj):
        source, again = module.load(real_data("mr")), module.load(real_data("mr"))
        assert torch.equal(source.test_inputs, again.test_inputs)
        assert source.test_target.bincount().unique().numel() == 1
        train, test = set(texts_of(source.train_inputs)), texts_of(source.test_inputs)
        assert sum(text in train for text in test) < 20  # a few sentences occur twice


@pytest.mark.parametrize("module", [trec, sst2, mr, subj])
def test_a_missing_file_is_one_line_that_says_where_to_get_it(module, tmp_path):
    rule = (
        r"^data_dir has no \w+: .* does not exist; set data_dir or KDEXP_DATA_DIR, or take the file from data/ of https"
    )
    with pytest.raises(FileNotFoundError, match=rule):
        module.load(str(tmp_path))


def test_a_damaged_file_is_one_line_with_the_line(tmp_path):
    (tmp_path / "TREC.train.all").write_text("0 fine\nno label\n")
    with pytest.raises(ValueError, match="got 'no label' in line 2 of"):
        trec.load(str(tmp_path))


def source_of(texts, labels=None):
    inputs, target = code_points(texts), torch.tensor(labels or [i % 2 for i in range(len(texts))])
    return Source(inputs, target, inputs, target)


def test_a_task_reads_what_it_is_for():
    texts = source_of(["a", "b"])
    Text(2).check_source(texts, "multiclass", 2, [1])
    with pytest.raises(ValueError, match=r"^task must be text where inputs are texts, got classification$"):
        Classification(2).check_source(texts, "multiclass", 2, [1])
    numbers = Source(torch.zeros(2, 3), texts.train_target, torch.zeros(2, 3), texts.train_target)
    with pytest.raises(ValueError, match=r"^dataset.source must give texts, .*with task=text, got float32 \[3\]$"):
        Text(2).check_source(numbers, "multiclass", 2, [3])
    with pytest.raises(ValueError, match=r"^dataset.source must give no empty text, got one in train, number 1$"):
        Text(2).check_source(source_of(["a", ""]), "multiclass", 2, [1])


# Of one's own

ROWS = [["id", "Frage", "Art"], *(
    [str(i), text, label] for i, (text, label) in enumerate([
        ('Müller fragt: "Wo liegt Köln, und warum?"', "Ort"), ("How many people live here ?", "Zahl"),
        ("None", "Ort"), ("How long is\na mile ?", "Zahl")] * 10)
)]  # fmt: skip


def written(folder, rows=ROWS, name="my.csv", delimiter=","):
    if name.endswith(".jsonl"):
        header, *rest = rows
        lines = [json.dumps(dict(zip(header, row, strict=True)), ensure_ascii=False) for row in rest]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, delimiter=delimiter).writerows(rows)
    return str(folder)


def read(folder, name="my.csv", **settings):
    return load(name, "Art", folder, text="Frage", **settings)


@pytest.mark.parametrize(("name", "delimiter"), [("my.csv", ","), ("my.csv", ";"), ("my.jsonl", "")])
def test_a_column_of_texts_is_read_with_quotes_umlauts_and_line_breaks(tmp_path, name, delimiter):
    source = read(written(tmp_path, name=name, delimiter=delimiter), name)
    target = torch.tensor([label == "Zahl" for _, _, label in ROWS[1:]]).long()
    rest, held = split_off_test(target, 0.2, "")
    texts = [text for _, text, _ in ROWS[1:]]
    assert texts_of(source.train_inputs) == [texts[i] for i in rest]
    assert texts_of(source.test_inputs) == [texts[i] for i in held]
    assert torch.equal(source.train_target, target[rest])
    assert source.classes == ["Ort", "Zahl"]


def test_the_configuration_finds_the_task_and_the_rest_in_the_file(tmp_path):
    written(tmp_path)
    words = ["dataset=csv", f"dataset.source.file={tmp_path}/my.csv", "dataset.source.label=Art"]
    config = compose([*words, "dataset.source.text=Frage", "student=textcnn", "teacher=textcnn"], output_dir=tmp_path)
    assert config.task == {"_target_": "kdexp.tasks.text.Text"}
    assert (config.dataset.kind, config.dataset.num_classes, list(config.dataset.mean)) == ("multiclass", 2, [0.0])
    assert list(config.dataset.input_shape) == [max(len(text) for _, text, _ in ROWS[1:])]
    table = compose([*words, "dataset.source.drop=[Frage]"], output_dir=tmp_path)
    assert table.task == {"_target_": "kdexp.tasks.classification.Classification"}
    older = compose([*words, "dataset.source.drop=[Frage]"], output_dir=tmp_path)
    del older.dataset.source.text  # as it was before there were texts
    assert Identity(table).fingerprint == Identity(older).fingerprint


def changed(row, column, value):
    rows = [list(cells) for cells in ROWS]
    rows[row][column] = value
    return rows


@pytest.mark.parametrize("name", ["my.csv", "my.jsonl"])
def test_an_empty_text_or_label_is_one_line_with_file_column_and_line(tmp_path, name):
    line = "3" if name == "my.csv" else "2"
    rule = rf"^dataset.source.text must have a text in each row, got none in 'Frage', line {line} of {name}$"
    with pytest.raises(ValueError, match=rule):
        read(written(tmp_path, changed(2, 1, " "), name), name)
    rule = rf"^dataset.source.label must be given in each row, got none in 'Art', line {line} of {name}$"
    with pytest.raises(ValueError, match=rule):
        read(written(tmp_path, changed(2, 2, ""), name), name)


@pytest.mark.parametrize("name", ["test.csv", "test.jsonl"])
def test_a_label_that_the_training_file_lacks_is_one_line(tmp_path, name):
    folder = written(tmp_path)
    written(tmp_path, [ROWS[0], ["0", "Who ?", "Mensch"]], name)
    line = "2" if name == "test.csv" else "1"
    rule = (
        r"^dataset.source.label must have the classes of the training file \(Ort, Zahl\), got 'Mensch' in line "
        rf"{line} of {name}$"
    )
    with pytest.raises(ValueError, match=rule):
        read(folder, test=name)


@pytest.mark.parametrize("name", ["my.csv", "my.jsonl"])
def test_a_missing_column_is_one_line(tmp_path, name):
    folder = written(tmp_path, name=name)
    rule = rf"^dataset.source.text must name columns of {name} \(id, Frage, Art\), got 'Text'$"
    with pytest.raises(ValueError, match=rule):
        load(name, "Art", folder, text="Text")
    with pytest.raises(
        ValueError, match=r"^dataset.source.text must be another column than dataset.source.label, got Art$"
    ):
        load(name, "Art", folder, text="Art")
    with pytest.raises(
        ValueError, match=r"^dataset.source.columns must not be set with dataset.source.text, got \['id'\]$"
    ):
        read(folder, name, columns=["id"])
    written(tmp_path, [["id", "Art"], ["1", "Ort"]], "test.jsonl")
    with pytest.raises(
        ValueError, match=r"^dataset.source: .*test.jsonl must have the key 'Frage' in its objects, got none"
    ):
        read(folder, name, test="test.jsonl")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('["a"]', "must have a JSON object in each line, got in line 1: a list"),
        ("{", "must have a JSON object in each line, got in line 1: Expecting"),
        ('{"Frage": ["a"], "Art": "Ort"}', "'Frage' must be a text or a number, got a list in line 1 of my.jsonl"),
        ("", "must have an object in each line, got an empty file"),
    ],
)
def test_lines_that_are_no_json_objects_are_one_line(tmp_path, line, message):
    (tmp_path / "my.jsonl").write_text(line)
    with pytest.raises(ValueError, match=message):
        read(str(tmp_path), "my.jsonl")


def test_texts_that_are_very_long_are_cut_and_counted(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(text_table, "MOST_CHARACTERS", 20)
    with caplog.at_level(logging.WARNING):
        source = read(written(tmp_path))
    assert source.train_inputs.shape[1] == 20
    assert "texts of more than 20 characters, cut there: 20" in caplog.text
