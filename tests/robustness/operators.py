"""The corruptions of conf/corruption, and images to corrupt."""

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


def images(n=12, channels=3, size=32, seed=0):
    """Details at every scale, smaller where they are finer, as photographs have them; 8 bits a value, 0 to 255."""
    generator = torch.Generator().manual_seed(seed)
    total = torch.full((n, channels, size, size), 0.5)
    for octave in (4, 8, 16, 32):
        coarse = torch.randn(n, channels, octave, octave, generator=generator)
        total += 0.8 / octave * torch.nn.functional.interpolate(coarse, (size, size), mode="bicubic")
    total[:, :, 0, 0], total[:, :, 0, 1] = 0, 1
    return (total.clamp(0, 1) * 255).round() / 255
