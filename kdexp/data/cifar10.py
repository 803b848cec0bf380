"""CIFAR-10: photographs, 32 x 32 RGB, 10 classes, 50,000 / 10,000 (Krizhevsky 2009)."""

from torchvision.datasets import CIFAR10

from kdexp.contracts import Source
from kdexp.data.downloads import load_torchvision


def load(data_dir: str, download: bool = False) -> Source:
    """Load the official train and test parts.

    Args:
        data_dir: the folder that torchvision's ``CIFAR10`` calls root.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: the files are not there, and download is off.
        ValueError: a file is damaged.
        ConnectionError: the download failed.
    """
    return load_torchvision(CIFAR10, data_dir, download=download)
