"""Is a teacher better than what needs no input?"""

import torch
from torch import Tensor

from kdexp.contracts import Kind, Task
from kdexp.data.splits import samples_per_class
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.teacher_measures import teacher_measures
from kdexp.losses.vae import PixelDecoder
from kdexp.metrics.segmentation import areas
from kdexp.report.glossary import known
from kdexp.tasks.generation import Generation

_ADVICE = "it has little to teach: train it longer (teacher.recipe), or check its weights, mean and std"


def teacher_on_val(experiment: Experiment) -> tuple[str, str]:
    """What the teacher reaches on val, and what to do where that is hardly better; see `near_chance` and `of_masks`."""
    measured, data = teacher_measures(experiment)["val"], experiment.data
    target, kind = data.student.splits.val.target, data.task.kind
    if "images" in data.task.supports:
        assert isinstance(data.task, Generation)
        return of_images(measured["elbo"], measured["active_units"], target, data.task.decoder)
    counts = samples_per_class(target, kind, experiment.config.dataset.num_classes)
    if "masks" in data.task.supports:
        return of_masks(measured[data.task.measure], counts, data.task)
    return near_chance(measured["acc"], counts, len(target), kind, measured.get("auc"))


def can_tell(task: Task) -> bool:
    """Whether `teacher_on_val` knows what needs no input for the task."""
    return "curves" in task.supports or isinstance(task, Generation)


def of_images(elbo: float, active: float, images: Tensor, decoder: PixelDecoder) -> tuple[str, str]:
    """A VAE's bound beside the likelihood of the mean image, the same for all: where a collapsed posterior ends.

    Args:
        elbo: on a split, in nats.
        active: latent dimensions that are used.
        images: of the split, (N, C, H, W).
        decoder: how what is decoded is read.

    Returns:
        See `near_chance`.
    """
    image = decoder.pixels(images)
    mean = image.mean(0, keepdim=True).clamp(1e-6, 1 - 1e-6) if decoder.sigma is None else image.mean(0, keepdim=True)
    constant = (mean.logit() if decoder.sigma is None else mean).expand_as(image)
    blind = -float(decoder.negative_log_likelihood(constant, image).mean())
    found = f"ELBO {elbo:.2f} nats, {active:g} active units; the mean image for all {blind:.2f}"
    return found, "" if elbo > blind and active > 0 else _ADVICE


def of_masks(value: float, counts: Tensor, task: Task) -> tuple[str, str]:
    """A network's mean IoU or Dice beside that of the best mask of one class everywhere.

    Args:
        value: on a split, in [0, 1].
        counts: (C,) labelled pixels of each class in that split.
        task: whose measure it is.

    Returns:
        See `near_chance`.
    """
    confusions = torch.zeros(len(counts), len(counts), len(counts), dtype=torch.int64)
    for predicted, confusion in enumerate(confusions):
        confusion[:, predicted] = counts
    blind = float(task.measure_of(areas(confusions).double()).nan_to_num().max())
    found = f"{known(task.measure).name} {value:.3f}; the best mask of one class {blind:.3f}"
    return found, "" if value >= blind + 0.1 * (1 - blind) else _ADVICE


def near_chance(accuracy: float, counts: Tensor, samples: int, kind: Kind, auc: float | None = None) -> tuple[str, str]:
    """A network's accuracy beside what needs no input: chance, and always the most frequent class.

    Args:
        accuracy: on a split, in [0, 1]; multilabel: of single labels.
        counts: (C,) samples of each class in that split, see `samples_per_class`.
        samples: of the split.
        kind: what the targets mean.
        auc: on the split, in [0, 1], where it is known. Of yes/no outputs it decides, too: what is rare hides in the
            accuracy.

    Returns:
        What there is to say, and what to do where the accuracy is hardly better than that; nothing where it is.
    """
    if kind == "multilabel":
        share = counts / samples
        chance, majority = 0.5, float(torch.maximum(share, 1 - share).mean())
    else:
        chance, majority = 1 / len(counts), float(counts.max() / counts.sum())
    found = f"accuracy {accuracy:.3f}{f', AUC {auc:.3f}' if auc is not None else ''}; chance {chance:.3f}, "
    found += f"the most frequent class {majority:.3f}"
    blind = max(chance, majority)
    ranks = auc is not None and auc >= 0.6 and (kind != "multiclass" or len(counts) == 2)
    if ranks or accuracy >= blind + 0.1 * (1 - blind):
        return found, ""
    return found, _ADVICE
