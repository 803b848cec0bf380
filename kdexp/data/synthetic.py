"""Made-up data of any shape and task, for smoke runs and tests: a prototype for each class, plus Gaussian noise."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import Kind, Source


def load(
    input_shape: Sequence[int],
    num_classes: int,
    kind: Kind = "multiclass",
    train_samples: int = 512,
    test_samples: int = 256,
    noise: float = 1.0,
    seed: int = 0,
) -> Source:
    """Make a data set, the same at every call.

    Args:
        input_shape: of a sample. Three dimensions make uint8 images (C, H, W), 128 + 32 z cut to 0..255; any other
            number float32 z.
        num_classes: classes, as many samples of each as of the others (to one); or labels, each on in half of the
            samples, whose prototypes are added up.
        kind: what the targets mean.
        train_samples: how many there are to train on and to validate with.
        test_samples: how many there are to test with.
        noise: standard deviation of the noise in z, in units of the prototypes' own.
        seed: of prototypes, labels and noise.
    """
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(num_classes, *input_shape, generator=generator)

    def part(samples: int) -> tuple[Tensor, Tensor]:
        if kind == "multilabel":
            target = torch.randint(2, (samples, num_classes), generator=generator).float()
            clean = torch.einsum("nc,c...->n...", target - 0.5, prototypes)
        else:
            target = torch.arange(samples) % num_classes
            clean = prototypes[target]
        z = clean + noise * torch.randn(samples, *input_shape, generator=generator)
        return (_images(z) if len(input_shape) == 3 else z), target

    return Source(*part(train_samples), *part(test_samples))


def _images(z: Tensor) -> Tensor:
    return (128 + 32 * z).round().clamp(0, 255).to(torch.uint8)
