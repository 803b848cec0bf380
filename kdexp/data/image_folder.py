"""Your own images: ``train/``, ``test/`` and, if there is one, ``val/``, each with a folder for each class.

They are read one at a time, by worker processes, and so may be more than fits in memory.
"""

import hashlib
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.datasets.folder import default_loader
from torchvision.transforms.v2 import functional as TF

from kdexp.contracts import Source
from kdexp.data.downloads import damaged


class ImageFiles:
    """Image files as `kdexp.contracts.Images`: RGB, the shorter side scaled to `size`, the middle square cut out."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        """Number of files."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """One (3, size, size) uint8 image.

        Raises:
            ValueError: the file is damaged.
        """
        path = self.paths[index]
        try:
            image = default_loader(str(path))
        except OSError as error:
            raise damaged(path, str(error)) from error
        squared = TF.center_crop(TF.resize(image, [self.size]), [self.size, self.size])
        return cast(Tensor, TF.pil_to_tensor(squared))

    def fingerprint(self) -> str:
        """SHA-256 over the files' names, sizes and times of change."""
        digest = hashlib.sha256(str(self.size).encode())
        for path in self.paths:
            status = path.stat()
            digest.update(f"{path.parent.name}/{path.name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def load(data_dir: str, root: str, size: int) -> Source:
    """Find the images; none is read.

    Args:
        data_dir: where `root` is looked for.
        root: the folder with train/ and test/, or its absolute path. A class's number is its folder's place in the
            alphabet.
        size: height and width that images are brought to, in pixels.

    Raises:
        FileNotFoundError: a folder is missing, or a class folder has no image.
        ValueError: the parts have not the same classes.
    """
    folder = Path(data_dir) / root
    for name in ("train", "test"):
        if not (folder / name).is_dir():
            raise FileNotFoundError(f"dataset.source.root must be a folder with train/ and test/, got {folder}")
    names = [name for name in ("train", "test", "val") if (folder / name).is_dir()]
    found = {name: ImageFolder(str(folder / name)) for name in names}
    for name, part in found.items():
        if part.classes != found["train"].classes:
            differing = sorted(set(part.classes) ^ set(found["train"].classes))
            raise ValueError(
                f"dataset.source.root must have the same classes in train/ and {name}/, got {differing} in one only"
            )

    def part_of(name: str) -> tuple[ImageFiles, Tensor]:
        paths, labels = zip(*found[name].samples, strict=True)
        return ImageFiles([Path(path) for path in paths], size), torch.tensor(labels)

    return Source(*part_of("train"), *part_of("test"), val=part_of("val") if "val" in found else None)
