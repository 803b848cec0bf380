"""Data sets that are published as files: found under ``data_dir``, fetched only when the user says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor
from torchvision.datasets import MNIST, VisionDataset
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
from torchvision.datasets.utils import check_integrity

from kdexp.contracts import Source


def load_torchvision(dataset: type[VisionDataset], data_dir: str, *, download: bool) -> Source:
    """Load one of torchvision's image data sets of the MNIST or CIFAR kind into memory.

    Args:
        dataset: its class.
        data_dir: the folder that torchvision calls root.
        download: fetch what is missing.

    Returns:
        uint8 images (N, C, H, W) and int64 class numbers, with the official train and test parts.

    Raises:
        FileNotFoundError: the files are not there, and download is off.
        ValueError: a file is damaged.
        ConnectionError: the download failed.
    """
    try:
        with one_at_a_time(data_dir) if download else nullcontext():
            parts = [dataset(data_dir, train=train, download=download) for train in (True, False)]
    except Exception as error:  # each format has its own way of failing
        raise _explanation(dataset, Path(data_dir), download, error) from error
    (train, train_target), (test, test_target) = (
        (_images(part.data), torch.as_tensor(part.targets, dtype=torch.int64)) for part in parts
    )
    return Source(train, train_target, test, test_target)


@contextmanager
def one_at_a_time(data_dir: str) -> Iterator[None]:
    """Keep ranks and jobs of a sweep from fetching the same files at once."""
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    with FileLock(Path(data_dir) / ".download.lock"):
        yield


def missing(name: str, place: Path) -> FileNotFoundError:
    """The error for a file that is not where it was looked for."""
    return FileNotFoundError(
        f"data_dir has no {name}: {place} does not exist; set data_dir or KDEXP_DATA_DIR, or download it with "
        "dataset.source.download=true"
    )


def not_fetched(name: str, data_dir: Path, error: Exception) -> ConnectionError:
    """The error for a download that failed."""
    reason = " ".join(str(error).split())
    return ConnectionError(f"dataset.source.download=true could not download {name} to {data_dir}: {reason}")


def damaged(path: Path, advice: str = "delete it and download it again") -> ValueError:
    """The error for a file that is there but not whole."""
    return ValueError(f"dataset.source has the corrupt file {path}: {advice}")


def _explanation(dataset: type[VisionDataset], data_dir: Path, download: bool, error: Exception) -> Exception:
    files = list(_files(dataset, data_dir))
    for path, is_whole in files:
        if path.is_file() and not is_whole(path):
            return damaged(path)
    if download:
        return not_fetched(dataset.__name__, data_dir, error)
    return missing(dataset.__name__, next((path for path, _ in files if not path.is_file()), data_dir))


def _files(dataset: type[VisionDataset], data_dir: Path) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    if issubclass(dataset, MNIST):
        for name, _ in dataset.resources:
            yield data_dir / dataset.__name__ / "raw" / name.removesuffix(".gz"), _is_idx
    else:
        for name, md5 in dataset.train_list + dataset.test_list:
            yield data_dir / dataset.base_folder / name, partial(check_integrity, md5=md5)


def _is_idx(path: Path) -> bool:
    try:
        read_sn3_pascalvincent_tensor(str(path))
    except Exception:  # whatever a parser makes of bytes that are not its own
        return False
    return True


def _images(data: Tensor | np.ndarray) -> Tensor:
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
