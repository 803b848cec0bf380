"""The data set in Python of docs/own_data.md, as it stands there, and what is wrong with data of one's own."""

import json
import re
from pathlib import Path

import pytest

from kdexp.config.compose import compose
from kdexp.experiment.check import check
from kdexp.experiment.dry_build import dry_build
from kdexp.experiment.experiment import Experiment

PAGE = (Path(__file__).parents[2] / "docs" / "own_data.md").read_text()
OF_DATA = PAGE.partition("## Anything else, in Python")[2]
PYTHON, YAML = (re.findall(rf"`(\S+)`\n\n```{kind}\n(.*?)```", OF_DATA, re.DOTALL) for kind in ("python", "yaml"))
COMMANDS = re.findall(r"^    (?:(\S+=.*) )?(kdexp-train .*)$", OF_DATA, re.MULTILINE)
BROKEN = """
import torch
from kdexp.contracts import Source
def load(kind):
    y = torch.arange(200) % 2
    x = torch.randn(200, 5)
    if kind == "tokens":
        x = torch.randint(0, 100, (200, 5))
    if kind == "gap":
        x[3, 2] = float("nan")
    if kind == "uneven":
        return Source(x, y, x[:50, :4], y[:50])
    return Source(x, y, x[:50], y[:50])
"""
LOADED = "_target_: mine.broken.load\n  kind: ok"


def laid_out(folder):
    (name, code), (conf, text) = *PYTHON, *YAML
    for path, content in ((name, code), (conf, text), ("mine/broken.py", BROKEN)):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    inferred = text.replace("_target_: mine.waves.load\n  samples: 500", LOADED)
    assert inferred != text
    (folder / "my_conf" / "dataset" / "broken.yaml").write_text(inferred)
    typed = re.sub(r"\$\{kdexp.inferred:(\w+)\}",
                   lambda m: {"kind": "multiclass", "num_classes": "2", "input_shape": "[5]", "mean": "[0]",
                              "std": "[1]"}[m[1]], inferred)  # fmt: skip
    (folder / "my_conf" / "dataset" / "typed.yaml").write_text(typed)
    return {"KDEXP_TRUST": "mine", "PYTHONPATH": str(folder)}


def test_the_data_set_of_the_page_trains_with_its_own_command(command, tmp_path):
    environment = laid_out(tmp_path)
    [(given, line)] = [found for found in COMMANDS if found[0]]
    assert given == "KDEXP_TRUST=mine PYTHONPATH=."
    command(*line.split(), "output_dir=run", "hydra.run.dir=run", **environment)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    dataset = results["config"]["dataset"]
    assert (dataset["num_classes"], dataset["input_shape"], dataset["classes"]) == (2, [32], ["slow", "fast"])
    assert len(dataset["mean"]) == 32
    assert results["metrics"]["test"]["best"]["acc"] > 0.9


SHAPE = "dataset.input_shape must be"
CASES = {
    "tokens": ("dataset.source.kind=tokens", "dataset.source must give uint8 or float32 inputs in train, got torch"),
    "NaN": ("dataset.source.kind=gap", "dataset.source must give inputs without NaN or Inf in train, got [nan, nan]"),
    "uneven": ("dataset.source.kind=uneven", f"{SHAPE} [4], the shape of a sample of test, got [5]"),
    "shape": ("dataset.input_shape=[6]", f"{SHAPE} [5], the shape of a sample of train, got [6]"),
    "no shape": ("dataset.input_shape=[]", f"{SHAPE} sizes of at least 1, one or more, got []"),
    "negative": ("dataset.input_shape=[-5]", f"{SHAPE} sizes of at least 1, one or more, got [-5]"),
}


@pytest.mark.parametrize("dataset", ["broken", "typed"])
@pytest.mark.parametrize("case", CASES)
def test_data_that_are_none_end_in_one_line(command, tmp_path, case, dataset):
    environment = laid_out(tmp_path)
    setting, words = CASES[case]
    program = "kdexp-doctor" if dataset == "typed" else "kdexp-train"
    done = command(program, "--config-dir", "my_conf", f"dataset={dataset}", setting, rc=2, **environment)
    lines = [line for line in done.stderr.splitlines() if line]
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith(f"error: {words}")
    assert "Traceback" not in done.stdout


NETWORK = """
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, input_shape):
        super().__init__()
        self.classifier = nn.Linear(8, num_classes)
    def forward(self, x):
        assert x.shape[-1] == 8, "8 columns"
        return self.classifier(x[:, 0])
def net(num_classes, input_shape):
    return Net(num_classes, input_shape)
"""


@pytest.mark.parametrize(("shape", "reason"), [("[1,8]", None), ("[8]", "8"), ("[1,5]", "8 columns")])
def test_a_network_that_does_not_take_the_shape_is_refused_whatever_it_raises(tmp_path, monkeypatch, shape, reason):
    (tmp_path / "my_odd_network.py").write_text(NETWORK)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "my_odd_network")
    config = compose(["dataset=synthetic", f"dataset.input_shape={shape}", "dataset.mean=[0]", "dataset.std=[1]",
                      "student._target_=my_odd_network.net", "~student.hidden", "~student.dropout", "alpha=1"],
                     output_dir=tmp_path)  # fmt: skip
    check(config)
    if reason is None:
        dry_build(Experiment(config))
        return
    with pytest.raises(
        ValueError, match=rf"^student must take inputs of dataset.input_shape, got [^\n]*{reason}[^\n]*$"
    ):
        dry_build(Experiment(config))
