"""Handwritten digits that ship inside scikit-learn: 8 x 8 grey, 10 classes, 1,437 / 360 (Alpaydin and Kaynak 1998)."""

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from kdexp.contracts import Source


def load() -> Source:
    """Load the digits; nothing is downloaded.

    The original counts 0..16 become the bytes round(count * 255 / 16), halves upwards: 0 -> 0, 8 -> 128, 16 -> 255.
    There is no official test part. It is a stratified fifth,
    ``train_test_split(..., test_size=0.2, stratify=labels, random_state=0)``, the same whatever the seeds are.
    """
    counts, labels = load_digits(return_X_y=True)
    images = ((counts.astype(np.int64) * 255 + 8) // 16).astype(np.uint8).reshape(-1, 1, 8, 8)
    train, test, *targets = train_test_split(images, labels, test_size=0.2, stratify=labels, random_state=0)
    train_target, test_target = (torch.from_numpy(target).long() for target in targets)
    return Source(torch.from_numpy(train), train_target, torch.from_numpy(test), test_target)
