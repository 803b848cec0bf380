"""Every option of conf/dataset, as the program composes it."""

from pathlib import Path

import numpy as np
import pytest
import torch
from own_data import EXAMPLES, example
from sklearn.datasets import load_breast_cancer, load_digits

from kdexp.config.compose import compose
from kdexp.config.objects import instantiate
from kdexp.contracts import Batch, Source
from kdexp.data import breast_cancer, digits, synthetic
from kdexp.data.splits import make_splits

CONF = Path(__file__).parents[2] / "conf"
NAMES = sorted(path.stem for path in (CONF / "dataset").glob("*.yaml") if path.stem != "base")
AUGMENTS = sorted(path.stem for path in (CONF / "augment").glob("*.yaml"))
SIZES = {
    "breast_cancer": (455, 114), "cifar10": (50_000, 10_000), "cifar100": (50_000, 10_000), "digits": (1_437, 360),
    "fashion_mnist": (60_000, 10_000), "mnist": (60_000, 10_000), "mnist8": (60_000, 10_000),
    "pneumonia_mnist": (4_708, 624), "synthetic": (512, 256), "chase_db1": (480, 8), "shapes": (64, 32),
    "trec": (5_452, 500), "sst2": (6_920, 1_821), "mr": (9_596, 1_066), "subj": (9_000, 1_000),
}  # fmt: skip


OWN = sorted(EXAMPLES)
"""A user's own data: they have tests of their own."""
MASKS = ("chase_db1", "image_masks", "shapes")
"""A class for each pixel."""
TEXTS = ("mr", "sst2", "subj", "trec")


def composed(tmp_path, *overrides):
    own = [setting for override in overrides for setting in example(override, tmp_path)]
    return compose([*overrides, *own], output_dir=tmp_path)


@pytest.fixture
def loaded(real_data):
    """The data of a configuration, or a skip where the files are not here."""

    def load(dataset) -> Source:
        if "data_dir" in dataset.source:
            real_data(dataset.name)
        return instantiate(dataset.source, "source")

    return load


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OWN])
def test_a_data_set_is_what_its_configuration_says(name, tmp_path, loaded):
    dataset = composed(tmp_path, f"dataset={name}").dataset
    source = loaded(dataset)
    assert dataset.name == name
    assert (len(source.train_target), len(source.test_target)) == SIZES[name]
    for inputs, target in ((source.train_inputs, source.train_target), (source.test_inputs, source.test_target)):
        size = target.shape[1:] if name in MASKS else dataset.input_shape[1:]  # images with masks may be larger
        assert list(inputs.shape) == [len(target), dataset.input_shape[0], *size]
        numbers = torch.int32 if name in TEXTS else torch.float32
        assert inputs.dtype == (torch.uint8 if len(dataset.input_shape) == 3 else numbers)
        assert target.dtype == (torch.int8 if name in MASKS else torch.int64)
        assert target[target >= 0].unique().tolist() == list(range(dataset.num_classes))
        assert name not in MASKS or all(a >= b for a, b in zip(size, dataset.input_shape[1:], strict=True))
    if dataset.classes is not None:
        assert len(dataset.classes) == dataset.num_classes
    if source.train_inputs.dtype == torch.uint8 and name not in ("synthetic", "shapes"):
        assert (int(source.train_inputs.min()), int(source.train_inputs.max())) == (0, 255)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in (*OWN, *MASKS, *TEXTS, "cifar10")])
def test_the_statistics_are_those_of_the_training_part_alone(name, tmp_path, loaded):
    dataset = composed(tmp_path, f"dataset={name}").dataset
    train = make_splits(loaded(dataset), kind="multiclass", num_classes=dataset.num_classes,
                        val_fraction=dataset.val_fraction, split_seed=dataset.split_seed).train  # fmt: skip
    inputs = train.inputs[train.index].numpy()
    if inputs.dtype == np.uint8:
        values = np.arange(256) / 255
        shares = [np.bincount(channel.ravel(), minlength=256) / channel.size for channel in inputs.swapaxes(0, 1)]
        mean = np.array([share @ values for share in shares])
        std = np.array([share @ (values - m) ** 2 for share, m in zip(shares, mean, strict=True)]) ** 0.5
        tolerance = {"atol": 1e-3, "rtol": 0}
    else:
        mean, std = inputs.mean(0, dtype=np.float64), inputs.std(0, dtype=np.float64)
        tolerance = {"rtol": 1e-3}
    np.testing.assert_allclose(dataset.mean, mean, **tolerance)
    np.testing.assert_allclose(dataset.std, std, **tolerance)


def test_class_names_of_cifar100_are_those_of_its_files(tmp_path, real_data):
    from torchvision.datasets import CIFAR100

    found = CIFAR100(real_data("cifar100"), train=False).classes
    assert list(composed(tmp_path, "dataset=cifar100").dataset.classes) == found


def test_class_names_of_cifar10_are_those_that_its_makers_list(tmp_path):
    # https://www.cs.toronto.edu/~kriz/cifar.html
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    assert list(composed(tmp_path, "dataset=cifar10").dataset.classes) == names.split()


