"""Random numbers as a function of what a sample holds, whatever batch, rank or run it is in."""

import math

import torch
from torch import Tensor

_GOLDEN, _FIRST, _SECOND = -0x61C8864680B583EB, -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # SplitMix64, signed


def content_noise(inputs: Tensor, draws: int) -> Tensor:
    """Standard normal numbers for each sample, the same for the same sample.

    The bits of a sample's numbers are hashed (multilinear: Lemire and Kaser 2014, arXiv 1202.4961), and the hash is the
    seed of a SplitMix64 generator (Steele, Lea and Flood 2014), whose numbers become normal by the transform of Box and
    Muller (1958). Sums are of integers modulo 2^64, which are the same in any order and on every device.

    Args:
        inputs: (N, ...) float.
        draws: how many numbers for each sample.

    Returns:
        (N, draws) float32, without a gradient.
    """
    bits = inputs.detach().flatten(1).float().contiguous().view(torch.int32).long()
    places = torch.arange(1, bits.shape[1] + 1, device=bits.device)
    seed = _mixed((bits * (_mixed(places * _GOLDEN) | 1)).sum(1))
    pairs = -(-draws // 2)
    words = _mixed(seed.unsqueeze(1) + torch.arange(1, pairs + 1, device=bits.device) * _GOLDEN)
    radius = ((_shifted(words, 32) + 1).float() * 2.0**-32).log().mul(-2).sqrt()
    angle = (words & 0xFFFF_FFFF).float() * (2 * math.pi * 2.0**-32)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), 1)[:, :draws]


def _mixed(z: Tensor) -> Tensor:
    z = (z ^ _shifted(z, 30)) * _FIRST
    z = (z ^ _shifted(z, 27)) * _SECOND
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & ((1 << (64 - bits)) - 1)  # >> alone repeats the sign
