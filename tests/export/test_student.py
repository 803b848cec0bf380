import csv
import json
import shutil

import numpy as np
import pytest
import torch
import written_runs
from own_data import CLASSES, texts
from PIL import Image
from safetensors.torch import save_file
from saved_students import evaluated, saved, stored_test

import kdexp
from kdexp.data import own
from kdexp.export import table_files
from kdexp.export.student import load

DIGITS = ("dataset=digits", "student=cnn_small")


def probabilities(logits):
    """By the formula, in float64."""
    odds = np.exp(logits.double().numpy() - logits.double().numpy().max(1, keepdims=True))
    return odds / odds.sum(1, keepdims=True)


@pytest.mark.parametrize("overrides", [DIGITS, ("dataset=breast_cancer", "student=mlp")], ids=["images", "table"])
def test_what_is_predicted_is_what_kdexps_evaluation_decides(tmp_path, overrides):
    experiment, network = saved(tmp_path, *overrides)
    student = kdexp.load(tmp_path)
    said = student.predict(stored_test(experiment), batch_size=100)
    expected = probabilities(evaluated(experiment, network))
    np.testing.assert_allclose(said.probabilities, expected, atol=1e-6)
    assert said.labels == [student.classes[number] for number in expected.argmax(1)]
    np.testing.assert_allclose(said.confidences, expected.max(1), atol=1e-6)
    assert student.kind == "multiclass"
    assert not student.network.training


def test_the_network_is_a_plain_module_and_the_batch_does_not_matter(tmp_path):
    experiment, _ = saved(tmp_path, *DIGITS)
    student = load(tmp_path)
    images = stored_test(experiment)[:7]
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (student.mean, student.std))
    by_hand = student.network((images / 255 - mean) / std).argmax(1)
    for size in (1, 3, 7):
        assert torch.equal(student.predict(images, batch_size=size).numbers, by_hand)
    with pytest.raises(ValueError, match=r"^batch_size must be at least 1, got 0$"):
        student.predict(images, batch_size=0)


def test_a_folder_that_was_moved_and_a_file_alone_are_the_same_student(tmp_path):
    experiment, _ = saved(tmp_path / "there", *DIGITS)
    images = stored_test(experiment)[:4]
    first = load(tmp_path / "there").predict(images).probabilities
    shutil.move(tmp_path / "there", tmp_path / "here")
    (tmp_path / "hub").mkdir()
    shutil.copy(tmp_path / "here" / "student.safetensors", tmp_path / "hub" / "model.safetensors")
    for path in (tmp_path / "here", tmp_path / "here" / "student.safetensors", tmp_path / "hub"):
        assert torch.equal(load(path).predict(images).probabilities, first)


def test_binary_and_several_labels_a_sample(tmp_path):
    experiment, network = saved(tmp_path / "binary", "dataset=breast_cancer", "student=mlp", "dataset.kind=binary")
    said = load(tmp_path / "binary").predict(stored_test(experiment))
    logits = evaluated(experiment, network)[:, 0].double()
    on = 1 / (1 + torch.exp(-logits))
    torch.testing.assert_close(said.probabilities[:, 1].double(), on, rtol=0, atol=1e-6)
    assert said.labels == [("malignant", "benign")[int(p > 0.5)] for p in on]
    np.savez(
        tmp_path / "my.npz", x=np.random.default_rng(0).normal(size=(40, 3)), y=np.arange(80).reshape(40, 2) % 3 % 2
    )
    overrides = [
        "dataset=arrays",
        f"dataset.source.file={tmp_path}/my.npz",
        "student=mlp",
        "dataset.classes=[red,big]",
        "dataset.batch_size=8",
    ]
    experiment, network = saved(tmp_path / "several", *overrides)
    said = load(tmp_path / "several").predict(stored_test(experiment))
    on = evaluated(experiment, network).double().sigmoid()
    assert said.labels == [[name for name, p in zip(("red", "big"), row, strict=True) if p > 0.5] for row in on]
    torch.testing.assert_close(said.confidences.double(), torch.maximum(on, 1 - on).amin(1), rtol=0, atol=1e-6)


