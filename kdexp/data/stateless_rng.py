"""Random numbers as a function of where they are used: (seed, epoch, sample, draw, stream).

There is no state, so a number depends neither on what was drawn before it nor on batch size, workers, ranks or
resumption. Everything is integer arithmetic modulo 2^64 on int64 tensors, the same bits on every device.

The generator is SplitMix64 (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators", figures 16
and 17): its n-th output is a bijective mix of ``start + n * GOLDEN``, so any output can be had without the others.
"""

import math
from enum import IntEnum

import torch
from torch import Tensor

_GOLDEN = 0x9E3779B97F4A7C15
_MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_WORD = (1 << 64) - 1


class RngStream(IntEnum):
    """Who draws. Different streams are independent; transforms of your own take numbers from 1000 on."""

    ORDER = 0
    VAL = 1
    SUBSET = 2
    NOISY = 3
    WRONG_CLASS = 4
    HIDDEN = 5
    RESAMPLED = 6
    SAMPLE = 7
    TEST = 8
    POOL = 9
    CROP = 10
    FLIP = 11
    CUTOUT = 12
    RESIZED_CROP = 13
    MIXUP = 14
    CUTMIX = 15
    RAND_AUGMENT = 16
    GAUSSIAN_NOISE = 20
    SHOT_NOISE = 21
    IMPULSE_NOISE = 22
    SPECKLE_NOISE = 23
    UNIFORM_NOISE = 24
    GLASS_BLUR = 25
    MOTION_BLUR = 26
    FOG = 27
    SPATTER = 28
    ELASTIC = 29
    AFFINE = 30
    TABLE_NOISE = 31
    MISSING = 32
    FEATURE_SHIFT = 33
    ATTACK = 34
    TYPO = 35
    WORD_DROPOUT = 36
    WORD_REPEAT = 37
    WORD_ORDER = 38
    LETTER_CASE = 39
    VERTICAL_FLIP = 40
    FOREGROUND_CROP = 41
    ROTATION = 42
    SCALE = 43
    BINARIZED = 50
    CONFORMAL = 60
    CALIBRATION = 61


def uniform(seed: int, epoch: int, index: Tensor, draws: int, stream: int) -> Tensor:
    """Uniform random numbers for samples.

    Args:
        seed: any integer.
        epoch: any integer.
        index: (N,) int64, the samples' ids.
        draws: how many numbers for each sample; part of what the numbers depend on.
        stream: see `RngStream`.

    Returns:
        (N, draws) float32 in [0, 1), multiples of 2^-24, on the device of index.
    """
    return (_shifted(_words(seed, epoch, index, draws, stream), 40)).to(torch.float32) * 2.0**-24


def normal(seed: int, epoch: int, index: Tensor, draws: int, stream: int) -> Tensor:
    """Standard normal random numbers for samples, by the transform of Box and Muller (1958).

    Args:
        seed: see `uniform`, as for the others.
        epoch: see there.
        index: see there.
        draws: see there.
        stream: see there.

    Returns:
        (N, draws) float32, at most 6.7 in size, on the device of index; from the same bits on every device, so equal
        up to how a device rounds logarithms and sines.
    """
    words = _words(seed, epoch, index, -(-draws // 2), stream)
    radius = ((_shifted(words, 32) + 1).to(torch.float32) * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = (words & 0xFFFF_FFFF).to(torch.float32).mul_(2 * math.pi * 2.0**-32)
    return torch.cat((radius * angle.cos(), radius * angle.sin()), 1)[:, :draws]


def order(seed: int, epoch: int, n: int, stream: int = RngStream.ORDER) -> Tensor:
    """A random permutation of 0..n-1, as (n,) int64 on the CPU; a function of the arguments alone."""
    # The mix is a bijection, so no two of the keys are alike.
    return _words(seed, epoch, torch.arange(n), 1, stream).squeeze(1).argsort()


def _words(seed: int, epoch: int, index: Tensor, draws: int, stream: int) -> Tensor:
    """64 random bits each, (N, draws) int64: outputs index * draws + draw (from 0) of a SplitMix64 generator."""
    start = 0
    for part in (seed, epoch, stream):
        start = _mixed(start + part + _GOLDEN)
    number = index.unsqueeze(1) * draws + torch.arange(1, draws + 1, device=index.device)
    z = number * _signed(_GOLDEN) + _signed(start)
    for shift, factor in _MIX:
        z = (z ^ _shifted(z, shift)) * _signed(factor)
    return z ^ _shifted(z, 31)


def _shifted(z: Tensor, bits: int) -> Tensor:
    return (z >> bits) & (_WORD >> bits)  # >> alone repeats the sign


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _mixed(z: int) -> int:
    z &= _WORD
    for shift, factor in _MIX:
        z = ((z ^ (z >> shift)) * factor) & _WORD
    return z ^ (z >> 31)
