"""The corruptions of conf/corruption, and images and texts to corrupt."""

from pathlib import Path

import torch
import yaml

from kdexp.config.objects import instantiate

FOLDER = Path(__file__).parents[2] / "conf" / "corruption"


def corruptions() -> dict:
    found = {}
    for path in sorted(FOLDER.glob("*.yaml")):
        found |= {
            name: instantiate(config, "perturbation") for name, config in yaml.safe_load(path.read_text()).items()
        }
    return found


def texts(sentences, length=None):
    """(N, L) int32 code points, 0 after the end; L is the longest text's length, or the one that is given."""
    found = torch.zeros(len(sentences), length or max(map(len, sentences)), dtype=torch.int32)
    for row, sentence in zip(found, sentences, strict=True):
        row[: len(sentence)] = torch.tensor(list(map(ord, sentence)))
    return found


def as_strings(codes):
    """The texts again; what stands behind the first 0 must be 0."""
    found = ["".join(map(chr, row)) for row in codes.tolist()]
    assert not any("\0" in text.rstrip("\0") for text in found)
    return [text.rstrip("\0") for text in found]


def images(n=12, channels=3, size=32, seed=0):
    """Details at every scale, smaller where they are finer, as photographs have them; 8 bits a value, 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.full((n, channels, size, size), 0.5)
    for octave in (4, 8, 16, 32):
        coarse = torch.randn(n, channels, octave, octave, generator=generator)
        total += 0.8 / octave * torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    total[:, :, 0, 0], total[:, :, 0, 1] = 0, 1
    return (total.clamp(0, 1) * 255).round() / 255