def test_masks_are_those_of_the_logits_at_any_size(tmp_path):
    experiment, network = saved(tmp_path, "dataset=shapes", "task=segmentation", "student=unet")
    student = load(tmp_path)
    images = [stored_test(experiment)[0], torch.randint(256, (3, 50, 70), dtype=torch.uint8)]
    said = student.predict(images)
    for image, mask, confidence in zip(images, said.masks, said.confidences, strict=True):
        mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (student.mean, student.std))
        expected = probabilities(network((image / 255 - mean) / std[None])[0].detach().flatten(1).T)
        assert np.array_equal(mask.flatten(), expected.argmax(1))
        np.testing.assert_allclose(confidence.flatten(), expected.max(1), atol=1e-5)
    assert torch.equal(student.predict(Image.fromarray(images[1].permute(1, 2, 0).numpy())).masks[0], said.masks[1])


def test_texts_are_read_as_the_data_sets_are(tmp_path):
    experiment, network = saved(tmp_path, "dataset=csv", *texts(tmp_path), "student=textcnn")
    student = load(tmp_path)
    with (tmp_path / "fragen.csv").open(encoding="utf-8") as file:
        written = [row["Frage"] for row in csv.DictReader(file)]
    split = experiment.data.student.splits.test
    said = student.predict([written[i] for i in _rows_of(written, split)])
    torch.testing.assert_close(said.probabilities, evaluated(experiment, network).softmax(1), rtol=0, atol=1e-6)
    assert student.classes == ["Ort", "Zahl"]
    assert len(student.predict("Where is Köln ?")) == 1
    for wrong, got in ((["Where ?", " "], "no empty text, got one at 1"), (3, "a text or a list of texts, got int")):
        with pytest.raises(ValueError, match=f"^x must (have|be) {got}$"):
            student.predict(wrong)


def _rows_of(written, split):
    """The rows of the file that the test split has, found by their texts."""
    from kdexp.data.texts import texts_of

    return [written.index(text) for text in texts_of(split.inputs[split.index])]


