"""ONNX files of somebody else's: what reads elsewhere, fills the memory or calls other code is refused in one line."""

import os

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from kdexp.onnx_file import checked

SETTING = "teacher.file"
WEIGHTS = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
PRODUCT = helper.make_node("MatMul", ["x", "w"], ["y"])


def model(*nodes, weights=WEIGHTS, others=(), domains=("",)):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size]) for name, size in (("x", 4), ("y", 3))]
    graph = helper.make_graph(nodes or [PRODUCT], "g", ends[:1], ends[1:], [weights, *others])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid(domain, 20) for domain in domains])


def outside(location, **more):
    """Weights in a file beside the model."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def written(folder, made):
    (folder / "w.bin").write_bytes(np.ones(12, np.float32).tobytes())
    os.symlink("/etc/hostname", folder / "link.bin")
    (folder / "m.onnx").write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return folder / "m.onnx"


@pytest.mark.parametrize("made", [model(), model(weights=outside("w.bin"))], ids=["one file", "weights beside it"])
def test_a_whole_model_is_let_through(tmp_path, made):
    path = written(tmp_path, made)
    assert checked(path, SETTING) == path


TERABYTES = [
    helper.make_node("ConstantOfShape", ["s"], ["c"]),
    helper.make_node("ReduceSum", ["c"], ["r"], keepdims=0),
    helper.make_node("Add", ["x", "r"], ["a"]),
    helper.make_node("MatMul", ["a", "w"], ["y"]),
]
SHAPE = numpy_helper.from_array(np.array([10**6, 10**6]), "s")
BRANCH = helper.make_graph(
    [helper.make_node("Evil", ["x"], ["b"], domain="evil")], "b", [], [helper.make_empty_tensor_value_info("b")]
)
IN_A_BRANCH = [
    helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
    helper.make_node("If", ["c"], ["y"], then_branch=BRANCH, else_branch=BRANCH),
]
BROKEN = {
    "empty": (b"", "ir_version"),
    "a pickle": (b"\x80\x04\x95abc", "parsing"),
    "a zip": (b"PK\x03\x04" + bytes(30), "parsing"),
    "cut short": (model().SerializeToString()[:-30], "parsing"),
    "weights above": (model(weights=outside("../w.bin")), "outside"),
    "weights elsewhere": (model(weights=outside("/etc/hostname")), "outside"),
    "weights behind a link": (model(weights=outside("link.bin")), "outside"),
    "weights nowhere": (model(weights=outside("none.bin")), "none.bin"),
    "weights too long": (model(weights=outside("w.bin", length=10**13)), "not whole"),
    "weights cut short": (model(weights=outside("w.bin", offset=8)), "not whole"),
    "a place that is no number": (model(weights=outside("w.bin", offset="x")), "invalid literal"),
    "a large shape": (model(weights=TensorProto(name="w", data_type=1, dims=[10**6] * 3)), "shape"),
    "a negative shape": (model(weights=TensorProto(name="w", data_type=1, dims=[-4, -3])), "shape"),
    "few values": (model(weights=TensorProto(name="w", data_type=1, dims=[4, 3], raw_data=b"1234")), "too small"),
    "terabytes made of nothing": (model(*TERABYTES, others=[SHAPE]), "3725 GB"),
    "an operator from a library": (
        model(helper.make_node("Evil", ["x"], ["y"], domain="evil"), domains=("", "evil")),
        "Evil",
    ),
    "the same in a branch": (model(*IN_A_BRANCH, domains=("", "evil")), "Evil"),
    "an operator that is not": (model(helper.make_node("Nope", ["x"], ["y"])), "Nope"),
}


@pytest.mark.parametrize(("made", "reason"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_or_would_do_harm_is_one_line(tmp_path, made, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        checked(written(tmp_path, made), SETTING)
    assert str(caught.value).startswith(SETTING)
    assert "\n" not in str(caught.value)


def test_no_file_and_a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for name in ("none.onnx", "pipe.onnx"):
        with pytest.raises(FileNotFoundError, match=SETTING):
            checked(tmp_path / name, SETTING)


def test_without_onnx_the_command_that_installs_it_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(ValueError, match=r"pip install 'kdexp\[export\]'"):
        checked(tmp_path / "m.onnx", SETTING)


def test_onnx_itself_reads_what_was_let_through(tmp_path):
    path = checked(written(tmp_path, model(weights=outside("w.bin"))), SETTING)
    assert numpy_helper.to_array(onnx.load(path).graph.initializer[0]).sum() == 12
