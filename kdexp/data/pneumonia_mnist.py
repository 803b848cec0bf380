"""PneumoniaMNIST: chest X-rays of children, 28 x 28 grey, normal or pneumonia, 4,708 / 524 / 624 (Yang et al. 2023).

Part of MedMNIST v2, from the images of Kermany et al. 2018; CC BY 4.0.
"""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.utils import check_integrity, download_url

from kdexp.contracts import Source
from kdexp.data.downloads import damaged, missing, not_fetched, one_at_a_time

_FILE = "pneumoniamnist.npz"
_URL = f"https://zenodo.org/records/10519652/files/{_FILE}?download=1"
_MD5 = "28209eda62fecd6e6a2d98b1501bb15f"


def load(data_dir: str, download: bool = False) -> Source:
    """Load the official train, val and test parts.

    Args:
        data_dir: the folder in which pneumoniamnist.npz lies.
        download: fetch it if it is missing.

    Raises:
        FileNotFoundError: the file is not there, and download is off.
        ValueError: the file is damaged.
        ConnectionError: the download failed.
    """
    path = Path(data_dir) / _FILE
    if download:
        try:
            with one_at_a_time(data_dir):
                download_url(_URL, data_dir, _FILE, _MD5)
        except (OSError, RuntimeError) as error:
            raise not_fetched("PneumoniaMNIST", Path(data_dir), error) from error
    if not path.is_file():
        raise missing("PneumoniaMNIST", path)
    if not check_integrity(str(path), _MD5):
        raise damaged(path)
    with np.load(path) as arrays:
        parts = {name: _part(arrays, name) for name in ("train", "val", "test")}
    return Source(*parts["train"], *parts["test"], val=parts["val"])


def _part(arrays: dict[str, np.ndarray], name: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(arrays[f"{name}_images"]).unsqueeze(1)
    return images, torch.from_numpy(arrays[f"{name}_labels"]).squeeze(1).long()
