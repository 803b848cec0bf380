"""`kdexp.load`: the student of a finished run, of a sweep's winner or of an exported folder, ready to predict."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from kdexp.config.require import is_count, require
from kdexp.contracts import Kind, SeesTrainingInputs, Task
from kdexp.export import description
from kdexp.export.description import Description
from kdexp.export.finding import weights_at
from kdexp.export.inputs import Inputs, Stored
from kdexp.export.predictions import Masks, Predictions, joined, masks, predictions
from kdexp.export.preprocessing import Preprocessed


class LoadedStudent:
    """A student that predicts.

    Args:
        network: in eval mode; it takes normalised inputs.
        about: what its file says of it.
        task: what a batch becomes.

    Attributes:
        network: the plain module.
        preprocessed: the same for inputs as the data set stores them, see `Preprocessed`.
        about: see above.
        task: see above.
        inputs: what it takes before they are normalised.
        kind: what the logits mean.
        classes: names by number.
        input_shape: of one sample, without N.
        mean: that inputs were normalised with; images in [0, 1].
        std: likewise.
    """

    def __init__(self, network: nn.Module, about: Description, task: Task) -> None:
        self.network, self.about, self.task = network, about, task
        self.kind: Kind = task.kind
        self.input_shape, self.mean, self.std = about.input_shape, about.mean, about.std
        count = 2 if self.kind == "binary" else task.num_outputs
        self.classes: list[str] = about.classes or [str(number) for number in range(count)]
        self.inputs = _inputs(network, about, task)
        self.preprocessed = Preprocessed(network, self.mean, self.std, self.input_shape).eval()

    def predict(self, x: object, *, batch_size: int = 64) -> Predictions | Masks:
        """What the student says of samples; what kdexp does to inputs is done to them.

        Args:
            x: one sample or several: files, PIL images, arrays, texts or rows; see `Inputs.stored`.
            batch_size: samples that the network sees at once.

        Returns:
            `Predictions` in the order of x; of segmentation `Masks`.

        Raises:
            ValueError: x is not what the network takes, or a file cannot be read; one line.
            FileNotFoundError: a file is missing.
        """
        check_batch_size(batch_size)
        if "images" in self.task.supports:
            raise ValueError("predict must be called on a network that classifies, got one of task=generation")
        return joined([self.of(batch) for batch in _batches(self.inputs.stored(x), batch_size)])

    def of(self, stored: Tensor) -> Predictions | Masks:
        """What the student says of a batch (N, ...) as the data set stores samples; see `predict`."""
        read = masks if self.inputs.any_size else predictions
        return read(self.logits(stored), self.kind, self.classes)

    @torch.inference_mode()
    def logits(self, stored: Tensor) -> Tensor:
        """The logits of a batch, on the CPU.

        Args:
            stored: (N, ...), as the data set stores samples.

        Raises:
            ValueError: they have NaN or Inf.
        """
        device = next((one.device for one in self.network.parameters()), torch.device("cpu"))
        logits = cast(Tensor, self.preprocessed.to(device)(stored.to(device))).cpu()
        if not logits.isfinite().all():
            raise ValueError("run must have a student whose logits are finite, got NaN or Inf")
        return logits


def check_batch_size(size: object) -> None:
    """Refuse what is no number of samples."""
    require(is_count(size), "batch_size", "must be at least 1", size)


def _batches(stored: Stored, size: int) -> Iterator[Tensor]:
    """In order; images of different shapes are not in one batch."""
    if isinstance(stored, Tensor):
        yield from torch.split(stored, size)
        return
    batch: list[Tensor] = []
    for sample in stored:
        if batch and (len(batch) == size or sample.shape != batch[0].shape or sample.dtype != batch[0].dtype):
            yield torch.stack(batch)
            batch = []
        batch.append(sample)
    yield torch.stack(batch)


def load(path: str | Path, *, setting: str = "path") -> LoadedStudent:
    """The student of a finished run, ready to predict. Neither its data nor its teacher need be at hand.

    Args:
        path: a run folder; the folder of a sweep on one data set, of whose winner, chosen on val as ``kdexp-compare``
            chooses, the run with the best validation metric is taken; a folder with ``model.safetensors`` as the Hub
            has it; or a file of weights that kdexp wrote.
        setting: what named it, for messages.

    Raises:
        ValueError: there is no student, or the folder names what must not be called or cannot be built; one line.
        FileNotFoundError: there is nothing at that path.
    """
    if not isinstance(path, str | Path) or path == "":
        raise ValueError(f"{setting} must be a folder or a file, got {path or 'nothing'}")
    weights = weights_at(Path(path), setting)
    about = description.read(weights, setting)
    network, task = description.built(about, weights, setting)
    return LoadedStudent(network, about, task)


def _inputs(network: nn.Module, about: Description, task: Task) -> Inputs:
    shape = tuple(about.input_shape)
    are_texts = any(isinstance(module, SeesTrainingInputs) for module in network.modules())
    dtype = "int32" if are_texts else about.inputs or ("uint8" if len(shape) == 3 else "float32")
    in_unit_range = all(0 <= mean <= 1 for mean in about.mean) and all(std <= 1 for std in about.std)
    return Inputs(shape, dtype, len(task.logits_shape(shape)) > 1, about.table, in_unit_range)