@pytest.mark.parametrize("name", NAMES)
def test_task_binary_asks_for_one_logit_and_the_others_for_one_a_class(name, tmp_path):
    dataset = composed(tmp_path, f"dataset={name}", "dataset.kind=multiclass").dataset
    assert dataset.num_outputs == dataset.num_classes
    binary = composed(tmp_path, f"dataset={name}", "dataset.kind=binary").dataset
    assert binary.num_outputs == 1


@pytest.mark.parametrize("name", AUGMENTS)
def test_every_augmentation_can_be_built_and_keeps_what_a_batch_must_be(name, tmp_path):
    config = composed(tmp_path, "dataset=synthetic", f"augment={name}", "dataset.input_shape=[3,32,32]",
                      "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.2,0.2,0.2]")  # fmt: skip
    source = instantiate(config.dataset.source, "source")
    target = source.train_target[:8]
    if name in (*MASKS, "masks_turned"):
        target = target.view(8, 1, 1).repeat(1, 32, 32)
    batch = Batch(source.train_inputs[:8] / 255, target, torch.arange(8))
    transforms = [instantiate(transform, "transform") for transform in config.augment.transforms]
    for transform in transforms:
        batch = transform(batch, seed=0, epoch=0)
    if name in (*MASKS, "masks_turned"):
        assert batch.inputs.shape == (8, 3, *batch.target.shape[1:])
    else:
        assert batch.inputs.shape == (8, 3, 32, 32)
    assert batch.inputs.dtype == torch.float32
    assert batch.inputs.min() >= 0
    assert batch.inputs.max() <= 1


def test_every_data_set_has_an_augmentation_of_its_name():
    assert set(NAMES) <= set(AUGMENTS)


def test_digits_are_scikit_learns_scaled_to_bytes():
    source = digits.load()
    counts, labels = load_digits(return_X_y=True)
    images = np.floor(counts * 255 / 16 + 0.5).reshape(-1, 1, 8, 8)
    found = torch.cat([source.train_inputs, source.test_inputs]).numpy()
    target = torch.cat([source.train_target, source.test_target]).numpy()

    def table(images, labels):
        return sorted((image.astype(int).tolist(), int(label)) for image, label in zip(images, labels, strict=True))

    assert table(found, target) == table(images, labels)


def test_breast_cancer_is_scikit_learns_table():
    source = breast_cancer.load()
    features, labels = load_breast_cancer(return_X_y=True)
    found = np.column_stack([torch.cat([source.train_target, source.test_target]),
                             torch.cat([source.train_inputs, source.test_inputs])])  # fmt: skip
    expected = np.column_stack([labels, features.astype(np.float32)])
    assert sorted(found.tolist()) == sorted(expected.tolist())


@pytest.mark.parametrize("module", [digits, breast_cancer])
def test_a_carved_test_part_is_a_stratified_fifth_and_always_the_same(module):
    source, again = module.load(), module.load()
    assert torch.equal(source.test_inputs, again.test_inputs)
    train, test = source.train_target.bincount(), source.test_target.bincount()
    assert (test / (train + test) - 0.2).abs().max() < 0.01


@pytest.mark.parametrize("shape", [(5,), (7, 3), (3, 6, 4)])
def test_synthetic_data_have_any_shape_and_are_the_same_at_every_call(shape):
    a, b = (synthetic.load(shape, 4, train_samples=42, test_samples=10, seed=1) for _ in range(2))
    assert tuple(a.train_inputs.shape) == (42, *shape)
    assert torch.equal(a.train_inputs, b.train_inputs)
    assert a.train_inputs.dtype == (torch.uint8 if len(shape) == 3 else torch.float32)
    assert sorted(a.train_target.bincount().tolist()) == [10, 10, 11, 11]
    assert not torch.equal(a.train_inputs, synthetic.load(shape, 4, train_samples=42, seed=2).train_inputs)


@pytest.mark.parametrize(("noise", "expected"), [(0.1, 1.0), (100.0, 0.25)])
def test_synthetic_classes_are_as_far_apart_as_the_noise_lets_them(noise, expected):
    source = synthetic.load((20,), 4, train_samples=400, test_samples=400, noise=noise)
    centres = torch.stack([source.train_inputs[source.train_target == c].mean(0) for c in range(4)])
    nearest = torch.cdist(source.test_inputs, centres).argmin(1)
    assert abs((nearest == source.test_target).float().mean() - expected) < 0.1


def test_synthetic_multilabel_targets_are_rows_of_0_and_1_that_the_inputs_show():
    source = synthetic.load((40,), 3, kind="multilabel", train_samples=400, noise=0.1)
    assert source.train_target.dtype == torch.float32
    assert set(source.train_target.flatten().tolist()) == {0.0, 1.0}
    x = torch.cat([source.train_inputs, torch.ones(400, 1)], 1)
    fitted = x @ torch.linalg.lstsq(x, source.train_target).solution
    assert ((fitted > 0.5) == source.train_target.bool()).all()
