"""What identifies a teacher's cached outputs."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

import kdexp
from kdexp.atomic import sha256
from kdexp.config.compose import plain
from kdexp.config.objects import target
from kdexp.config.require import Values
from kdexp.contracts import SplitName
from kdexp.data.settings import Augment, Dataset
from kdexp.experiment.data import Data
from kdexp.experiment.keys import input_statistics
from kdexp.experiment.networks import NETWORK_KEYS, device_for, is_channels_last
from kdexp.teacher.teacher import Teacher
from kdexp.weights import state_digest


@dataclass(frozen=True)
class OutputsKey:
    """All that a teacher's outputs depend on; temperature, alpha and the student do not matter.

    Attributes:
        dataset: the experiment's.
        augment: the experiment's.
        accelerator: the experiment's.
        channels_last: the experiment's.
        precision: of the teacher.
        members: the configuration of each teacher.
        teacher: with its weights.
        data: its data.
    """

    dataset: Dataset
    augment: Augment
    accelerator: str
    channels_last: bool | str
    precision: str
    members: Mapping[str, Values]
    teacher: Teacher
    data: Data

    def of(self, split: SplitName, record: str) -> Values:
        """The key of its outputs for a split.

        Args:
            split: of the data.
            record: what is cached of a sample, see `kdexp.teacher.output_codec.OutputCodec`.
        """
        augmented = split == "train" and self.augment.views != 0
        transforms = plain(self.augment.transforms) if augmented else []
        part = getattr(self.data.student.splits, split)
        # A crop may lie around what has a label.
        seen = [part.index, part.target] if augmented and self.data.is_dense else [part.index]
        called = [target(member, "teacher") for member in self.members.values()]
        called += [target(each, "transform") for each in transforms]
        code = [Path(inspect.getfile(one)) for one in called]
        code += [Path(kdexp.__file__).parent / name for name in _CODE_OF_OUTPUTS]
        return {
            **self._of_every_split,
            "features": list(self.teacher.paths) if split == "train" else [],
            "record": record,
            "split": [split, *(hashlib.sha256(each.numpy().tobytes()).hexdigest() for each in seen)],
            "augment": [transforms, self.augment.seed if augmented else None],
            "code": [sha256(file) for file in code],
        }

    @cached_property
    def _of_every_split(self) -> Values:
        """What does not depend on the split; the weights are read once."""
        every, networks, place = list(self.members.values()), self.teacher.networks, device_for(self.accelerator)
        return {
            "weights": [state_digest(network) for network in networks],
            "networks": [{k: v for k, v in plain(member).items() if k not in NETWORK_KEYS} for member in every],
            "statistics": [input_statistics(member, net) for member, net in zip(every, networks, strict=True)],
            "task": self.dataset.kind,
            **self.data.tiles,
            "precision": self.precision,
            "content": self.data.content,
            "normalised": [list(self.dataset.mean), list(self.dataset.std)],
            "channels_last": [is_channels_last(net, self.channels_last, place) for net in networks],
            "device": place.type if place.type == "cpu" else torch.cuda.get_device_name(place),
            "versions": [torch.__version__, kdexp.__version__, torch.backends.cpu.get_cpu_capability()],
        }


_CODE_OF_OUTPUTS = (
    "features.py",
    "teacher/teacher.py",
    "teacher/output_codec.py",
    "teacher/cached_outputs.py",
    "teacher/class_mapping.py",
    "teacher/probabilities.py",
    "models/content_noise.py",
    "models/text_tokens.py",
    "data/loaders.py",
    "data/data_module.py",
    "data/stateless_rng.py",
)
"""Our own files that a teacher's cached outputs depend on."""
