"""The cached outputs of an experiment's teacher, in the store and in this process."""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import get_args

import torch
from omegaconf import DictConfig

from kdexp.config.compose import plain
from kdexp.config.identity import fingerprint
from kdexp.config.require import Values
from kdexp.contracts import SplitName, Task
from kdexp.experiment.data import Data
from kdexp.experiment.members import ROWS, compared_by
from kdexp.experiment.outputs_key import OutputsKey
from kdexp.results import Record
from kdexp.teacher.cache_folders import folder_of, make_room
from kdexp.teacher.cached_outputs import TeacherOutputCache
from kdexp.teacher.output_codec import ALL_CLASSES, TOP_K, OutputCodec
from kdexp.teacher.teacher import Teacher

log = logging.getLogger(__name__)

_SPLITS: tuple[SplitName, ...] = get_args(SplitName)


def teacher_cache(
    config: DictConfig, members: Mapping[str, Values], teacher: Teacher, data: Data, epochs: int
) -> TeacherOutputCache:
    """The cached outputs of a teacher.

    Args:
        config: the experiment's.
        members: the configuration of each teacher.
        teacher: told which features to read (see `Teacher.read`).
        data: the data.
        epochs: of the student's training: as many views, where the augmentation sets no number.

    Raises:
        ValueError: there is no room for them.
    """
    module = data.student
    features = _features(teacher, config.dataset.input_shape)
    classes, *_ = data.task.logits_shape(config.dataset.input_shape)
    top_k = config.teacher.cache_top_k or _usual_top_k(data.task, classes)
    kept: dict[SplitName, tuple[Path, Record, OutputCodec]] = {}
    wanted: dict[Path, int] = {}
    views = epochs if config.augment.views is None else max(config.augment.views, 1)
    keys = OutputsKey(
        config.dataset,
        config.augment,
        accelerator=config.trainer.accelerator,
        channels_last=config.trainer.channels_last,
        precision=config.teacher.precision,
        members=members,
        teacher=teacher,
        data=data,
    )
    for split in (one for one in _SPLITS if teacher.knows(one, getattr(module.splits, one))):
        trained = split == "train"  # of crops, where others are whole images
        shape = config.dataset.input_shape if trained else getattr(module.splits, split).inputs[0].shape
        record = OutputCodec(
            len(teacher.networks),
            data.task.logits_shape(shape),
            features if trained else {},
            config.teacher.cache_precision,
            top_k if top_k < classes else None,
        )
        key = keys.of(split, str(record.dtype))
        samples = len(getattr(module.splits, split))
        metadata = {
            "created_for": plain(config.choices),
            "split": split,
            "samples": samples,
            "bytes_per_sample": record.dtype.itemsize,
            "key": key,
            "config": plain(config),
        }
        folder = folder_of(config.store_dir, fingerprint(key))
        kept[split] = folder, metadata, record
        wanted[folder] = samples * record.dtype.itemsize * (views if split == "train" else 1)
    make_room(folder.parent, wanted, config.teacher.cache_max_gb)
    cache = TeacherOutputCache(teacher, module, kept, views)
    _check_and_log(cache, views, len(module.splits.train))
    if top_k < classes:
        log.info("teacher cache: the %d largest of %d logits are cached, the others by their mean", top_k, classes)
    if config.teacher.cache == "unaugmented" and config.augment.transforms:
        log.warning(_UNAUGMENTED)
    return cache


def _features(teacher: Teacher, input_shape: Sequence[int]) -> dict[str, torch.Size]:
    if not teacher.paths:
        return {}
    outputs, *_ = teacher.to("cpu").member_outputs(torch.zeros(1, *input_shape))
    return {path: own.shape[1:] for path, own in outputs.features.items()}


def _usual_top_k(task: Task, classes: int) -> int:
    return TOP_K if classes > ALL_CLASSES and compared_by(task) == ROWS else classes


_UNAUGMENTED = (
    "warning: teacher.cache=unaugmented shows the same samples in every epoch, and a student overfits them sooner "
    "(Beyer et al. 2022, arXiv 2106.05237); views:K augments them"
)


def _check_and_log(cache: TeacherOutputCache, views: int, samples: int) -> None:
    train = cache.splits["train"]
    filled = sum(view < views for view in train.filled_views())
    if filled < views and not os.access(train.folder, os.W_OK):
        raise ValueError(
            f"store_dir must be a folder that can be written to, got {train.folder}, with {filled} of {views} views"
        )
    log.info(
        "teacher cache: %d views of %d samples, %.3g MB each, %d of them there; %s",
        views,
        samples,
        train.bytes_per_view / 1e6,
        filled,
        train.folder,
    )
