"""An experiment's data, and metrics that fit them."""

import re
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import Tensor

from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.contracts import UNLABELED, Source, Splits
from kdexp.data.class_sampling import class_shares
from kdexp.data.content import of_source
from kdexp.data.data_module import DataModule
from kdexp.data.inferred import take
from kdexp.data.splits import few_of_each_class, make_splits, samples_per_class
from kdexp.metrics.classification import Metrics
from kdexp.metrics.roc_and_confusion import RocAndConfusionMetric

# What a student's data have from the data set, and a teacher's from its recipe.
_OF_SUBSET = (
    "train_fraction",
    "subset_seed",
    "imbalance_ratio",
    "label_noise",
    "label_noise_kind",
    "unlabeled_fraction",
)
_OF_RECIPE = (*_OF_SUBSET, "batch_size")


class Data:
    """The data set of an experiment, loaded once and split as the student or a teacher's recipe needs it.

    Args:
        config: the experiment's.
        like: the same data set, loaded for an experiment with another order or augmentation.
    """

    def __init__(self, config: DictConfig, like: "Data | None" = None) -> None:
        self._config, self._store_dir = config.dataset, config.store_dir
        self._is_quick = bool(config.quick)
        self._like = like
        self._source: Source = like._source if like is not None else take(plain(config.dataset.source))
        dataset = config.dataset
        self._check_classes()
        limit = config.trainer.limit_train_batches
        shares = class_shares(dataset.resample, task=dataset.task, num_classes=dataset.num_classes)
        self.student = self._module(
            dataset,
            self._splits(),
            config.augment,
            dataset.batch_size,
            config.seed,
            shares=shares,
            views=config.augment.views,
            augment_seed=config.augment.seed,
            batches=max(quick.TRAIN_BATCHES, limit if isinstance(limit, int) else 0),
        )
        if like is not None:
            self.student.resident = like.student.resident

    def for_teacher(self, teacher: DictConfig, setting: str = "teacher") -> DataModule:
        """The data as a teacher's recipe sees them: the same val and test, its own share, noise and augmentation.

        A sample whose label is hidden from the teacher has nothing to teach it and is left out.

        Args:
            teacher: its configuration.
            setting: its name, for messages.

        Raises:
            ValueError: a setting of the recipe does not fit the data.
        """
        try:
            return self._for_teacher(teacher)
        except ValueError as error:  # of what is the recipe's here, and dataset's for a student
            named = re.sub(rf"^dataset\.(?=({'|'.join(_OF_RECIPE)})\b)", f"{setting}.recipe.", str(error))
            raise ValueError(re.sub(r"^dataset\.(?=(mean|std)\b)", f"{setting}.", named)) from error

    def _for_teacher(self, teacher: DictConfig) -> DataModule:
        recipe = teacher.recipe
        splits = self._splits(**{name: recipe[name] for name in _OF_SUBSET})
        labels = splits.train.target
        known = labels.view(len(labels), -1)[:, 0] != UNLABELED
        train = replace(splits.train, target=labels[known], index=splits.train.index[known])
        splits = replace(splits, train=train)
        return self._module(teacher, splits, recipe.get("augment"), recipe.batch_size, recipe.seed)

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes by number: the data's own, or those of the configuration; None where neither has any."""
        names = self._source.classes or self._config.classes
        return None if names is None else list(names)

    def samples_per_class(self, target: Tensor) -> dict[str, int]:
        """How many of these samples each class has, by its name; of multi-label data, how many each label has."""
        counts = samples_per_class(target, self._config.task, self._config.num_classes).tolist()
        return dict(zip(self.classes or map(str, range(len(counts))), counts, strict=True))

    def _check_classes(self) -> None:
        own, typed = self._source.classes, self._config.classes
        if own is not None and typed is not None and list(own) != list(typed):
            raise ValueError(f"dataset.classes must be null or the names in the data, {list(own)}, got {list(typed)}")

    @cached_property
    def content(self) -> str:
        """Hex digest of what is learned from, chosen by and tested on, as loaded."""
        if self._like is not None:
            return self._like.content
        return of_source(self._source, Path(self._store_dir))

    def _splits(self, **changed: Any) -> Splits:
        given = {name: self._config[name] for name in _OF_SUBSET} | changed
        return make_splits(
            self._source,
            task=self._config.task,
            num_classes=self._config.num_classes,
            input_shape=list(self._config.input_shape),
            val_fraction=self._config.val_fraction,
            split_seed=self._config.split_seed,
            **given,
        )

    def _module(
        self,
        statistics: Any,
        splits: Splits,
        augment: Any,
        batch_size: int,
        seed: int,
        batches: int = quick.TRAIN_BATCHES,
        **more: Any,
    ) -> DataModule:
        if self._is_quick:
            most = batches * batch_size
            if self._config.resample:  # it wants every class, and what has no label counts as one
                most = max(most, self._config.num_classes + 1)
            counts = {"train": most, "val": quick.EVALUATED, "test": quick.EVALUATED}
            splits = Splits(**{name: few_of_each_class(getattr(splits, name), n) for name, n in counts.items()})
        return DataModule(
            splits,
            augment=[instantiate(transform, "transform") for transform in (augment.transforms if augment else [])],
            mean=list(statistics.mean),
            std=list(statistics.std),
            batch_size=batch_size,
            eval_batch_size=self._config.eval_batch_size,
            drop_last=self._config.drop_last,
            seed=seed,
            num_workers=self._config.num_workers,
            **more,
        )


def new_metrics(
    dataset: DictConfig, module: DataModule, split: str, *, fidelity: bool = False, alone: bool = True
) -> Metrics:
    """Metrics for one split; ``alone`` for an evaluation that only one rank does."""
    return Metrics(
        dataset.task,
        dataset.num_outputs,
        samples=len(getattr(module.splits, split)),
        fidelity=fidelity,
        sync_on_compute=not alone,
    )


def new_curves(dataset: DictConfig, module: DataModule) -> RocAndConfusionMetric:
    """ROC curves and confusion matrix of the test split, for an evaluation that only one rank does."""
    return RocAndConfusionMetric(
        dataset.task, dataset.num_outputs, samples=len(module.splits.test), sync_on_compute=False
    )
