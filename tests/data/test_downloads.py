import shutil
import struct
from types import SimpleNamespace
from urllib.error import URLError

import numpy as np
import pytest
import torch

from kdexp.data import cifar10, cifar100, fashion_mnist, mnist, pneumonia_mnist
from kdexp.data.downloads import load_torchvision

MODULES = [mnist, fashion_mnist, cifar10, cifar100, pneumonia_mnist]


def write_idx(path, array):
    """The format's description: http://yann.lecun.com/exdb/mnist/, "The IDX file format"."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture
def small_mnist(tmp_path):
    generator = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 6), ("t10k", 4)):
        images = generator.integers(256, size=(n, 28, 28), dtype=np.uint8)
        labels = np.arange(n, dtype=np.uint8)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(tmp_path / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
        arrays[part] = images, labels
    return tmp_path, arrays


def test_mnist_files_become_bytes_with_a_channel_and_class_numbers(small_mnist):
    folder, arrays = small_mnist
    source = mnist.load(str(folder))
    for inputs, target, (images, labels) in (
        (source.train_inputs, source.train_target, arrays["train"]),
        (source.test_inputs, source.test_target, arrays["t10k"]),
    ):
        np.testing.assert_array_equal(inputs.numpy(), images[:, None])
        assert inputs.dtype == torch.uint8
        assert target.dtype == torch.int64
        assert target.tolist() == labels.tolist()


def test_colour_images_get_their_channels_first():
    images = np.random.default_rng(0).integers(256, size=(2, 4, 5, 3), dtype=np.uint8)

    def dataset(root, train, download):
        return SimpleNamespace(data=images, targets=[1, 0])

    source = load_torchvision(dataset, "", download=False)
    assert tuple(source.train_inputs.shape) == (2, 3, 4, 5)
    assert source.train_inputs.is_contiguous()
    for n, c, h, w in np.ndindex(2, 3, 4, 5):
        assert int(source.train_inputs[n, c, h, w]) == images[n, h, w, c]
    assert source.test_target.tolist() == [1, 0]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_missing_files_are_named_with_the_setting_and_the_switch(module, tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        module.load(str(tmp_path))
    message = str(error.value)
    assert message.startswith("data_dir has no ")
    assert str(tmp_path) in message
    assert "KDEXP_DATA_DIR" in message
    assert "dataset.source.download=true" in message
    assert "\n" not in message


def test_a_single_missing_file_is_named(small_mnist):
    folder, _ = small_mnist
    lost = folder / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    lost.unlink()
    with pytest.raises(FileNotFoundError, match=str(lost)):
        mnist.load(str(folder))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"])
@pytest.mark.parametrize("size", [0, 3, 11, -1])
@pytest.mark.parametrize("download", [False, True])
def test_a_truncated_mnist_file_is_named(small_mnist, name, size, download):
    folder, _ = small_mnist
    path = folder / "MNIST" / "raw" / name
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"^dataset.source has the corrupt file {path}: ") as error:
        mnist.load(str(folder), download=download)
    assert "\n" not in str(error.value)


def test_a_damaged_cifar_file_is_found_by_its_md5_before_it_is_unpickled(tmp_path):
    path = tmp_path / "cifar-100-python" / "train"
    path.parent.mkdir()
    path.write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(ValueError, match=f"has the corrupt file {path}: "):
        cifar100.load(str(tmp_path))


def test_a_damaged_npz_is_named(tmp_path):
    (tmp_path / "pneumoniamnist.npz").write_bytes(b"PK")
    with pytest.raises(ValueError, match=r"has the corrupt file .*pneumoniamnist.npz: "):
        pneumonia_mnist.load(str(tmp_path))


def test_a_bit_flipped_in_the_real_cifar_file_is_noticed(tmp_path, real_data):
    folder = tmp_path / "cifar-100-python"
    shutil.copytree(f"{real_data('cifar100')}/cifar-100-python", folder)
    content = bytearray((folder / "test").read_bytes())
    content[1_000_000] ^= 1
    (folder / "test").write_bytes(content)
    with pytest.raises(ValueError, match=f"has the corrupt file {folder / 'test'}: "):
        cifar100.load(str(tmp_path))


def test_a_download_without_a_network_is_one_line(tmp_path):
    class Unreachable:
        train_list = test_list = (("batch", "0" * 32),)
        base_folder = "there"

        def __init__(self, root, train, download):
            assert download
            raise URLError("no\nnetwork")

    folder = tmp_path / "new"
    with pytest.raises(ConnectionError, match=r"^dataset.source.download=true could not download Unreachable to ") as e:
        load_torchvision(Unreachable, str(folder), download=True)
    assert "\n" not in str(e.value)