def table(folder, rows):
    with (folder / "my.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("age", "colour", "kind"), *rows])
    return ["dataset=csv", f"dataset.source.file={folder}/my.csv", "dataset.source.label=kind", "student=mlp"]


def test_rows_of_a_table_are_encoded_as_the_training_table_was(tmp_path):
    rows = [(i, ("red", "blue", "")[i % 3], CLASSES[i % 2]) for i in range(40)]
    experiment, network = saved(tmp_path, *table(tmp_path, rows), "dataset.source.missing=mean")
    student = load(tmp_path)
    mean, std = (torch.tensor(values) for values in (student.mean, student.std))
    train = experiment.data.student.splits.train
    blue = train.inputs[train.index][:, 1]
    share = float(blue[(blue == 0) | (blue == 1)].mean())  # of the rows that say something
    by_hand = torch.tensor([[7.0, 0, 1], [7.0, 1, 0], [7.0, share, 1 - share]])
    expected = network((by_hand - mean) / std).softmax(1).detach()
    said = student.predict([{"age": 7, "colour": "red"}, {"age": 7, "colour": "blue"}, {"colour": None, "age": 7}])
    torch.testing.assert_close(said.probabilities, expected, rtol=0, atol=1e-5)
    (tmp_path / "new.csv").write_text("id;colour;age\n1;red;7\n2;blue;7\n3;;7\n")
    assert torch.equal(student.predict(tmp_path / "new.csv").probabilities, said.probabilities)
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    values = {"colour": ["red", "blue", None], "age": [7, 7, 7], "more": ["a", "b", "c"]}
    parquet.write_table(pyarrow.table(values), tmp_path / "new.parquet")
    assert torch.equal(student.predict(tmp_path / "new.parquet").probabilities, said.probabilities)
    (tmp_path / "less.csv").write_text("colour\nred\n")
    for wrong, message in (
        (tmp_path / "less.csv", "less.csv must have the columns of the training file, 'age' is missing$"),
        ({"age": "old", "colour": "red"}, "^x must have finite numbers in 'age', got 'old' in row 1$"),
        ([[1.0, 2.0]], r"^x must have numbers \(N, 3\), got float64 of shape \[1, 2\]$"),
        ([[1.0, 2.0, float("nan")]], "^x must be finite, got NaN or Inf in sample 0$"),
    ):
        with pytest.raises(ValueError, match=message):
            student.predict(wrong)


def test_a_parquet_file_of_nothing_much_is_not_unpacked(tmp_path, monkeypatch):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setattr(own, "_UNPACKED", 2**17)
    words = {"many": pyarrow.array(["x" * 50, None, "y"] * 2000), "large": pyarrow.array(["z"] * 6000, "large_string")}
    parquet.write_table(pyarrow.table(words), tmp_path / "words.parquet")
    parquet.write_table(pyarrow.table({"a": np.zeros(10**6)}), tmp_path / "bomb.parquet")
    with pytest.raises(ValueError, match=r"^\S*bomb.parquet must have at most \S+ GB unpacked, got 0.00745 GB$"):
        table_files.read_texts(tmp_path / "bomb.parquet")
    with pytest.raises(ValueError, match=r"must have a text in each row, got none in row 2$"):
        table_files.read_texts(tmp_path / "words.parquet", "many")
    assert table_files.read_texts(tmp_path / "words.parquet", "large") == ["z"] * 6000


def test_the_winner_of_a_sweep_is_taken_as_it_is_chosen_on_val(tmp_path, monkeypatch):
    runs = {"control": (1.0, 0, 0.99), "worse": (0.5, 0, 0.7), "first": (0.1, 0, 0.8), "best": (0.1, 1, 0.9)}
    for place, (name, (alpha, seed, val)) in enumerate(runs.items()):
        written_runs.write_run(tmp_path / name, alpha=alpha, seed=seed, val=val, acc=0.9 - val / 2)
        saved(tmp_path / name, *DIGITS, f"seed={place}", classes=[f"{name} {number}" for number in range(10)])
    assert load(tmp_path).classes[0] == "best 0"
    assert load(tmp_path / "first").classes[0] == "first 0"


def test_of_runs_that_have_nothing_to_do_with_each_other_none_is_taken(tmp_path):
    for name, more in {"a": {}, "b": {"student": "cnn"}, "c": {"student": "cnn", "alpha": 1.0}}.items():
        written_runs.write_run(tmp_path / name, **more)
        saved(tmp_path / name, *DIGITS)
    with pytest.raises(
        ValueError, match=r"got .* with runs that are of no sweep, and of several recipes: a, b$"
    ) as error:
        load(tmp_path)
    assert str(error.value).startswith("path must be one run, or a sweep on one data set, got ")
    assert load(tmp_path / "b").classes[0] == "0"
    (tmp_path / "sweep.json").write_text("{}")
    assert load(tmp_path).classes[0] == "0"
    written_runs.write_run(tmp_path / "d", dataset="mnist")
    with pytest.raises(ValueError, match=r"with runs of several data sets: ") as error:
        load(tmp_path, setting="run")


def test_no_name_is_not_the_folder_where_one_stands(tmp_path, monkeypatch):
    saved(tmp_path, *DIGITS)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"^path must be a folder or a file, got nothing$"):
        load("")
    assert load(".").classes[0] == "0"


def test_what_is_no_finished_run_is_one_line(tmp_path):
    written_runs.write_run(tmp_path / "diverged", status="diverged")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"^run must be completed, got .*diverged with status diverged$"):
        load(tmp_path / "diverged", setting="run")
    with pytest.raises(ValueError, match=r"^run must be the folder of a finished run, or of a sweep that has one, got"):
        load(tmp_path / "empty", setting="run")
    with pytest.raises(FileNotFoundError, match=r"^path must be the folder of a run or of a sweep, not found: "):
        load(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"architecture": "os.system"}, "architecture|_target_"),
        ({"architecture": "kdexp.models.cnn.nothing"}, "_target_"),
        ({"settings": {"num_classes": 10, "input_shape": [1, 8, 8], "width": "wide"}}, " must "),
        ({"settings": 3}, "settings"),
        ({"architecture": "kdexp.teacher.onnx_network.OnnxNetwork"}, "_target_ must be a network of kdexp.models, or"),
        ({"mean": ["a"]}, "mean"),
        ({"input_shape": [1, 10**9, 10**9]}, " must "),
        ({"input_shape": []}, "input_shape must have sizes above 0"),
        ({"std": [float("nan")]}, "std"),
        ({"classes": ["a"]}, "classes"),
        ({"task_settings": {"_target_": "subprocess.run", "args": "touch broken"}}, "_target_"),
        ({"columns": [{"words": None}]}, "columns"),
        ({"mean": [0.0, 0.0]}, "mean must have 1 value"),
        ({"std": [0.0]}, "std must be finite and > 0"),
        ({"inputs": "int7"}, "inputs must be uint8, float32 or int32"),
        ({"num_outputs": -1}, " must "),
        ({"task": "os"}, "task must be multiclass, binary or multilabel, got os"),
        ({"deployed_by": ["kdexp.feature_losses.simkd.SimKD"]}, "run folder"),
    ],
)
def test_a_description_of_somebody_elses_is_refused_in_one_line(tmp_path, changed, message):
    saved(tmp_path, *DIGITS, **changed)
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, setting="run")
    assert "\n" not in str(error.value)
    assert str(error.value).startswith("run")
    assert not (tmp_path / "broken").exists()


