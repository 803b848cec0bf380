import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.export.preprocessing import Preprocessed


def experiment(tmp_path, *overrides):
    torch.manual_seed(0)
    return Experiment(compose([*overrides, "teacher=mlp"], output_dir=tmp_path))


def evaluated(built, network):
    """The logits of test, as kdexp's own evaluation has them."""
    with torch.no_grad():
        return torch.cat([network(batch.inputs) for batch in built.data.student.eval_batches("test", "cpu")])


def of_stored(built, network):
    settings = built.config.dataset
    module = Preprocessed(network, settings.mean, settings.std, settings.input_shape).eval()
    split = built.data.student.splits.test
    with torch.no_grad():
        return module, split.inputs[split.index], module(split.inputs[split.index])


@pytest.mark.parametrize(
    "overrides",
    [
        ["dataset=shapes", "student=unet", "task=segmentation", "dataset.source.test_samples=4"],
        ["dataset=digits", "student=cnn_small"],
        ["dataset=digits", "student=resnet8", "+student.resize=16"],
        ["dataset=breast_cancer", "student=mlp"],
    ],
    ids=["uint8", "float images", "resize", "table"],
)
def test_it_gives_the_logits_of_kdexps_own_evaluation(tmp_path, overrides):
    built = experiment(tmp_path, *overrides)
    network = built.new_student().eval()
    _, _, logits = of_stored(built, network)
    torch.testing.assert_close(logits, evaluated(built, network), rtol=0, atol=1e-6)


def test_uint8_images_by_hand():
    """By a plain loop over channels: x / 255, minus mean, by std, resized by the network's own hook."""
    torch.manual_seed(0)
    images = torch.randint(256, (3, 2, 5, 5), dtype=torch.uint8)
    seen = []

    class Network(nn.Module):
        def forward(self, inputs):
            seen.append(inputs)
            return F.interpolate(inputs, size=(4, 4)).flatten(1)

    Preprocessed(Network(), [0.25, 0.5], [0.5, 2.0], [2, 5, 5])(images)
    for channel, (mean, std) in enumerate(((0.25, 0.5), (0.5, 2.0))):
        by_hand = (images[:, channel].double() / 255 - mean) / std
        torch.testing.assert_close(seen[0][:, channel].double(), by_hand, rtol=0, atol=1e-6)
    assert seen[0].dtype == torch.float32


def test_a_value_for_all_and_floats_as_they_are():
    x = torch.tensor([[300.0, -2.0, 5.0]])
    assert Preprocessed(nn.Identity(), [1.0], [2.0], [3])(x).tolist() == [[149.5, -1.5, 2.0]]


def test_texts_are_the_networks_own_inputs():
    codes = torch.tensor([[72, 105, 0]], dtype=torch.int32)
    assert Preprocessed(nn.Identity(), [0.0], [1.0], [3])(codes) is codes


def test_another_number_of_means_is_refused():
    with pytest.raises(ValueError, match=r"^dataset.mean must have 1 or 3 values for inputs \[3, 4, 4\], got 2$"):
        Preprocessed(nn.Identity(), [0.0, 0.0], [1.0], [3, 4, 4])


@pytest.mark.parametrize("resize", [None, 12])
def test_it_is_exported_with_any_batch(tmp_path, resize):
    overrides = [] if resize is None else [f"+student.resize={resize}"]
    built = experiment(tmp_path, "dataset=digits", "student=cnn_small", *overrides)
    module, inputs, logits = of_stored(built, built.new_student().eval())
    batch = torch.export.Dim("batch")
    exported = torch.export.export(module, (inputs[:2],), dynamic_shapes=({0: batch},))
    torch.testing.assert_close(exported.module()(inputs), logits, rtol=0, atol=1e-5)
