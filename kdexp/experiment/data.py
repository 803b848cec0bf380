"""An experiment's data."""

import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from kdexp.config import quick
from kdexp.config.compose import plain
from kdexp.config.objects import instantiate
from kdexp.config.require import Values
from kdexp.contracts import Source, Splits
from kdexp.data.class_sampling import class_shares
from kdexp.data.content import of_source
from kdexp.data.data_module import DataModule
from kdexp.data.inferred import take
from kdexp.data.settings import Augment, Dataset
from kdexp.data.splits import few_of_each_class, has_labels, labelled, make_splits, samples_per_class
from kdexp.experiment.members import new_task, tiles_of, with_own_targets

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
        dataset: its settings.
        augment: the student's.
        task: the configuration of what a batch becomes.
        label_smoothing: the student's.
        limit_train_batches: the student's, a number of them or a fraction.
        seed: the student's.
        store_dir: where the digest of its content is remembered.
        is_quick: whether few samples are taken.
        like: the same data set, loaded for an experiment with another order or augmentation.

    Attributes:
        task: what a batch becomes.
        student: the data as the student sees them.
    """

    def __init__(
        self,
        dataset: Dataset,
        augment: Augment,
        task: Values,
        label_smoothing: float,
        *,
        limit_train_batches: int | float | None,
        seed: int,
        store_dir: str,
        is_quick: bool,
        like: "Data | None" = None,
    ) -> None:
        self._dataset, self._augment, self._limit, self._seed = dataset, augment, limit_train_batches, seed
        self._store_dir, self._is_quick, self._like = store_dir, is_quick, like
        self._settings_of_task, self.task = task, new_task(task, dataset, label_smoothing)
        self._source: Source = like._source if like is not None else self._loaded()
        self._check_classes()
        limit = limit_train_batches
        splits = self._splits()
        if dataset.class_sampling is not None and not has_labels(splits.train.target):
            rule = "must be null for targets that are not labels of samples"
            raise ValueError(f"dataset.class_sampling {rule}, got {dataset.class_sampling}")
        shares = class_shares(dataset.class_sampling, kind=self.task.kind, num_classes=dataset.num_classes)
        self.student = self._module(
            splits,
            augment.transforms,
            (dataset.mean, dataset.std),
            dataset.batch_size,
            seed,
            batches=max(quick.TRAIN_BATCHES, limit if isinstance(limit, int) else 0),
            shares=shares,
            views=augment.views,
            augment_seed=augment.seed,
        )
        if like is not None:
            self.student.resident = like.student.resident

    def _loaded(self) -> Source:
        return with_own_targets(self.task, take(plain(self._dataset.source)))

    def another(self, dataset: Dataset) -> "Data":
        """Another data set, loaded, split and augmented as this one.

        Args:
            dataset: its settings.

        Raises:
            ValueError: a setting does not fit the data.
            FileNotFoundError: it is not where the settings say.
        """
        return Data(
            dataset,
            self._augment,
            self._settings_of_task,
            0.0,
            limit_train_batches=self._limit,
            seed=self._seed,
            store_dir=self._store_dir,
            is_quick=self._is_quick,
        )

    def for_teacher(self, teacher: Values, setting: str = "teacher") -> DataModule:
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

    def _for_teacher(self, teacher: Values) -> DataModule:
        recipe = teacher["recipe"]
        splits = self._splits(**{name: recipe[name] for name in _OF_SUBSET})
        known = labelled(splits.train.target)
        train = replace(splits.train, target=splits.train.target[known], index=splits.train.index[known])
        splits = replace(splits, train=train)
        transforms = recipe["augment"]["transforms"] if recipe.get("augment") else []
        statistics = (teacher["mean"], teacher["std"])
        return self._module(splits, transforms, statistics, recipe["batch_size"], recipe["seed"])

    @property
    def is_dense(self) -> bool:
        """Whether a sample has many rows of logits: one for each pixel."""
        return len(self.task.logits_shape(self._dataset.input_shape)) > 1

    @property
    def tiles(self) -> Values:
        """How networks are evaluated on large images, for keys of their outputs; nothing where images are whole."""
        tiles = tiles_of(self.task)
        return {} if tiles is None else {"tiles": list(tiles)}

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes by number: the data's own, or those of the configuration; None where neither has any."""
        names = self._source.classes or self._dataset.classes
        return None if names is None else list(names)

    @property
    def description(self) -> Values:
        """What a file of weights says of the data, so that its network can be used on others.

        ``task_settings``, what a batch becomes; ``classes``, see `classes`; ``inputs``, the dtype in which the data are
        stored: uint8 images are divided by 255, texts are int32; ``columns`` of a table
        (`kdexp.data.table.TableColumn`), or None.
        """
        inputs, columns = self._source.train_inputs, self._source.columns
        return {
            "task_settings": plain(self._settings_of_task),
            "classes": self.classes,
            "inputs": str(inputs[0].dtype).removeprefix("torch."),
            "columns": None
            if columns is None
            else [dict(zip(("name", "words", "fill"), column, strict=True)) for column in columns],
        }

    @property
    def groups(self) -> tuple[Sequence[str], Tensor] | None:
        """Of the test samples, see `kdexp.contracts.Source`."""
        return self._source.groups

    @property
    def samples_of_group(self) -> dict[str, int]:
        """How many test samples each group has, by its name; none where the data have no groups."""
        if self.groups is None:
            return {}
        names, of_test = self.groups
        return dict(zip(names, of_test.bincount(minlength=len(names)).tolist(), strict=True))

    def samples_per_class(self, target: Tensor) -> dict[str, int]:
        """How many of these samples each class has, by its name; of multi-label data, how many each label has."""
        counts = samples_per_class(target, self.task.kind, self._dataset.num_classes).tolist()
        return dict(zip(self.classes or map(str, range(len(counts))), counts, strict=True))

    def _check_classes(self) -> None:
        own, typed = self._source.classes, self._dataset.classes
        if own is not None and typed is not None and list(own) != list(typed):
            raise ValueError(f"dataset.classes must be null or the names in the data, {list(own)}, got {list(typed)}")

    @cached_property
    def content(self) -> str:
        """Hex digest of what is learned from, chosen by and tested on, as loaded."""
        if self._like is not None:
            return self._like.content
        return of_source(self._source, Path(self._store_dir))

    def _splits(self, **changed: Any) -> Splits:
        given = {name: getattr(self._dataset, name) for name in _OF_SUBSET} | changed
        return make_splits(
            self._source,
            kind=self.task.kind,
            num_classes=self._dataset.num_classes,
            input_shape=list(self._dataset.input_shape),
            val_fraction=self._dataset.val_fraction,
            split_seed=self._dataset.split_seed,
            check=self.task.check_source,
            **given,
        )

    def _module(
        self,
        splits: Splits,
        transforms: Sequence[Values],
        statistics: tuple[Sequence[float], Sequence[float]],
        batch_size: int,
        seed: int,
        *,
        batches: int = quick.TRAIN_BATCHES,
        shares: Sequence[float] | None = None,
        views: int | None = None,
        augment_seed: int | None = None,
    ) -> DataModule:
        mean, std = statistics
        if self._is_quick:
            most = batches * batch_size
            if self._dataset.class_sampling:  # it wants every class, and what has no label counts as one
                most = max(most, self._dataset.num_classes + 1)
            evaluated = quick.EVALUATED_MASKS if self.is_dense else quick.EVALUATED
            counts = {"train": most, "val": evaluated, "test": evaluated}
            splits = Splits(**{name: few_of_each_class(getattr(splits, name), n) for name, n in counts.items()})
        return DataModule(
            splits,
            augment=[instantiate(transform, "transform") for transform in transforms],
            mean=list(mean),
            std=list(std),
            batch_size=batch_size,
            eval_batch_size=self._dataset.eval_batch_size,
            drop_last=self._dataset.drop_last,
            seed=seed,
            augment_seed=augment_seed,
            views=views,
            num_workers=self._dataset.num_workers,
            input_shape=list(self._dataset.input_shape) if self.is_dense else None,
            shares=shares,
        )
