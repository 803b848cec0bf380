"""Files in 8 and 16 bits: smaller, close to the network, and calibrated on the same samples each time."""

import copy
from types import SimpleNamespace

import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn
from torch.fx import symbolic_trace

from kdexp.export import onnx_int8
from kdexp.export.formats import exported_program
from kdexp.export.formats.onnx import load, metadata, write
from kdexp.export.half import Half, onnx_in_half
from kdexp.export.pt2e import drop_unused
from kdexp.export.settings import Calibration
from kdexp.export.writing import calibration_samples

IMAGES = torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(1, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 20))
    return layers.eval()


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "float.onnx"
    write(network, [IMAGES[:2]], path, about={"classes": ["a"]})
    return path


def error(network, path):
    with torch.no_grad():
        expected = network(IMAGES)
    return float((load(path)(IMAGES) - expected).norm() / expected.norm())


def test_eight_bits_are_a_quarter_of_the_weights(network, file, tmp_path):
    onnx_int8.static(file, tmp_path / "static.onnx", [IMAGES], ["input"])
    onnx_int8.dynamic(file, tmp_path / "dynamic.onnx")
    for name in ("static", "dynamic"):
        path = tmp_path / f"{name}.onnx"
        large = [one for one in onnx.load(path).graph.initializer if len(one.raw_data) > 5000]
        assert {one.data_type for one in large} <= {TensorProto.INT8, TensorProto.UINT8}
        assert path.stat().st_size < file.stat().st_size / 2.5
        assert 0 < error(network, path) < 0.05
        assert metadata(path) == {"classes": ["a"]}


def test_static_ranges_are_those_of_the_calibration_samples(network, file, tmp_path):
    """Of samples that are a hundred times smaller they are too narrow for others."""
    onnx_int8.static(file, tmp_path / "narrow.onnx", [IMAGES / 100], ["input"])
    assert error(network, tmp_path / "narrow.onnx") > 0.5


def test_sixteen_bits_are_half(network, file, tmp_path):
    onnx_in_half(file, tmp_path / "half.onnx")
    assert (tmp_path / "half.onnx").stat().st_size < file.stat().st_size * 0.6
    assert 0 < error(network, tmp_path / "half.onnx") < 5e-3
    with torch.no_grad():
        found = Half(network)(IMAGES)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, network(IMAGES).detach(), atol=5e-3, rtol=5e-3)
    assert next(network.parameters()).dtype == torch.float32


def test_sixteen_bits_of_images_that_grow(tmp_path):
    """As a U-Net's do; the converter gets the types around it wrong."""
    network = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.Upsample(scale_factor=2), nn.Conv2d(2, 1, 1))
    write(network, [IMAGES[:2]], tmp_path / "float.onnx")
    onnx_in_half(tmp_path / "float.onnx", tmp_path / "half.onnx")
    assert 0 < error(network, tmp_path / "half.onnx") < 5e-3


def test_floats_that_the_graph_does_not_read_are_not_written(network):
    graph = symbolic_trace(copy.deepcopy(network))
    graph.register_buffer("in_8_bits", torch.ones(3, dtype=torch.int8))
    with graph.graph.inserting_before(next(iter(graph.graph.nodes)).next):
        graph.graph.get_attr("in_8_bits")
    drop_unused(graph)
    assert list(graph.state_dict()) == ["in_8_bits"]


def test_two_files_of_a_network_are_the_same(network, tmp_path):
    """Also in their names: the .pt2 is an archive with folders."""
    for name in "ab":
        exported_program.write(network, [IMAGES[:2]], tmp_path / f"{name}.pt2")
    assert (tmp_path / "a.pt2").read_bytes() == (tmp_path / "b.pt2").read_bytes()


def test_calibration_samples_are_a_function_of_the_seed():
    data = SimpleNamespace(splits=SimpleNamespace(train=range(1000)))
    chosen = calibration_samples(data, Calibration(50, 0))
    assert torch.equal(chosen, calibration_samples(data, Calibration(50, 0)))
    assert len(set(chosen.tolist())) == 50
    assert not torch.equal(chosen, calibration_samples(data, Calibration(50, 1)))
    assert calibration_samples(data, Calibration(5000, 0)).tolist() == list(range(1000))
