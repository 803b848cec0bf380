"""Data sets that torchvision reads: in memory as uint8, with one line when their files are missing or damaged."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kdexp.contracts import Source


def load_with(dataset: Callable[..., Any], name: str, data_dir: str, download: bool) -> Source:
    """Load the train and the test part with a torchvision class that keeps its images in ``.data``.

    Args:
        dataset: the class, called as ``dataset(root, train=..., download=...)``.
        name: of the data set, for messages.
        data_dir: folder that holds the data set's own folder.
        download: fetch the files when they are missing.

    Returns:
        Inputs (N, C, H, W) uint8, targets (N,) int64.

    Raises:
        FileNotFoundError: the files are not in data_dir.
        ValueError: a file is damaged.
    """
    parts = []
    for train in (True, False):
        try:
            part = dataset(data_dir, train=train, download=download)
        except RuntimeError as error:
            raise FileNotFoundError(
                f"data_dir (or KDEXP_DATA_DIR) must hold the whole files of {name}, got {data_dir}; "
                "dataset.source.download=true fetches them"
            ) from error
        except Exception as error:  # pickle, gzip and IDX readers fail in their own ways on damaged files
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise ValueError(f"data_dir must hold undamaged files of {name}, got {data_dir}: {reason}") from error
        parts += [_channels_first(part.data), torch.as_tensor(part.targets).long()]
    return Source(*parts)


def _channels_first(images: Tensor | np.ndarray[Any, Any]) -> Tensor:
    """(N, H, W) or (N, H, W, C) to (N, C, H, W)."""
    images = torch.as_tensor(images)
    return images.unsqueeze(1) if images.ndim == 3 else images.permute(0, 3, 1, 2).contiguous()
