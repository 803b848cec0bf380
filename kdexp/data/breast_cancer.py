"""Breast cancer Wisconsin (diagnostic), inside scikit-learn: 30 features, 2 classes, 455 / 114 (Street et al. 1993)."""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split

from kdexp.contracts import Source


def load() -> Source:
    """Load the table as float32 in the features' own units; class 0 is malignant, 1 benign. Nothing is downloaded.

    There is no official test part. It is a stratified fifth,
    ``train_test_split(..., test_size=0.2, stratify=labels, random_state=0)``, the same whatever the seeds are.
    """
    features, labels = load_breast_cancer(return_X_y=True)
    train, test, *targets = train_test_split(features, labels, test_size=0.2, stratify=labels, random_state=0)
    train_target, test_target = (torch.from_numpy(target).long() for target in targets)
    return Source(torch.from_numpy(train).float(), train_target, torch.from_numpy(test).float(), test_target)
