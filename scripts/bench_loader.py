"""Samples a second: batches of an image data set in memory, cropped and flipped, in kdexp and with torchvision.

    python scripts/bench_loader.py [--rounds 5]

kdexp indexes a uint8 tensor and augments a batch at a time; the usual pipeline is a `torch.utils.data.DataLoader` over
PIL images with torchvision's RandomCrop(32, 4), RandomHorizontalFlip, ToTensor and Normalize. Both give normalised
float32 batches of 128 CIFAR-sized images in a random order; the other with and without worker processes.
"""

import argparse
import time

import numpy as np
import torch
from PIL import Image
from timing import in_turn, machine, row
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import Compose, Normalize, RandomCrop, RandomHorizontalFlip, ToTensor

from kdexp.contracts import Split, Splits
from kdexp.data.augment import HorizontalFlip
from kdexp.data.augment import RandomCrop as BatchedCrop
from kdexp.data.data_module import DataModule

MEAN, STD, BATCH, SAMPLES = (0.49, 0.48, 0.45), (0.25, 0.24, 0.26), 128, 5120


class Pictures(Dataset):
    """As torchvision's CIFAR10: arrays, made into PIL images one at a time."""

    def __init__(self, images: torch.Tensor, transform: Compose) -> None:
        self.images, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), 0


def seconds(batches) -> float:
    started = time.perf_counter()
    seen = sum(len(batch[0] if isinstance(batch, list) else batch.inputs) for batch in batches)
    assert seen == SAMPLES
    return (time.perf_counter() - started) / SAMPLES


def kdexp_loader(batch: int = BATCH) -> DataModule:
    """Batches of random images as kdexp makes them."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (SAMPLES, 3, 32, 32), dtype=np.uint8))
    split = Split(images, torch.zeros(SAMPLES, dtype=torch.int64), torch.randperm(SAMPLES))
    return DataModule(
        Splits(split, split, split), augment=[BatchedCrop(4), HorizontalFlip()], mean=MEAN, std=STD, batch_size=batch,
        eval_batch_size=batch, drop_last=True, seed=0,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    ours = kdexp_loader()
    transform = Compose([RandomCrop(32, 4), RandomHorizontalFlip(), ToTensor(), Normalize(MEAN, STD)])
    usual = Pictures(ours.splits.train.inputs, transform)
    found = in_turn(
        arguments.rounds,
        kdexp=lambda: seconds(ours.eval_batches("train", "cpu", view=0)),
        alone=lambda: seconds(DataLoader(usual, BATCH, shuffle=True)),
        workers=lambda: seconds(DataLoader(usual, BATCH, shuffle=True, num_workers=torch.get_num_threads())),
    )
    print(
        machine(), "\n\n| loader | torchvision, µs/sample | kdexp, µs/sample | ratio | rounds |\n|---|---|---|---|---|"
    )
    print(row("crop and flip, no workers", found["alone"], found["kdexp"], 1e6))
    print(row("crop and flip, a worker a core", found["workers"], found["kdexp"], 1e6))


if __name__ == "__main__":
    main()
