"""The published layouts, with small files of our own in them."""

import hashlib
import re

import numpy as np
import pytest
import torch

from kdexp.robustness import corruption_datasets
from kdexp.robustness.corruption_datasets import CIFAR_FAMILIES, MNIST_FAMILIES, PublishedSet, published_sets

TARGET = torch.arange(6) % 4


def md5(path):
    return hashlib.md5(path.read_bytes()).hexdigest()


@pytest.fixture
def cifar_c(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in CIFAR_FAMILIES:
        np.save(folder / f"{name}.npy", generator.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8))
    np.save(folder / "labels.npy", np.tile(TARGET.numpy(), 5).astype(np.uint8))
    sums = {path.name: md5(path) for path in folder.iterdir()}
    return PublishedSet("cifar10_c", folder, CIFAR_FAMILIES, checksums=sums)


@pytest.fixture
def mnist_c(tmp_path):
    folder = tmp_path / "mnist_c"
    generator = np.random.default_rng(0)
    for name in MNIST_FAMILIES:
        (folder / name).mkdir(parents=True)
        np.save(folder / name / "test_images.npy", generator.integers(0, 256, (6, 28, 28, 1), dtype=np.uint8))
        np.save(folder / name / "test_labels.npy", TARGET.numpy())
    return published_sets("mnist", str(tmp_path))[0]


def test_a_severity_is_a_fifth_of_the_file(cifar_c):
    cifar_c.check(TARGET, [3, 8, 8])
    index = torch.tensor([4, 0])
    stored = np.load(cifar_c.folder / "fog.npy")
    for severity in (1, 3, 5):
        expected = stored[[(severity - 1) * 6 + 4, (severity - 1) * 6]].transpose(0, 3, 1, 2) / np.float32(255)
        np.testing.assert_allclose(cifar_c.images("fog", severity, index), expected, atol=1e-7)


def test_mnist_c_has_one_severity(mnist_c):
    mnist_c.check(TARGET, [1, 28, 28])
    stored = np.load(mnist_c.folder / "zigzag" / "test_images.npy")
    found = mnist_c.images("zigzag", 1, torch.tensor([5, 2]))
    np.testing.assert_allclose(found, stored[[5, 2]].transpose(0, 3, 1, 2) / np.float32(255), atol=1e-7)


def test_what_is_wrong_with_the_files_is_one_line(cifar_c, mnist_c):
    fog = cifar_c.folder / "fog.npy"
    with pytest.raises(ValueError, match=r"labels.npy must hold the labels of the test set, got others$"):
        cifar_c.check(TARGET.flip(0))
    with pytest.raises(ValueError, match=r"must hold 5 uint8 images for each of 5 severities, got uint8 of shape"):
        cifar_c.check(TARGET[:5])
    with pytest.raises(ValueError, match=r".npy must hold images of shape \[3, 32, 32\], got \[3, 8, 8\]$"):
        cifar_c.check(TARGET, [3, 32, 32])
    content = bytearray(fog.read_bytes())
    content[-1] ^= 1
    fog.write_bytes(content)
    with pytest.raises(ValueError, match=rf"has the corrupt file {re.escape(str(fog))}: download it again$"):
        cifar_c.check(TARGET)
    fog.unlink()
    with pytest.raises(
        FileNotFoundError, match=rf"^data_dir has not all of cifar10_c: {re.escape(str(fog))} does not exist$"
    ):
        cifar_c.check(TARGET)
    cut = mnist_c.folder / "fog" / "test_images.npy"
    cut.write_bytes(cut.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"has the corrupt file .*fog/test_images.npy: download it again$"):
        mnist_c.check(TARGET)


def test_only_sets_that_are_there_are_found(cifar_c, mnist_c, tmp_path):
    assert [found.name for found in published_sets("cifar10", str(tmp_path))] == ["cifar10_c", "cifar10_c_held_out"]
    assert published_sets("cifar100", str(tmp_path)) == []
    assert published_sets("digits", str(tmp_path)) == []


def test_the_published_checksums_cover_every_file():
    files = {f"{name}.npy" for name in corruption_datasets.CIFAR_FAMILIES | corruption_datasets.HELD_OUT_FAMILIES} | {
        "labels.npy"
    }
    for sums in (corruption_datasets.CIFAR10_C_MD5, corruption_datasets.CIFAR100_C_MD5):
        assert sums.keys() == files
        assert all(re.fullmatch("[0-9a-f]{32}", value) for value in sums.values())
        assert len(set(sums.values())) == 20
