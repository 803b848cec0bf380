"""A column of groups: read from the tested file, never learned from, and the accuracies of its groups."""

import csv
import json
import re

import pytest
import torch

from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity
from kdexp.contracts import Batch
from kdexp.data.table import load
from kdexp.experiment.run import run
from kdexp.metrics.groups import group_accuracy

HEAD = ["age", "sex", "job", "risk"]
ROWS = [[str(i), "mf"[i % 2], ("nurse", "clerk")[i % 3 == 0], ("low", "high")[i % 4 < 2]] for i in range(40)]


def written(folder, name="my.csv", rows=ROWS, head=HEAD):
    with (folder / name).open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    return str(folder)


def test_groups_are_those_of_the_test_rows_and_no_input(tmp_path):
    folder = written(tmp_path)
    source, without = load("my.csv", "risk", folder, group="sex"), load("my.csv", "risk", folder, drop=["sex"])
    assert source.groups[0] == ["f", "m"]
    ages = source.test_inputs[:, 0].long()
    assert torch.equal(source.groups[1], (ages % 2 == 0).long())
    for part in ("train_inputs", "train_target", "test_inputs", "test_target"):
        assert torch.equal(getattr(source, part), getattr(without, part))
    assert without.groups is None


def test_the_tested_file_alone_needs_the_column(tmp_path):
    folder = written(tmp_path, rows=[[row[0], *row[2:]] for row in ROWS], head=["age", *HEAD[2:]])
    written(tmp_path, "test.csv", ROWS[:8])
    source = load("my.csv", "risk", folder, test="test.csv", group="sex")
    assert source.groups[1].tolist() == [1, 0] * 4
    assert source.train_inputs.shape == (40, 3)


def test_texts_have_groups_too(tmp_path):
    rows = [{"said": f"text {i}", "label": i % 2, "by": f"{i % 3}"} for i in range(30)]
    (tmp_path / "my.jsonl").write_text("\n".join(map(json.dumps, rows)))
    source = load("my.jsonl", "label", str(tmp_path), text="said", group="by")
    texts = ["".join(chr(code) for code in row if code) for row in source.test_inputs.tolist()]
    assert source.groups[1].tolist() == [int(text.split()[1]) % 3 for text in texts]


@pytest.mark.parametrize(("settings", "message"), [
    ({"group": "race"}, "dataset.source.group must name columns of my.csv (age, sex, job, risk), got 'race'"),
    ({"group": "risk"}, "dataset.source.group must be another column than dataset.source.label, got risk"),
    ({"group": "sex", "columns": ["age", "sex"]}, "dataset.source.columns must not have dataset.source.group, got sex"),
    ({"group": "one"}, "dataset.source.group must have at least two and at most 100 groups among the test rows, got 1 "
                       "in 'one' of my.csv (a)"),
    ({"group": "gap"}, "dataset.source.group must be given in each test row, got none in line 2 of my.csv"),
    ({"group": "job", "text": "job"}, "dataset.source.group must be another column than dataset.source.text, got job"),
])  # fmt: skip
def test_what_cannot_be_a_group_is_one_line(tmp_path, settings, message):
    more = {"one": ["a"] * 40, "gap": ["", "x"] * 20}
    head = [*HEAD, settings["group"]] if settings["group"] in more else HEAD
    rows = [[*row, *(more[settings["group"]][i : i + 1] if len(head) > 4 else [])] for i, row in enumerate(ROWS)]
    folder = written(tmp_path, rows=rows, head=head)
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        load("my.csv", "risk", folder, test="my.csv", **settings)


def test_a_run_without_groups_keeps_its_fingerprint(tmp_path):
    written(tmp_path)
    given = ["dataset=csv", f"dataset.source.file={tmp_path}/my.csv", "dataset.source.label=risk"]
    values = plain(compose(given, output_dir=tmp_path))
    before = json.loads(json.dumps(values))
    assert before["dataset"]["source"].pop("group") is None
    assert Identity(before).fingerprint == Identity(values).fingerprint
    grouped = plain(compose([*given, "dataset.source.group=sex"], output_dir=tmp_path))
    assert Identity(grouped).fingerprint != Identity(values).fingerprint


def test_a_run_says_what_its_groups_have_and_how_many_samples_that_is(tmp_path):
    folder = written(tmp_path)
    given = ["experiment=smoke", "dataset=csv", f"dataset.source.file={folder}/my.csv", "dataset.source.label=risk"]
    given += ["dataset.source.group=sex", f"dataset.source.test={folder}/my.csv", "student=mlp", "teacher=mlp"]
    record = run(compose(given, output_dir=tmp_path / "run"))
    assert record["samples_of_group"] == {"f": 20, "m": 20}
    measured = record["metrics"]["test"]["best"]
    of_groups = [measured[f"acc_of_group {name}"] for name in "fm"]
    assert measured["worst_group"] == min(of_groups)
    assert measured["acc"] == pytest.approx(sum(of_groups) / 2), "both are as large"


def test_the_worst_group_is_the_one_with_the_lowest_accuracy():
    logits = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [1, 0], [0, 1]])
    target = torch.tensor([0, 1, 1, 1, 0, 1])
    groups = (["a", "b", "nobody"], torch.tensor([9, 0, 0, 1, 1, 1, 0]).clamp(max=2))
    index = torch.arange(1, 7)
    batches = [Batch(logits[part], target[part], index[part]) for part in torch.arange(6).split(4)]
    found = group_accuracy(lambda inputs: inputs, batches, "multiclass", groups)
    assert found == pytest.approx({"worst_group": 2 / 3, "acc_of_group a": 2 / 3, "acc_of_group b": 1})
