"""A graph that onnxruntime runs as a teacher: it says what the network says that it was made from."""

import copy
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from kdexp.config.compose import compose
from kdexp.experiment.check import check
from kdexp.experiment.networks import build_network, side_of
from kdexp.models.cnn import cnn
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest

onnx = pytest.importorskip("onnx", reason="pip install 'kdexp[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'kdexp[export]'")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from kdexp.teacher.onnx_network import OnnxNetwork  # noqa: E402

CLASSES, SHAPE = 4, [3, 5, 6]
INPUTS = torch.rand(7, *SHAPE, generator=torch.Generator().manual_seed(0))
WEIGHT = np.random.default_rng(0).standard_normal((CLASSES, 3)).astype(np.float32)


def graph(path, *, batch="n", nhwc=False, softmax=False, sizes=True, hidden=False, weight=WEIGHT):
    """Means of the channels, a linear layer: as people write it by hand, or Keras does for them."""
    height, width = SHAPE[1:] if sizes else ("h", "w")
    shape = [batch, height, width, 3] if nhwc else [batch, 3, height, width]
    nodes = [
        helper.make_node("ReduceMean", ["x", "axes"], ["pool.0"], keepdims=0),
        helper.make_node("MatMul", ["pool.0", "w"], ["z"]),
    ]
    outputs = [helper.make_tensor_value_info("z", TensorProto.FLOAT, [batch, CLASSES])]
    if softmax:
        nodes.append(helper.make_node("Softmax", ["z"], ["p"], axis=1))
        outputs = [helper.make_tensor_value_info("p", TensorProto.FLOAT, [batch, CLASSES])]
    if hidden:
        outputs.append(helper.make_tensor_value_info("pool.0", TensorProto.FLOAT, [batch, 3]))
    axes = numpy_helper.from_array(np.array([1, 2] if nhwc else [2, 3]), "axes")
    made = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        outputs,
        [axes, numpy_helper.from_array(weight.T.copy(), "w")],
    )
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return str(path)


def wanted(inputs):
    return inputs.mean((2, 3)) @ torch.from_numpy(WEIGHT).T


@pytest.mark.parametrize("batch", ["n", 3, 1])
@pytest.mark.parametrize("nhwc", [False, True])
def test_a_graph_gives_what_it_says_for_any_number_of_samples(tmp_path, batch, nhwc):
    network = OnnxNetwork(CLASSES, SHAPE, graph(tmp_path / "a.onnx", batch=batch, nhwc=nhwc)).eval()
    for count in (1, 3, 7):
        assert torch.allclose(network(INPUTS[:count]), wanted(INPUTS[:count]), atol=1e-6)


def test_probabilities_become_logits(tmp_path):
    file = graph(tmp_path / "a.onnx", softmax=True)
    found = OnnxNetwork(CLASSES, SHAPE, file, holds="probabilities")(INPUTS)
    assert torch.allclose(found, wanted(INPUTS).log_softmax(1), atol=1e-6)
    with pytest.raises(ValueError, match=r"must be probabilities .* with holds=probabilities, got others$"):
        OnnxNetwork(CLASSES, SHAPE, graph(tmp_path / "b.onnx"), holds="probabilities")(INPUTS)


def test_a_layout_that_the_graph_does_not_say_is_given(tmp_path):
    file = graph(tmp_path / "a.onnx", nhwc=True, sizes=False)
    assert torch.allclose(OnnxNetwork(CLASSES, SHAPE, file)(INPUTS), wanted(INPUTS), atol=1e-6)  # by its channels
    same = [3, 3, 3]
    with pytest.raises(ValueError, match=r"^layout must be nchw or nhwc where the graph does not say, got auto for "):
        OnnxNetwork(CLASSES, same, graph(tmp_path / "b.onnx", nhwc=True, sizes=False))
    cubes = torch.rand(2, *same)
    network = OnnxNetwork(CLASSES, same, file, layout="nhwc")
    assert torch.allclose(network(cubes), wanted(cubes), atol=1e-6)


