"""Published sets of corrupted test images, read from their files when these are there.

CIFAR-10-C and CIFAR-100-C: Hendrycks and Dietterich 2019 (arXiv 1903.12261), https://zenodo.org/records/2535967 and
https://zenodo.org/records/3555552, unpacked: ``CIFAR-10-C/fog.npy``, ... MNIST-C: Mu and Gilmer 2019 (arXiv
1906.02337), https://zenodo.org/records/3239543, unpacked: ``mnist_c/fog/test_images.npy``, ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.datasets.utils import check_integrity

from kdexp.robustness.corruption import SEVERITIES

CIFAR_FAMILIES = {
    "gaussian_noise": "noise",
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "defocus_blur": "blur",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "zoom_blur": "blur",
    "snow": "weather",
    "frost": "weather",
    "fog": "weather",
    "brightness": "weather",
    "contrast": "digital",
    "elastic_transform": "digital",
    "pixelate": "digital",
    "jpeg_compression": "digital",
}
"""The fifteen that published means are taken over."""

HELD_OUT_FAMILIES = {"speckle_noise": "noise", "gaussian_blur": "blur", "spatter": "weather", "saturate": "digital"}
"""The four that methods may be tuned on."""

MNIST_FAMILIES = {
    "shot_noise": "noise",
    "impulse_noise": "noise",
    "glass_blur": "blur",
    "motion_blur": "blur",
    "fog": "weather",
    "brightness": "weather",
    "spatter": "weather",
    "shear": "geometric",
    "scale": "geometric",
    "rotate": "geometric",
    "translate": "geometric",
    "stripe": "strokes",
    "dotted_line": "strokes",
    "zigzag": "strokes",
    "canny_edges": "strokes",
}


@dataclass(frozen=True)
class PublishedSet:
    """One corrupted copy of a data set's test images for each corruption and severity.

    Attributes:
        name: what it is called in reports.
        folder: where its files lie.
        families: corruption -> family, for those that are read.
        severities: of each corruption; MNIST-C has one of each.
        checksums: file name -> MD5 of the published file; a file without one is checked by its shape and labels alone.
    """

    name: str
    folder: Path
    families: Mapping[str, str]
    severities: tuple[int, ...] = SEVERITIES
    checksums: Mapping[str, str] = field(default_factory=dict)

    def check(self, target: Tensor, shape: Sequence[int] | None = None) -> None:
        """See that every file is there, whole, and of the test set.

        Args:
            target: (n,) int64, its labels.
            shape: (C, H, W) of its images; None: any.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: one is damaged, has other labels or images of another shape.
        """
        for corruption in self.families:
            path, labels = self._files(corruption)
            for file in (path, labels):
                if not file.is_file():
                    raise FileNotFoundError(f"data_dir has not all of {self.name}: {file} does not exist")
                md5 = self.checksums.get(file.name)
                if md5 is not None and not check_integrity(file, md5):
                    raise ValueError(f"data_dir has the corrupt file {file}: download it again")
            images, found = _array(path), _array(labels)
            if len(images) != len(target) * len(self.severities) or images.dtype != np.uint8:
                raise ValueError(
                    f"{path} must hold {len(target)} uint8 images for each of {len(self.severities)} severities, "
                    f"got {images.dtype} of shape {list(images.shape)}"
                )
            if not np.array_equal(found[: len(target)], target.numpy()):
                raise ValueError(f"{labels} must hold the labels of the test set, got others")
            own = [*(images.shape[3:] or (1,)), *images.shape[1:3]]
            if shape is not None and own != list(shape):
                raise ValueError(f"{path} must hold images of shape {list(shape)}, got {own}")

    def images(self, corruption: str, severity: int, index: Tensor) -> Tensor:
        """Images of samples.

        Args:
            corruption: one of families.
            severity: one of severities.
            index: (N,) int64, positions in the test set.

        Returns:
            (N, C, H, W) float32 in [0, 1], on the device of index.
        """
        stored = _array(self._files(corruption)[0])
        first = self.severities.index(severity) * (len(stored) // len(self.severities))
        chosen = torch.from_numpy(stored[first + index.cpu().numpy()])
        if chosen.dim() == 3:
            chosen = chosen.unsqueeze(3)
        return chosen.permute(0, 3, 1, 2).to(index.device).float() / 255

    def _files(self, corruption: str) -> tuple[Path, Path]:
        if len(self.severities) > 1:
            return self.folder / f"{corruption}.npy", self.folder / "labels.npy"
        return self.folder / corruption / "test_images.npy", self.folder / corruption / "test_labels.npy"


def _array(path: Path) -> np.ndarray:
    """Not read but mapped: only the images that are used are read."""
    try:
        array: np.ndarray = np.load(path, mmap_mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"data_dir has the corrupt file {path}: download it again") from error
    return array


def published_sets(dataset: str, data_dir: str) -> list[PublishedSet]:
    """The published sets of a data set, by its name in kdexp, whose folder is there."""
    root = Path(data_dir)
    known = {
        "cifar10": [
            PublishedSet("cifar10_c", root / "CIFAR-10-C", CIFAR_FAMILIES, checksums=CIFAR10_C_MD5),
            PublishedSet("cifar10_c_held_out", root / "CIFAR-10-C", HELD_OUT_FAMILIES, checksums=CIFAR10_C_MD5),
        ],
        "cifar100": [
            PublishedSet("cifar100_c", root / "CIFAR-100-C", CIFAR_FAMILIES, checksums=CIFAR100_C_MD5),
            PublishedSet("cifar100_c_held_out", root / "CIFAR-100-C", HELD_OUT_FAMILIES, checksums=CIFAR100_C_MD5),
        ],
        "mnist": [PublishedSet("mnist_c", root / "mnist_c", MNIST_FAMILIES, severities=(1,))],
    }
    return [found for found in known.get(dataset, []) if found.folder.is_dir()]


# Of the files that Zenodo publishes, as torch-uncertainty lists them (datasets/classification/cifar/cifar_c.py).
CIFAR10_C_MD5 = {
    "fog.npy": "7b397314b5670f825465fbcd1f6e9ccd",
    "jpeg_compression.npy": "2b9cc4c864e0193bb64db8d7728f8187",
    "zoom_blur.npy": "6ea8e63f1c5cdee1517533840641641b",
    "speckle_noise.npy": "ef00b87611792b00df09c0b0237a1e30",
    "glass_blur.npy": "7361fb4019269e02dbf6925f083e8629",
    "spatter.npy": "8a5a3903a7f8f65b59501a6093b4311e",
    "shot_noise.npy": "3a7239bb118894f013d9bf1984be7f11",
    "defocus_blur.npy": "7d1322666342a0702b1957e92f6254bc",
    "elastic_transform.npy": "9421657c6cd452429cf6ce96cc412b5f",
    "gaussian_blur.npy": "c33370155bc9b055fb4a89113d3c559d",
    "frost.npy": "31f6ab3bce1d9934abfb0cc13656f141",
    "saturate.npy": "1cfae0964219c5102abbb883e538cc56",
    "brightness.npy": "0a81ef75e0b523c3383219c330a85d48",
    "snow.npy": "bb238de8555123da9c282dea23bd6e55",
    "gaussian_noise.npy": "ecaf8b9a2399ffeda7680934c33405fd",
    "motion_blur.npy": "fffa5f852ff7ad299cfe8a7643f090f4",
    "contrast.npy": "3c8262171c51307f916c30a3308235a8",
    "impulse_noise.npy": "2090e01c83519ec51427e65116af6b1a",
    "labels.npy": "c439b113295ed5254878798ffe28fd54",
    "pixelate.npy": "0f14f7e2db14288304e1de10df16832f",
}
CIFAR100_C_MD5 = {
    "fog.npy": "4efc7ebd5e82b028bdbe13048e3ea564",
    "jpeg_compression.npy": "c851b7f1324e1d2ffddeb76920576d11",
    "zoom_blur.npy": "0204613400c034a81c4830d5df81cb82",
    "speckle_noise.npy": "e3f215b1a0f9fd9fd6f0d1cf94a7ce99",
    "glass_blur.npy": "0bf384f38e5ccbf8dd479d9059b913e1",
    "spatter.npy": "12ccf41d62564d36e1f6a6ada5022728",
    "shot_noise.npy": "b0a1fa6e1e465a747c1b204b1914048a",
    "defocus_blur.npy": "d923e3d9c585a27f0956e2f2ad832564",
    "elastic_transform.npy": "a0792bd6581f6810878be71acedfc65a",
    "gaussian_blur.npy": "5204ba0d557839772ef5a4196a052c3e",
    "frost.npy": "3a39c6823bdfaa0bf8b12fe7004b8117",
    "saturate.npy": "c0697e9fdd646916a61e9c312c77bf6b",
    "brightness.npy": "f22d7195aecd6abb541e27fca230c171",
    "snow.npy": "0237be164583af146b7b144e73b43465",
    "gaussian_noise.npy": "ecc4d366eac432bdf25c024086f5e97d",
    "motion_blur.npy": "732a7e2e54152ff97c742d4c388c5516",
    "contrast.npy": "322bb385f1d05154ee197ca16535f71e",
    "impulse_noise.npy": "3b3c210ddfa0b5cb918ff4537a429fef",
    "labels.npy": "bb4026e9ce52996b95f439544568cdb2",
    "pixelate.npy": "96c00c60f144539e14cffb02ddbd0640",
}
