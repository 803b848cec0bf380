"""The data of a run as a robustness report needs them: images in [0, 1], features or texts, and other data sets."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.config.compose import dataset_option
from kdexp.contracts import Batch, Split
from kdexp.data.data_module import DataModule
from kdexp.data.settings import Dataset as DatasetSettings
from kdexp.data.splits import are_masks, stratified_sample
from kdexp.experiment.data import Data
from kdexp.experiment.experiment import Experiment
from kdexp.robustness.axes import base as axes
from kdexp.robustness.grid import Batches, Grid, Part


class SplitBatches:
    """A split's batches as `kdexp.robustness` wants them: images in [0, 1] of a certain shape, or features as they are.

    Texts of another length are padded or cut.

    Args:
        module: the data.
        split: which part of them.
        device: where they are to be.
        dataset: their configuration.
        shape: of the samples wanted; other images are enlarged or reduced, unless they have masks, and
            coloured or made grey.
    """

    def __init__(
        self,
        module: DataModule,
        split: Literal["val", "test"],
        device: torch.device,
        dataset: DatasetSettings,
        shape: Sequence[int],
    ) -> None:
        self._module, self._split, self._device, self._shape = module, split, device, list(shape)
        self._is_image = len(shape) == 3
        self._mean, self._std = (
            torch.tensor(list(values), device=device).view(-1, 1, 1) for values in (dataset.mean, dataset.std)
        )

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._module.eval_batches(self._split, self._device):
            size = None if are_masks(batch.target) else self._shape[1:]
            if self._is_image:
                batch = replace(batch, inputs=self._images(batch.inputs, size))
            elif not batch.inputs.is_floating_point():  # texts of another length
                batch = replace(batch, inputs=F.pad(batch.inputs, (0, self._shape[0] - batch.inputs.shape[1])))
            yield batch

    def _images(self, normalized: Tensor, size: list[int] | None) -> Tensor:
        # Images are bytes before they are normalised: rounding gives back every bit.
        images = ((normalized * self._std + self._mean) * 255).round().clamp(0, 255) / 255
        channels = self._shape[0]
        if size is not None and list(images.shape[2:]) != size:
            images = F.interpolate(images, size=size, mode="bilinear", antialias=True)
        if images.shape[1] == channels:
            return images
        return images.expand(-1, channels, -1, -1) if images.shape[1] == 1 else images.mean(1, keepdim=True)


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn from splits, and where they are to be.

    Attributes:
        seed: of the choice.
        device: of the batches.
        shape: of the batches' images, or of features.
        counts: name -> ``samples`` and ``classes``, how many samples of each class were drawn under it; added to.
    """

    seed: int
    device: torch.device
    shape: Sequence[int]
    counts: dict[str, dict[str, object]]


class Dataset:
    """A data set of which samples are drawn, see `kdexp.robustness.axes.base.Dataset`.

    Args:
        settings: its configuration.
        data: it, loaded.
        sampling: how samples are drawn.
        test: the name under which those of its test split are counted.
        samples: of its test split at most; None: all.
    """

    def __init__(
        self, settings: DatasetSettings, data: Data, sampling: Sampling, test: str, samples: int | None
    ) -> None:
        self._settings, self._data, self._sampling = settings, data, sampling
        self.name, self.kind, self.num_classes = settings.name, settings.kind, settings.num_classes
        self.classes: Sequence[str] | None = data.classes
        whole = data.student.splits.test
        self.test_target = whole.target
        self._sampled, positions = self._sample(test, data.student, whole, samples)
        self.test = self._part_of(self._sampled, positions, whole)

    def val(self) -> Batches:
        """The validation split."""
        return self._batches(self._sampled, "val")

    def test_part(self, name: str, samples: int | None) -> Part:
        """So many of the samples in `test`."""
        return self._part(name, self._sampled, self._sampled.splits.test, samples)

    def val_part(self, name: str, samples: int | None) -> Part:
        """So many samples of the validation split."""
        return self._part(name, self._data.student, self._data.student.splits.val, samples)

    def train_part(self, name: str, samples: int | None) -> Part:
        """So many samples of the training split."""
        return self._part(name, self._data.student, self._data.student.splits.train, samples)

    def _part(self, name: str, module: DataModule, split: Split, samples: int | None) -> Part:
        return self._part_of(*self._sample(name, module, split, samples), split)

    def _part_of(self, sampled: DataModule, positions: Tensor, split: Split) -> Part:
        is_whole = len(positions) == len(split)
        return Part(self._batches(sampled, "test"), sampled.splits.test, positions, is_whole)

    def _sample(self, name: str, module: DataModule, split: Split, samples: int | None) -> tuple[DataModule, Tensor]:
        """The module with so many samples of a split for its test split, and their places in that split."""
        positions = stratified_sample(split.target, samples, self._sampling.seed)
        part = replace(split, target=split.target[positions], index=split.index[positions])
        classes = self._data.samples_per_class(part.target)
        self._sampling.counts[name] = {"samples": len(positions), "classes": classes}
        changed = copy.copy(module)
        changed.splits = replace(module.splits, test=part)
        return changed, positions

    def _batches(self, module: DataModule, split: Literal["val", "test"]) -> Batches:
        return SplitBatches(module, split, self._sampling.device, self._settings, self._sampling.shape)


class TestBed:
    """The data of a run for the axes of its report, see `kdexp.robustness.axes.base.TestBed`.

    Args:
        experiment: the run's.
        device: where batches are to be.

    Attributes:
        sample_counts: see `Sampling.counts`.
        grid: of the samples of the run's test split.
    """

    def __init__(self, experiment: Experiment, device: torch.device) -> None:
        config, data = experiment.config, experiment.data
        self._data, self._samples = data, config.robustness.samples
        shape = list(config.dataset.input_shape)
        if data.is_dense:  # that of the crops that are trained on
            test = data.student.splits.test
            shape = list(test.inputs[int(test.index[0])].shape)
        self.sample_counts: dict[str, dict[str, object]] = {}
        self._sampling = Sampling(config.robustness.seed, device, shape, self.sample_counts)
        self.own: axes.Dataset = Dataset(config.dataset, data, self._sampling, "test", self._samples)
        self.data_dir: str = config.data_dir
        self.notes: list[str] = []
        self.grid = Grid(self.own.test, data.task, shape, config.robustness.seed)

    def other(self, axis: axes.OtherDataAxis) -> Dataset | None:
        """Another data set; None where auto finds none."""
        name = axis.pairs.get(self.own.name) if axis.dataset == "auto" else axis.dataset
        if name is None or not (self.grid.is_image or self.grid.is_text):
            self.notes.append(
                f"{axis.name} left out: no data set is paired with {self.own.name} ({axis.setting}.dataset=NAME)"
            )
            return None
        dataset = dataset_option(name, self.data_dir)
        try:
            data = self._data.another(dataset)
            found = list(dataset.input_shape)
            if len(found) != len(self.grid.shape):
                rule = (
                    f"must be a data set with samples like those of {self.own.name}, of shape {list(self.grid.shape)}"
                )
                raise ValueError(f"{axis.setting}.dataset {rule}, got {name} of shape {found}")
        except FileNotFoundError as error:
            if axis.dataset != "auto":
                raise
            self.notes.append(f"{axis.name} left out: {error}")
            return None
        return Dataset(dataset, data, self._sampling, f"{axis.name} {name}", self._samples)
