"""Data sets that are published as files: found under ``data_dir``, fetched only when the user says so."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import torch
from filelock import FileLock
from torch import Tensor
from torchvision.datasets import MNIST
from torchvision.datasets.mnist import read_sn3_pascalvincent_tensor
from torchvision.datasets.utils import check_integrity

from kdexp.contracts import Source


def load_torchvision(dataset: Callable[..., Any], data_dir: str, *, download: bool) -> Source:
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
        with fetching(data_dir, download):
            parts = [dataset(data_dir, train=train, download=download) for train in (True, False)]
    except ConnectionError:
        raise
    except Exception as error:  # each format has its own way of failing
        _explain(dataset, Path(data_dir), error)
    (train, train_target), (test, test_target) = (
        (_images(part.data), torch.as_tensor(part.targets, dtype=torch.int64)) for part in parts
    )
    return Source(train, train_target, test, test_target)


@contextmanager
def fetching(data_dir: str, download: bool) -> Iterator[None]:
    """What may download goes inside: one process at a time, and a network that fails gives one line.

    Raises:
        ConnectionError: the download failed.
    """
    if not download:
        yield
        return
    Path(data_dir).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(Path(data_dir) / ".download.lock"):
            yield
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise ConnectionError(f"dataset.source.download=true could not fetch into {data_dir}: {reason}") from error


def missing(name: str, place: Path) -> FileNotFoundError:
    """The error for a file or folder that is not where it was looked for."""
    return FileNotFoundError(
        f"data_dir must hold {name}, which is not at {place}: set data_dir or KDEXP_DATA_DIR, or fetch it with "
        "dataset.source.download=true"
    )


def damaged(path: Path, reason: object) -> ValueError:
    """The error for a file that is there but not whole."""
    return ValueError(f"dataset.source must be whole files, got the damaged {path} ({' '.join(str(reason).split())})")


def _explain(dataset: Any, data_dir: Path, error: Exception) -> NoReturn:
    for path, is_whole in _files(dataset, data_dir):
        if not path.is_file():
            raise missing(dataset.__name__, path) from error
        if not is_whole(path):
            raise damaged(path, "delete it to fetch it again") from error
    raise error


def _files(dataset: Any, data_dir: Path) -> Iterator[tuple[Path, Callable[[Path], bool]]]:
    if issubclass(dataset, MNIST):
        for name, _ in dataset.resources:
            yield data_dir / dataset.__name__ / "raw" / name.removesuffix(".gz"), _is_idx
    else:
        for name, md5 in dataset.train_list + dataset.test_list:
            yield data_dir / dataset.base_folder / name, lambda path, md5=md5: check_integrity(str(path), md5)


def _is_idx(path: Path) -> bool:
    try:
        read_sn3_pascalvincent_tensor(str(path))
    except Exception:  # whatever a parser makes of bytes that are not its own
        return False
    return True


def _images(data: Any) -> Tensor:
    images = torch.as_tensor(data)
    return images.unsqueeze(1) if images.dim() == 3 else images.permute(0, 3, 1, 2).contiguous()
