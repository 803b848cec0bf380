"""The whole way of a student to a file, and the file where kdexp is not."""

import json
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from saved_students import saved
from sklearn.metrics import accuracy_score
from tokenizers import Tokenizer

import kdexp
from kdexp.config.compose import compose, plain
from kdexp.config.quick import NOTE
from kdexp.experiment.experiment import Experiment
from kdexp.export import latency, table
from kdexp.export.exporting import Exporter
from kdexp.export.formats import onnx as onnx_format
from kdexp.export.settings import of
from kdexp.weights import save_weights


@pytest.fixture
def exporter(tmp_path, monkeypatch):
    """Of an untrained student; latency is measured for a moment."""
    monkeypatch.setattr(latency, "SECONDS", 0.001)

    def make(*typed, run=("dataset=digits", "student=cnn_small", "student.width=4")):
        torch.manual_seed(0)
        experiment = Experiment(compose([*run, "alpha=1", "quick=true"], output_dir=tmp_path))
        student = experiment.student.eval()
        save_weights(student, tmp_path / "student.safetensors")
        finished = SimpleNamespace(
            experiment=experiment,
            folder=tmp_path,
            device=torch.device("cpu"),
            results={"fingerprint": "f1", "note": NOTE},
        )
        return Exporter(finished, student, of(plain(compose(list(typed), "export")))), experiment

    return make


@pytest.mark.slow
def test_the_metrics_are_those_of_the_file(exporter, tmp_path):
    exporting, experiment = exporter("quantize=int8_static", "preprocessing=true")
    content, network = exporting.export(tmp_path / "out")
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == content
    network_row, floats, eight_bits = content["rows"]
    run = onnx_format.load(tmp_path / "out" / content["file"])
    split = experiment.data.student.splits.test
    labels = run(split.inputs[split.index]).argmax(1)
    assert eight_bits["metrics"]["acc"] == pytest.approx(accuracy_score(split.target, labels))
    assert eight_bits["difference"]["value"] == pytest.approx(
        eight_bits["metrics"]["acc"] - network_row["metrics"]["acc"]
    )
    assert network_row["difference"] is None
    assert floats["parity"]["error"] < 1e-5 < eight_bits["parity"]["error"] <= eight_bits["parity"]["tolerance"]
    assert [one["batch"] for one in eight_bits["latency"]] == [1, 32]
    assert eight_bits["bytes"] == (tmp_path / "out" / content["file"]).stat().st_size
    assert onnx_format.metadata(tmp_path / "out" / content["file"])["fingerprint"] == "f1"
    batch = next(iter(experiment.data.student.eval_batches("test", "cpu")))
    assert torch.equal(network(batch.inputs).argmax(1), labels[: len(batch.inputs)])


def test_a_file_that_is_not_the_network_leaves_nothing(exporter, tmp_path):
    exporting, _ = exporter("quantize=int8_static", "tolerance=1e-6")
    with pytest.raises(ValueError, match=r"^tolerance must be at least the error .* is not the network"):
        exporting.export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


OTHERS = {
    "a table": ("dataset=breast_cancer", "student=mlp"),
    "masks": ("dataset=shapes", "task=segmentation", "student=unet", "student.width=4", "student.depth=1"),
    "an autoencoder": ("dataset=digits", "task=generation", "student=vae_mlp", "student.hidden=[8]"),
}


@pytest.mark.slow
@pytest.mark.parametrize("run", OTHERS.values(), ids=OTHERS)
def test_every_task_has_its_own_metrics_and_an_interval(exporter, tmp_path, run):
    exporting, experiment = exporter("preprocessing=true", run=run)
    content, _ = exporting.export(tmp_path / "out")
    network_row, floats = content["rows"]
    assert content["measure"] == experiment.data.task.measure
    assert floats["metrics"][content["measure"]] == pytest.approx(network_row["metrics"][content["measure"]], rel=1e-4)
    gain = floats["difference"]
    assert gain["value"] == pytest.approx(0, abs=1e-4)
    if content["test_samples"] > 1:  # one image with a mask
        assert gain["low"] <= gain["value"] <= gain["high"]


def test_texts_come_with_their_tokenizer_and_a_quick_run_says_what_it_is(exporter, tmp_path, capsys):
    questions = [("where is it ?", "place"), ("how many are there ?", "number")] * 50
    (tmp_path / "q.csv").write_text("question,kind\n" + "\n".join(map(",".join, questions)))
    source = (f"dataset.source.file={tmp_path}/q.csv", "dataset.source.text=question", "dataset.source.label=kind")
    run = ("dataset=csv", *source, "student=textcnn", "teacher=textcnn")
    exporting, experiment = exporter(run=run)
    content, _ = exporting.export(tmp_path / "out")
    assert content["inputs"] == ["tokens"]
    assert (content["run"], content["note"]) == (tmp_path.name, NOTE)
    table.show(content, tmp_path / "out")
    assert NOTE in capsys.readouterr().out
    tokenizer = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    ids = [tokenizer.encode(text).ids for text, _ in questions[:2]]
    width = experiment.config.student.max_tokens
    tokens = torch.tensor([[*row, *[-1] * (width - len(row))] for row in ids])
    found = onnx_format.load(tmp_path / "out" / content["file"])(tokens)
    codes = torch.tensor([[*map(ord, text), *[0] * (40 - len(text))] for text, _ in questions[:2]], dtype=torch.int32)
    with torch.no_grad():
        torch.testing.assert_close(found, exporting.student.eval()(codes), atol=1e-5, rtol=1e-4)


WITHOUT_KDEXP = """
import sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1])
labels = session.run(None, {"input": np.load(sys.argv[2])})[0].argmax(1)
assert not {"kdexp", "torch"} & set(sys.modules)
print(*labels)
"""


def test_preprocessing_inside_gives_the_labels_of_load_where_kdexp_is_not(tmp_path):
    experiment, _ = saved(tmp_path, "dataset=digits", "student=cnn_small")
    raw = torch.randint(0, 256, (1000, *experiment.data.student.splits.test.inputs.shape[1:]), dtype=torch.uint8)
    student = kdexp.load(tmp_path)
    onnx_format.write(student.preprocessed, [raw[:2]], tmp_path / "student.onnx")
    np.save(tmp_path / "raw.npy", raw.numpy())
    argv = [sys.executable, "-I", "-c", WITHOUT_KDEXP, tmp_path / "student.onnx", tmp_path / "raw.npy"]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    expected = student.predict(raw).numbers.tolist()
    assert list(map(int, done.stdout.split())) == expected
    assert len(set(expected)) > 1


def test_an_autoencoder_is_not_fine_tuned(exporter, tmp_path):
    exporting, _ = exporter("quantize=qat", run=OTHERS["an autoencoder"])
    with pytest.raises(ValueError, match=r"^quantize must be another than qat for task=generation"):
        exporting.export(tmp_path / "out")
