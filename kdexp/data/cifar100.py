"""CIFAR-100: photographs, 32 x 32 RGB, 100 classes, 50,000 / 10,000 (Krizhevsky 2009)."""

from torchvision.datasets import CIFAR100

from kdexp.contracts import Source
from kdexp.data.downloads import load_torchvision


def load(data_dir: str, download: bool = False) -> Source:
    """Load the official train and test parts.

    Args:
        data_dir: the folder that torchvision's ``CIFAR100`` calls root.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: the files are not there, and download is off.
        ValueError: a file is damaged.
        ConnectionError: the download failed.
    """
    return load_torchvision(CIFAR100, data_dir, download=download)
