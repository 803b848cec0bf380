"""MNIST: handwritten digits, 28 x 28, 10 classes, 60,000 / 10,000 (LeCun et al. 1998)."""

from torchvision.datasets import MNIST

from kdexp.contracts import Source
from kdexp.data.downloads import load_torchvision


def load(data_dir: str, download: bool = False) -> Source:
    """Load the official train and test parts.

    Args:
        data_dir: the folder that torchvision's ``MNIST`` calls root.
        download: fetch what is missing.

    Raises:
        FileNotFoundError: the files are not there, and download is off.
        ValueError: a file is damaged.
        ConnectionError: the download failed.
    """
    return load_torchvision(MNIST, data_dir, download=download)
