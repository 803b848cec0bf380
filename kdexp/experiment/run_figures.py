"""The pictures of a run that has been evaluated, and the examples that it keeps for those of a comparison."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from kdexp import results
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.mask_collector import MaskCollector
from kdexp.experiment.text_collector import TextCollector
from kdexp.experiment.trained_student import trained_student
from kdexp.metrics.roc_and_confusion import RocAndConfusion
from kdexp.report import image_examples
from kdexp.report.example_files import evenly_spaced
from kdexp.report.image_examples import ImageExamples
from kdexp.report.mask_examples import MaskExample
from kdexp.report.png_figures.images import images
from kdexp.report.png_figures.run import IMAGES, draw_run


def draw_figures(
    experiment: Experiment,
    epochs: Sequence[Mapping[str, float]],
    curves: RocAndConfusion | None,
    examples: MaskCollector | TextCollector | None,
    folder: Path,
) -> list[str]:
    """Draw what the task has pictures of.

    Args:
        experiment: the run's.
        epochs: the rows of metrics.csv.
        curves: on test; None of a task without.
        examples: that were collected on test; None of a task without.
        folder: the run folder, with the student's weights.

    Returns:
        Names of the classes, by number.
    """
    data = experiment.data
    names = data.classes or list(map(str, range(experiment.config.dataset.num_classes)))
    kept = examples.save(folder) if examples is not None else []
    masks = [example for example in kept if isinstance(example, MaskExample)]
    draw_run(epochs, data.task.measure, curves, masks, names, folder / "figures")
    shape = data.student.splits.test.inputs[0].shape
    if "images" in data.task.supports and max(shape) <= image_examples.LARGEST_SIDE:
        shown = _image_examples(experiment, folder)
        image_examples.write(shown, folder)
        images(shown, folder / "figures" / IMAGES)
    return names


def _image_examples(experiment: Experiment, folder: Path) -> ImageExamples:
    """Evenly spaced test images, and what teacher and student make of them."""
    data, teacher = experiment.data, experiment.teacher
    split = data.student.splits.test
    places = torch.tensor(evenly_spaced(len(split), image_examples.MOST))
    shown = split.target[places]
    inputs = torch.cat([batch.inputs for batch in data.student.eval_batches("test", "cpu", positions=places)])
    networks: dict[str, tuple[nn.Module, Tensor]] = {}
    if teacher is not None:  # on its device: other jobs of a fused sweep may still learn from it there
        own = teacher.to(experiment.device).network_inputs(inputs.to(experiment.device))[0]
        networks["teacher"] = teacher.networks[0], own
    networks["student"] = trained_student(experiment, folder / results.WEIGHTS, "student").eval(), inputs
    rebuilt, sampled = {}, {}
    for name, (network, given) in networks.items():
        found = data.task.pictures(network, given)  # type: ignore[attr-defined]
        rebuilt[name], sampled[name] = (_as_bytes(each.view(shown.shape)) for each in found)
    return ImageExamples(_as_bytes(shown), rebuilt, sampled)


def _as_bytes(images: Tensor) -> np.ndarray:
    """uint8, of floats in [0, 1]."""
    is_float = images.is_floating_point()
    return ((255 * images).round().clamp(0, 255).byte() if is_float else images).cpu().numpy()