def test_settings_of_a_network_that_its_weights_do_not_fill_take_no_memory(tmp_path, monkeypatch):
    experiment, _ = saved(tmp_path, *DIGITS)
    config = experiment.config.student
    arguments = {name: value for name, value in config.items() if name in ("num_classes", "input_shape", "width")}
    saved(tmp_path, *DIGITS, settings={**arguments, "num_classes": 10, "input_shape": [1, 8, 8], "width": 4000})
    made = []
    monkeypatch.setattr(torch.nn.Conv2d, "reset_parameters", lambda module: made.append(module.weight.device.type))
    with pytest.raises(
        ValueError, match=r"settings must make a network of about the [\d,]+ values in it, got [\d,]{9,}$"
    ):
        load(tmp_path, setting="run")
    assert set(made) == {"meta"}


LOOKS = """
import torch
from torch import nn

class Looks(nn.Linear):
    def __init__(self):
        super().__init__(64, 10)

    def forward(self, x):
        found = super().forward(x.flatten(1))
        return found * 2 if float(found.sum()) > 1 else found

class LooksAtItsOwn(Looks):
    def __init__(self):
        super().__init__()
        self.scale = torch.linspace(0, 1, 3)[-1].item()
"""


@pytest.mark.parametrize("name", ["Looks", "LooksAtItsOwn"])
def test_a_network_that_looks_at_values_is_loaded(tmp_path, monkeypatch, name):
    (tmp_path / "nets_that_look.py").write_text(LOOKS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("KDEXP_TRUST", "nets_that_look")
    experiment, network = saved(tmp_path, "dataset=digits", "student=module", f"student.target=nets_that_look.{name}")
    said = load(tmp_path).predict(stored_test(experiment), batch_size=experiment.config.dataset.batch_size)
    np.testing.assert_allclose(said.probabilities, probabilities(evaluated(experiment, network)), atol=1e-6)


def test_weights_without_a_description_damaged_or_of_another_shape_are_one_line(tmp_path):
    path = tmp_path / "student.safetensors"
    save_file({"weight": torch.zeros(2, 2)}, path)
    with pytest.raises(ValueError, match=r"^path must hold weights that say how their network is built"):
        load(tmp_path)
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(ValueError, match=r"^path must hold weights that say how their network is built"):
        load(tmp_path)
    saved(tmp_path, *DIGITS)
    about = json.loads(_header(path))
    save_file({"weight": torch.zeros(2, 2)}, path, {"kdexp": json.dumps(about)})
    with pytest.raises(ValueError, match=r"^path must hold the weights of this network"):
        load(tmp_path)


def _header(path):
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return file.metadata()["kdexp"]


def test_weights_that_are_not_finite_give_no_prediction(tmp_path):
    _, network = saved(tmp_path, *DIGITS)
    state = {name: torch.full_like(tensor, float("nan")) if tensor.is_floating_point() else tensor
             for name, tensor in network.state_dict().items()}  # fmt: skip
    header = _header(tmp_path / "student.safetensors")
    save_file(state, tmp_path / "student.safetensors", {"kdexp": header})
    with pytest.raises(ValueError, match=r"^run must have a student whose logits are finite, got NaN or Inf$"):
        load(tmp_path).predict(np.zeros((8, 8), np.uint8))
