"""docs/whole_way.md, from its first block to its last, as it stands there."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from sklearn.datasets import load_digits

PAGE = (Path(__file__).parents[1] / "docs" / "whole_way.md").read_text()
COMMANDS = re.findall(r"^    (kdexp-.*?)(?: +#.*)?$", PAGE, re.MULTILINE)
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_from_images_to_8_bit_predictions(command, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime", reason="pip install 'kdexp[export]'")
    monkeypatch.chdir(tmp_path)
    make_images, predict_alone = BLOCKS
    train, export, predict = map(shlex.split, COMMANDS)
    exec(make_images, {})
    command(*train, "tracking=none", PYTHONPATH=str(tmp_path))  # in a process of its own, as from a shell
    sweep = json.loads(Path("multirun/photos/sweep.json").read_text())
    assert [job["status"] for job in sweep["jobs"]] == ["completed"] * 6
    with Path("multirun/photos/compare.csv").open(newline="") as file:
        accuracy = {(row["alpha"], row["seed"]): float(row["test/acc"]) for row in csv.DictReader(file)}
    assert all(accuracy["0.1", seed] > accuracy["1.0", seed] + 0.1 for seed in "012")  # the page says that it helps
    command(*export)
    command(*predict)
    names: dict = {}
    exec(predict_alone, names)
    with Path("predictions.csv").open(newline="") as file:
        said = {Path(row["file"]).name: row["label"] for row in csv.DictReader(file)}
    truth = {f"{number}.png": f"digit {load_digits().target[number]}" for number in range(880, 900)}
    assert said.keys() == names["labels"].keys() == truth.keys()
    assert sum(said[name] == names["labels"][name] for name in said) >= 18
    assert sum(said[name] == truth[name] for name in said) >= 14