def test_other_outputs_are_features_and_there_are_no_others(tmp_path):
    network = OnnxNetwork(CLASSES, SHAPE, graph(tmp_path / "a.onnx", hidden=True))
    teacher = Teacher([network])
    teacher.read(["outputs.pool_0"])
    assert torch.allclose(teacher(INPUTS).features["outputs.pool_0"], INPUTS.mean((2, 3)), atol=1e-6)
    with pytest.raises(ValueError, match=r"^a layer must be a module of the network, got 'outputs.relu'"):
        teacher.read(["outputs.relu"])


def test_an_output_is_that_of_its_sample_alone_to_the_bit_as_it_is_of_other_teachers(tmp_path):
    teacher = Teacher([OnnxNetwork(CLASSES, SHAPE, graph(tmp_path / "a.onnx"))])
    every = teacher(torch.rand(70, *SHAPE, generator=torch.Generator().manual_seed(1)))
    again = torch.rand(70, *SHAPE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(every.logits[40:43], teacher(again[40:43]).logits)


def test_it_is_known_by_its_file_and_how_that_is_read(tmp_path):
    file, other = graph(tmp_path / "a.onnx"), graph(tmp_path / "b.onnx", hidden=True)
    digests = {
        state_digest(OnnxNetwork(CLASSES, SHAPE, *each))
        for each in [(file,), (other,), (file, "multiclass", "probabilities"), (file, "multiclass", "logits", "nchw")]
    }
    assert len(digests) == 3  # nchw is what it is
    network = OnnxNetwork(CLASSES, SHAPE, file)
    assert torch.equal(copy.deepcopy(network)(INPUTS), network(INPUTS))


def test_no_gradient_goes_through_it(tmp_path):
    network = OnnxNetwork(CLASSES, SHAPE, graph(tmp_path / "a.onnx"))
    with pytest.raises(
        ValueError, match=r"^teacher must be a network of PyTorch where a gradient goes through it, got "
    ):
        network(INPUTS.clone().requires_grad_())


@pytest.mark.filterwarnings("ignore")
def test_a_teacher_of_pytorch_says_the_same_as_an_onnx_file_within_1e_5(tmp_path):
    torch.manual_seed(0)
    network = cnn(CLASSES, [1, 8, 8]).eval()
    inputs = torch.rand(2, 1, 8, 8)
    file = tmp_path / "a.onnx"
    torch.onnx.export(network, (inputs,), file, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    found = Teacher([OnnxNetwork(CLASSES, [1, 8, 8], str(file))])(inputs).logits
    assert torch.allclose(found, network(inputs), atol=1e-5)


SAID = [
    [0.003429, 0.543946, 0.094977, 0.174616, 0.012468, 0.004524, 0.117844, 0.002094, 0.023318, 0.022784],
    [0.00631, 0.019475, 0.000325, 0.008739, 0.878173, 0.000853, 0.053922, 0.013358, 0.008833, 0.010011],
    [0.903083, 0.000861, 0.004526, 0.006907, 0.007787, 0.024045, 0.011713, 0.001938, 0.014041, 0.025099],
    [0.024802, 0.005195, 0.009461, 0.038235, 0.007059, 0.871378, 0.003144, 0.005114, 0.0168, 0.018812],
]
"""What keras_digits.onnx is to say of the digits from the 1000th on: Model.predict of Keras 3.15, whose
Model.export(format="onnx") wrote it. Layers: Conv2D(8, 3, relu, same), MaxPooling2D, Flatten, Dense(10, softmax)."""


def test_a_file_of_keras_says_what_keras_said():
    from sklearn.datasets import load_digits

    images = torch.tensor(load_digits().images[1000:1004] / 16).float().unsqueeze(1)
    file = Path(__file__).with_name("keras_digits.onnx")
    network = OnnxNetwork(10, [1, 8, 8], str(file), holds="probabilities")  # (N, 8, 8, 1), by its shape
    assert np.allclose(network(images).softmax(1), SAID, atol=1e-6)


@pytest.mark.filterwarnings("ignore")
def test_a_model_of_keras_can_be_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    keras = pytest.importorskip("keras", reason="pip install keras")
    layers = [keras.layers.Conv2D(3, 2), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input((5, 6, 3)), *layers])
    said = model.predict(INPUTS.movedim(1, -1).numpy(), verbose=0)
    model.export(str(tmp_path / "a.onnx"), format="onnx", verbose=False)
    found = OnnxNetwork(CLASSES, SHAPE, str(tmp_path / "a.onnx"))(INPUTS)
    assert np.allclose(found, said, atol=1e-5)


def configured(file, *more):
    return compose(
        ["dataset=digits", "teacher=onnx", f"teacher.file={file}", "tracking=none", *more],
        output_dir="x",
        store_dir="y",
    )


def test_a_wrong_setting_is_one_line(tmp_path):
    file = graph(tmp_path / "a.onnx")
    (tmp_path / "no.onnx").write_text("no graph")
    for settings, message in [
        ({"file": str(tmp_path / "none.onnx")}, "file must be an existing file, got "),
        ({"file": str(tmp_path / "no.onnx")}, "file must be a whole ONNX model, got "),
        ({"holds": "scores"}, "holds must be logits or probabilities, got scores"),
        ({"layout": "hwc"}, "layout must be auto, nchw, nhwc, got hwc"),
        ({"output": "q"}, "output must be one of z, got q"),
    ]:
        with pytest.raises((ValueError, FileNotFoundError), match=f"^{re.escape(message)}[^\n]*$"):
            OnnxNetwork(CLASSES, SHAPE, **{"file": file} | settings)
    for more, message in [
        (["teacher.weights=random"], "teacher.weights must be built for a teacher that is a file, got random"),
        (["scheme=adaad"], "teacher.file must be null with scheme=adaad, which takes a gradient .*"),
    ]:
        with pytest.raises(ValueError, match=f"^{message}$"):
            check(configured(file, *more))
    config = configured(file)
    with pytest.raises(ValueError, match=r"^teacher must take inputs of dataset.input_shape .*got \[1, 8, 8\]: "):
        build_network(config.teacher, "teacher", config.dataset, config.task)
    for made, more, message in [
        (tmp_path / "none.onnx", [], "teacher.file must be an existing file, got "),
        (
            graph(tmp_path / "nan.onnx", weight=WEIGHT * np.nan),
            [],
            "teacher: the outputs of {} must be finite, got NaN or",
        ),
        (
            graph(tmp_path / "b.onnx"),
            ["teacher.holds=probabilities"],
            "teacher: the outputs of {} must be probabilities ",
        ),
    ]:
        config = configured(made, "teacher.num_classes=4", "teacher.input_shape=[3,5,6]", *more)
        config.dataset.input_shape, config.dataset.num_outputs = SHAPE, CLASSES
        with pytest.raises(ValueError, match=f"^{re.escape(message.format(made))}[^\n]*$"):
            build_network(config.teacher, "teacher", config.dataset, config.task)
    student = configured(file, "student._target_=kdexp.teacher.onnx_network.OnnxNetwork")
    with pytest.raises(ValueError, match=r"^student._target_ must be a network of kdexp.models, "):
        check(student)


def test_feature_losses_are_told_which_layers_in_one_line(tmp_path):
    file = graph(tmp_path / "a.onnx", batch=2)
    with pytest.raises(ValueError, match=r"^teacher.feature_layers: the layers of OnnxNetwork must be given: "):
        side_of("teacher", {"feature_layers": "auto"}, OnnxNetwork(CLASSES, SHAPE, file), SHAPE)
