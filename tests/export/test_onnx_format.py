"""A network as an ONNX file: any number of samples, the same outputs, and what is told about it."""

import onnx
import pytest
import torch
from torch import nn

from kdexp.data.normalization import statistic
from kdexp.export import onnx_int8
from kdexp.export.formats.onnx import load, metadata, write
from kdexp.export.latency import latency, processor
from kdexp.export.preprocessing import Preprocessed
from kdexp.export.size import size_of


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    layers = nn.Sequential(
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(144, 3))
    )
    layers[1].running_mean.uniform_()
    return layers


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "student.onnx"
    write(network, [torch.zeros(1, 1, 8, 8)], path, about={"classes": ["a", "b", "c"], "std": [0.5]})
    return path


def test_an_untrained_network_is_written_for_any_number_of_samples(network, file):
    assert network.training
    for count in (1, 2, 7):
        images = torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = network.eval()(images)
        network.train()
        torch.testing.assert_close(load(file)(images), expected, atol=1e-5, rtol=1e-5)


def test_samples_are_the_axis_batch(file, tmp_path):
    onnx_int8.dynamic(file, tmp_path / "int8.onnx")
    for path in (file, tmp_path / "int8.onnx"):
        graph = onnx.load(path).graph
        for value in (*graph.input, *graph.output):
            assert value.type.tensor_type.shape.dim[0].dim_param == "batch"


class Looks(nn.Linear):
    def forward(self, x):
        return super().forward(x) * (2 if float(x.sum()) > 1 else 1)


def test_a_network_that_cannot_be_had_is_one_line_and_no_graph(tmp_path, capfd):
    with pytest.raises(ValueError, match=r"^format must be one that can be had of Looks, got torch.export's: [^\n]*$"):
        write(Looks(3, 2), [torch.zeros(2, 3)], tmp_path / "x.onnx")
    assert capfd.readouterr().err == ""


def test_what_was_told_is_in_the_file(file):
    assert metadata(file) == {"classes": ["a", "b", "c"], "std": [0.5]}


def test_preprocessing_inside_takes_bytes(network, tmp_path):
    raw = torch.arange(128, dtype=torch.uint8).view(2, 1, 8, 8)
    write(Preprocessed(network, [0.25], [0.5], (1, 8, 8)), [raw], tmp_path / "raw.onnx")
    with torch.no_grad():
        expected = network.eval()((raw / 255 - statistic("mean", [0.25], (1, 8, 8))) / 0.5)
    network.train()
    torch.testing.assert_close(load(tmp_path / "raw.onnx")(raw), expected, atol=1e-5, rtol=1e-5)


def test_size_and_work_are_those_of_the_layers(network, file):
    size = size_of(network, (1, 8, 8), file)
    assert size.parameters == 4 * 9 + 4 + 2 * 4 + 144 * 3 + 3
    assert size.macs == 4 * 9 * 36 + 144 * 3
    assert size.bytes == len(file.read_bytes()) > 4 * size.parameters


def test_a_network_that_onnx_cannot_say_is_one_line(tmp_path):
    class Bits(nn.Module):
        def forward(self, inputs):
            return inputs.view(torch.int32)

    with pytest.raises(ValueError, match=r"^format must be one that can be had of Bits, got onnx: ") as caught:
        write(Bits(), [torch.zeros(2, 3)], tmp_path / "bits.onnx")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_latency_is_of_whole_batches():
    seen = []
    found = latency(
        lambda inputs: (seen.append(len(inputs)), inputs)[1], [torch.zeros(3, 2)], batches=(1, 4), seconds=0.01
    )
    assert [one.batch for one in found] == [1, 4]
    assert set(seen) == {1, 4}
    assert all(0 < one.median_ms <= one.p95_ms and one.calls >= 20 for one in found)
    assert processor()
