"""Which networks there are for which task, and what is said to who takes another one."""

import re
from pathlib import Path

import pytest

from kdexp.config.compose import compose
from kdexp.experiment.members import new_task
from kdexp.experiment.networks import build_network

ROOT = Path(__file__).parents[2]
OPTIONS = {path.stem for path in (ROOT / "conf" / "student").glob("*.yaml")}
OF_FOLDERS = ("hf_text", "huggingface")  # of which there is none here: tests/models
DATA = {
    "images": ["dataset=synthetic", "dataset.input_shape=[3,32,32]"],
    "tables": ["dataset=breast_cancer"],
    "sequences": ["dataset=synthetic", "dataset.input_shape=[7,5]", "dataset.mean=[0]", "dataset.std=[1]"],
    "masks": ["dataset=shapes"],
    "texts": ["dataset=trec"],
    "generation": ["dataset=digits", "task=generation"],
}


def composed(data, student, folder, *words):
    return compose([*DATA[data], f"student={student}", *words], output_dir=folder)


def networks(data, folder):
    config = composed(data, "mlp", folder)
    return new_task(config.task, config.dataset).networks(config.dataset.input_shape)


@pytest.mark.parametrize("data", DATA)
def test_each_network_that_a_task_names_is_one_of_it(tmp_path, data):
    for name in networks(data, tmp_path):
        assert name in OPTIONS
        if name in OF_FOLDERS:
            continue
        if name == "smp":
            pytest.importorskip("segmentation_models_pytorch", reason="pip install 'kdexp[smp]'")
        if data == "texts":
            pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")
        config = composed(data, name, tmp_path)
        build_network(config.student, "student", config.dataset, config.task)


def folder_of(data, folder):
    """A small network of the library's, as it saves it."""
    transformers = pytest.importorskip("transformers", reason="pip install 'kdexp[text]'")
    small = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8, "hidden_size": 8}
    if data == "images":
        sizes = {"embedding_size": 4, "hidden_sizes": [4, 8], "depths": [1, 1], "num_labels": 10}
        network = transformers.ResNetForImageClassification(transformers.ResNetConfig(layer_type="basic", **sizes))
    elif data == "masks":
        sizes = {"depths": [1, 1], "sr_ratios": [4, 2], "hidden_sizes": [8, 16], "patch_sizes": [7, 3]}
        sizes |= {"strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2]}
        config = transformers.SegformerConfig(num_encoder_blocks=2, num_labels=3, decoder_hidden_size=8, **sizes)
        network = transformers.SegformerForSemanticSegmentation(config)
    else:
        config = transformers.BertConfig(vocab_size=4, num_labels=6, **small)
        network = transformers.BertForSequenceClassification(config)
    transformers.utils.logging.disable_progress_bar()
    network.save_pretrained(folder / "saved")
    return str(folder / "saved")


@pytest.mark.parametrize("data", ["images", "masks", "texts"])
def test_a_network_of_hugging_face_is_a_student_of_each_task(tmp_path, data):
    config = composed(data, "huggingface", tmp_path, f"student.folder={folder_of(data, tmp_path)}",
                      f"student.pretrained={data != 'texts'}")  # fmt: skip
    build_network(config.student, "student", config.dataset, config.task)
    if data == "images":
        return
    other = composed("images", "huggingface", tmp_path, f"student.folder={tmp_path}/saved", "student.pretrained=false")
    with pytest.raises(ValueError, match=r"^student"):
        build_network(other.student, "student", other.dataset, other.task)


@pytest.mark.parametrize(
    ("data", "student"),
    [("texts", "timm"), ("texts", "mlp"), ("masks", "timm"), ("masks", "textcnn"), ("masks", "torchvision"),
     ("images", "unet"), ("images", "textcnn"), ("tables", "timm"), ("tables", "textcnn"), ("sequences", "torchvision"),
     ("generation", "cnn"), ("generation", "unet")],
)  # fmt: skip
def test_a_network_of_another_task_is_refused_with_those_of_this_one(tmp_path, data, student):
    if student == "textcnn":
        pytest.importorskip("tokenizers", reason="pip install 'kdexp[text]'")
    config = composed(data, student, tmp_path)
    task = {"masks": "segmentation", "texts": "text", "generation": "generation"}.get(data, "classification")
    names = ", ".join(networks(data, tmp_path))
    with pytest.raises(ValueError, match=rf"^student[^\n]*, got [^\n]*; for task={task} there (is|are) {names}$"):
        build_network(config.student, "student", config.dataset, config.task)


def test_the_page_names_them(tmp_path):
    page = (ROOT / "docs" / "tasks.md").read_text()
    rows = {row[0]: row[1:] for row in re.findall(r"^\| ([^|]+) \|([^|]*)\|([^|]*)\|$", page, re.MULTILINE)}
    for data, row in {"images": "classification of images", "tables": "classification of tables",
                      "sequences": "classification of sequences", "masks": "segmentation", "texts": "text",
                      "generation": "generation"}.items():  # fmt: skip
        named = set(re.findall(r"`(\w+)`", " ".join(rows[row])))
        assert set(networks(data, tmp_path)) <= named
        assert named <= OPTIONS
