"""What happens to tables: measurements with errors, values that are missing, features that have moved.

The features are standardised: 0 is the mean of the training data and 1 its standard deviation. The severities are
kdexp's own; no published set of corrupted tables has become a standard. Arguments and result are those of
`kdexp.robustness`.
"""

import torch
from torch import Tensor

from kdexp.data.stateless_rng import RngStream, normal, uniform


def feature_noise(features: Tensor, index: Tensor, *, seed: int, sigma: float) -> Tensor:
    """Add normal noise of sigma standard deviations to each value."""
    return features + sigma * normal(seed, 0, index, features[0].numel(), RngStream.TABLE_NOISE).view_as(features)


def missing_values(features: Tensor, index: Tensor, *, seed: int, share: float) -> Tensor:
    """Replace a fraction of the values, at random, by the feature's mean: what is done where they are missing."""
    u = uniform(seed, 0, index, features[0].numel(), RngStream.MISSING).view_as(features)
    return features.masked_fill(u < share, 0)


def feature_shift(features: Tensor, index: Tensor, *, seed: int, distance: float) -> Tensor:
    """Move each feature (the last dimension) by distance standard deviations, up or down, in all samples alike."""
    # Another instrument, another population: one draw for the data set, not one for each sample.
    everyone = torch.zeros(1, dtype=torch.int64, device=features.device)
    up = uniform(seed, 0, everyone, features.shape[-1], RngStream.FEATURE_SHIFT).squeeze(0) < 0.5
    return features + torch.where(up, distance, -distance)
