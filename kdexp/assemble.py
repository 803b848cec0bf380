"""From a configuration to the objects of an experiment; nothing here trains except a teacher that is not there yet."""

import hashlib
import inspect
import json
import logging
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.strategies import StrategyRegistry
from torch import Tensor, nn

from kdexp import __version__, monitor, quick, results, trust
from kdexp.adversarial import ARD, IAD, RSLAD, TRADES, AdaAD, AdversarialDistiller, PGDTraining
from kdexp.atomic import atomic_path, read_json, sha256
from kdexp.config import (
    TEACHER_KEYS,
    TERM_KEYS,
    fingerprint,
    has_soft_term,
    instantiate,
    is_attacked,
    is_control,
    plain,
    target,
    teachers,
)
from kdexp.contracts import UNLABELED, Layers, Pair, Side, Source, Splits, Task
from kdexp.data.content import of_source
from kdexp.data.inferred import take
from kdexp.data.loading import DataModule
from kdexp.data.resample import class_shares
from kdexp.data.splits import few_of_each_class, make_splits, samples_per_class
from kdexp.distiller import Distiller, Term
from kdexp.features import input_of_classifier, side
from kdexp.fit import fit
from kdexp.metrics import Curves, Metrics, evaluate
from kdexp.models.adapt import resizing
from kdexp.models.benchmark_names import BENCHMARK_NAMES
from kdexp.models.cost import macs, parameters
from kdexp.models.timm_models import without_sources
from kdexp.online import EMADistiller, MutualDistiller
from kdexp.robustness.attacks import PIXELS, Attack
from kdexp.schedules import anneal
from kdexp.suggest import did_you_mean
from kdexp.teacher import Teacher, trained_once
from kdexp.teacher_cache import ALL_CLASSES, TOP_K, Cache, Record, SplitName, folder_of, make_room
from kdexp.weights import load_weights, state_digest

log = logging.getLogger(__name__)

# A part of what identifies a teacher's measures: another number when kdexp.metrics would give the same teacher others.
_MEASURES_VERSION = 2

# Keys of a student's and a teacher's configuration that are not arguments of its network.
_NETWORK_KEYS = ("feature_layers", "members", *TEACHER_KEYS)


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
    """The data set of an experiment, loaded once and split as the student or as a teacher's recipe asks.

    Args:
        config: the experiment's.
        like: the same data set, loaded for an experiment with another order or augmentation.
    """

    def __init__(self, config: Any, like: "Data | None" = None) -> None:
        self._config, self._store_dir = config.dataset, config.store_dir
        self._is_quick = bool(config.quick)
        self._like = like
        self._source: Source = like._source if like is not None else take(plain(config.dataset.source))
        dataset = config.dataset
        self._check_classes()
        limit = config.trainer.limit_train_batches
        shares = class_shares(dataset.resample, task=dataset.task, num_classes=dataset.num_classes)
        self.student = self._module(
            dataset, self._splits(), config.augment, dataset.batch_size, config.seed, shares=shares,
            views=config.augment.views, augment_seed=config.augment.seed,
            batches=max(quick.TRAIN_BATCHES, limit if isinstance(limit, int) else 0),
        )  # fmt: skip
        if like is not None:
            self.student.resident = like.student.resident

    def for_teacher(self, teacher: Any, setting: str = "teacher") -> DataModule:
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

    def _for_teacher(self, teacher: Any) -> DataModule:
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


def network(config: Any, setting: str, dataset: Any, *, pretrained: bool | None = None) -> nn.Module:
    """Build a network and see that it takes the data set's inputs and gives its outputs.

    Args:
        config: the network's.
        setting: its name, for messages.
        dataset: the configuration of the data set.
        pretrained: whether it begins with published weights; None: as its configuration says. False for a network whose
            weights all come from a file: then nothing is fetched, whatever its configuration says of where.

    Raises:
        ValueError: it does not.
    """
    arguments, size = _arguments(config, setting, dataset, pretrained)
    try:
        hook = None if size is None else resizing(size)
        built: nn.Module = instantiate(arguments, "network")
        if hook is not None:
            built.register_forward_pre_hook(hook)
    except ValueError as error:
        names = {"resize", "name", *arguments}
        is_setting = re.split("[ =]", str(error), maxsplit=1)[0] in names
        raise ValueError(f"{setting}.{error}" if is_setting else f"{setting}: {error}") from error
    probe = torch.zeros(2, *dataset.input_shape)
    try:
        with torch.no_grad():
            found = tuple(built.eval()(probe).shape)
    except Exception as error:  # whatever a network makes of inputs that it is not for
        reason = (str(error) or type(error).__name__).splitlines()[0]
        way = f" (+{setting}.resize=SIZE resizes images for it)" if len(dataset.input_shape) == 3 else ""
        raise ValueError(
            f"{setting} must take inputs of dataset.input_shape{way}, got {list(dataset.input_shape)}: {reason}"
        ) from error
    if found != (2, dataset.num_outputs):
        raise ValueError(
            f"{setting} must give (N, {dataset.num_outputs}) logits for dataset={dataset.name}, got {found}"
        )
    return built.train()


def _arguments(config: Any, setting: str, dataset: Any, pretrained: bool | None) -> tuple[dict[str, Any], int | None]:
    """What a network's constructor gets, with its ``_target_``; and the size that images are resized to before it."""
    arguments = {key: value for key, value in plain(config).items() if key not in _NETWORK_KEYS}
    if pretrained is not None and "pretrained" in arguments:
        arguments = (arguments if pretrained else without_sources(arguments)) | {"pretrained": pretrained}
    constructor = trust.find(arguments.get("_target_"), "network", f"{setting}.")
    size = None if "resize" in inspect.signature(constructor).parameters else arguments.pop("resize", None)
    if size is not None:  # a network for images of another size than the data set's
        if len(dataset.input_shape) != 3:
            raise ValueError(f"{setting}.resize must be null where inputs are no images, got {size}")
        arguments["input_shape"] = [*dataset.input_shape[:-2], size, size]
    return arguments, size


def description(config: Any, setting: str, member: Any, classes: Sequence[str] | None) -> dict[str, Any]:
    """What a file of weights says of its network, so that it can be built and used without anything else.

    Args:
        config: the experiment's.
        setting: that named the network, for messages.
        member: its part of the configuration, the student's or a peer's.
        classes: their names by number, where they have any.

    Returns:
        Plain values: ``architecture``, the importable name of its constructor; ``settings``, its arguments; ``resize``,
        the size of images that its inputs are resized to, or None; ``deployed_by``, the representation losses that put
        another network with parts of the teacher in its place (SimKD); ``task``, ``classes``, ``input_shape`` (of one
        sample, without N), ``mean`` and ``std`` (inputs, images in [0, 1], were normalised with), ``kdexp_version``.
    """
    arguments, size = _arguments(member, setting, config.dataset, False)
    dataset = config.dataset
    return {
        "kdexp_version": __version__,
        "architecture": arguments.pop("_target_"),
        "settings": arguments,
        "resize": size,
        "deployed_by": [loss["_target_"] for loss in config.feature_loss.values() if _deployed(loss) is not None],
        "task": dataset.task,
        "classes": classes,
        **{key: list(dataset[key]) for key in ("input_shape", "mean", "std")},
    }


def _deployed(loss: Any) -> Callable[[Side, Side], nn.Module] | None:
    """What makes the network that a representation loss puts in the student's place; most leave it where it is."""
    found: Callable[[Side, Side], nn.Module] | None = getattr(target(loss, "feature_loss"), "deployed", None)
    return found


def rehearse(config: Any) -> None:
    """Build once what can be built without data, so that a wrong setting is found before a teacher is trained.

    Raises:
        ValueError: a setting that its constructor refuses.
    """
    if config.trainer.accelerator == "gpu" and not torch.accelerator.is_available():
        raise ValueError("trainer.accelerator must be auto or cpu on a machine without a GPU, got gpu")
    strategies = ("auto", *StrategyRegistry.available_strategies())
    if config.trainer.strategy not in strategies:
        raise ValueError(
            f"trainer.strategy must be auto or a name that Lightning knows, got {config.trainer.strategy}"
            f"{did_you_mean(config.trainer.strategy, strategies)}"
        )
    learner = student(config)
    _rehearse_recipe(config, "")
    if config.scheme.get("name") in _ADVERSARIAL:
        adversarial(config.scheme, config.dataset, "scheme")
    if has_soft_term(config):
        _rehearse_loss(term(config.loss).loss, config.dataset)
    for setting, member in teachers(config).items():
        if member.weights == "auto":
            _rehearse_recipe(member.recipe, f"{setting}.recipe.")
            if member.recipe.get("scheme"):
                adversarial(member.recipe.scheme, config.dataset, f"{setting}.recipe.scheme")
    if config.feature_loss:
        setting, member = _the_teacher(config)
        feature_losses(config, learner, network(member, setting, config.dataset), torch.zeros(2, dtype=torch.int64))


def refuse_to_fetch(config: Any, checkpoints: Path) -> None:
    """See that a run that is continued, which may be somebody else's, needs no published weights for its students.

    Args:
        config: the experiment's.
        checkpoints: the folder of the run's.

    Raises:
        ValueError: it does, since it has no checkpoint.
    """
    if not config.resume or any(checkpoints.glob("*.ckpt")):
        return
    learners = {"student": config.student}
    if config.scheme.get("name") == "mutual":
        learners |= {f"scheme.peers.{name}": peer for name, peer in peer_settings(config).items()}
    for name, member in learners.items():
        if member.get("pretrained"):
            raise ValueError(
                f"resume must be a run with a checkpoint where {name}.pretrained=true, since nothing is downloaded "
                f"for it, got none in {checkpoints}; run its command again"
            )


def refuse_single_samples(config: Any, data: Data) -> None:
    """See that no batch is of one sample where a network normalises over the batch; before anything is trained.

    Raises:
        ValueError: the student's or a teacher's is; or a teacher's recipe does not fit the data.
    """
    trainer = config.trainer
    counted = isinstance(trainer.devices, int) and not trainer.sync_batchnorm
    ranks = trainer.devices * trainer.num_nodes if counted else 1
    if data.student.smallest_batch // ranks <= 1:
        learners = {"student": student(config)}
        learners |= peers(config) if config.scheme.get("name") == "mutual" else {}
        for learner in learners.values():
            _refuse_single_samples(learner, "dataset.batch_size", config.dataset.batch_size, config.dataset)
    for setting, member in teachers(config).items():
        if _is_to_be_trained(member, config, data) and data.for_teacher(member, setting).smallest_batch <= 1:
            built = network(member, setting, config.dataset)
            _refuse_single_samples(built, f"{setting}.recipe.batch_size", member.recipe.batch_size, config.dataset)


def _refuse_single_samples(built: nn.Module, setting: str, size: int, dataset: Any) -> None:
    try:
        with torch.no_grad():
            built.train()(torch.zeros(1, *dataset.input_shape))
    except ValueError as error:  # batch normalisation's: of more than one number a channel it takes a single sample
        rule = "must leave at least 2 samples in each batch for a network with batch normalisation"
        raise ValueError(f"{setting} {rule}, got {size}") from error


def _rehearse_loss(soft_loss: nn.Module, dataset: Any) -> None:
    """What a loss refuses or warns of (two classes, say) is heard now."""
    logits = torch.randn(2, 4, dataset.num_outputs)
    target = torch.zeros(4, dtype=torch.int64)
    if dataset.task == "multilabel":
        target = torch.zeros(4, dataset.num_outputs)
    soft_loss(logits[0], logits[1], target)


def _rehearse_recipe(recipe: Any, prefix: str) -> None:
    setting = f"{prefix}optimizer"
    try:
        optimizer = instantiate(recipe.optimizer, "optimizer")([nn.Parameter(torch.zeros(1))])
        setting = f"{prefix}scheduler"
        instantiate(recipe.scheduler, "scheduler")(optimizer, total_steps=10)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{setting}: {error}") from error


def student(config: Any, frozen: Teacher | None = None, *, pretrained: bool | None = None) -> nn.Module:
    """The student, with initial weights that depend on the seed alone.

    It is that of conf/student, or what a representation loss deploys in its place (SimKD), with parts of the teacher:
    trained ones when the teacher is given; without it the same shapes, to load weights into.

    Args:
        config: the experiment's.
        frozen: the teacher.
        pretrained: see `network`; a run that is continued has its weights from a checkpoint.
    """
    torch.manual_seed(config.seed)
    built = network(config.student, "student", config.dataset, pretrained=False if config.resume else pretrained)
    for loss in config.feature_loss.values():
        deployed = _deployed(loss)
        if deployed is not None:
            setting, member = _the_teacher(config)
            other = frozen.networks[0] if frozen else network(member, setting, config.dataset, pretrained=False)
            sides = _side(config, "student", config.student, built), _side(config, setting, member, other)
            built = deployed(*sides)
    return _laid_out(built, config.trainer.channels_last, config)


def trained_student(config: Any, weights: Path, setting: str) -> nn.Module:
    """The student of a finished run.

    Args:
        config: the run's.
        weights: its student.safetensors.
        setting: the setting that named it, for messages.
    """
    learner = student(config, pretrained=False)
    load_weights(learner, results.verified(weights, setting), setting)
    return learner


def peer_settings(config: Any) -> dict[str, Any]:
    """The configuration of each other student of ``scheme=mutual``, by its name."""
    return dict(config.scheme.peers or {"twin": config.student})


def peers(config: Any) -> dict[str, nn.Module]:
    """The other students of ``scheme=mutual``, each with initial weights of its own."""
    built = {}
    for place, (name, peer) in enumerate(peer_settings(config).items(), start=1):
        torch.manual_seed(config.seed + place)
        pretrained = False if config.resume else None
        peer_network = network(peer, f"scheme.peers.{name}", config.dataset, pretrained=pretrained)
        built[name] = _laid_out(peer_network, config.trainer.channels_last, config)
    return built


def _the_teacher(config: Any) -> tuple[str, Any]:
    named = teachers(config)
    if len(named) > 1:
        raise ValueError(f"feature_loss needs a teacher of one network, got {len(named)}")
    return next(iter(named.items()))


def _side(config: Any, setting: str, member: Any, built: nn.Module) -> Side:
    own = getattr(built, "layers", None)  # of a network that is deployed in the student's place
    layers = own if isinstance(own, Layers) else _layers(setting, member)
    try:
        return side(built, layers, torch.zeros(2, *config.dataset.input_shape))
    except ValueError as error:
        raise ValueError(f"{setting}.feature_layers: {error}") from error


def _layers(setting: str, member: Any) -> Layers | None:
    """Where features are read in a network of conf/student or conf/teacher; None: they are to be found."""
    given = plain(member)["feature_layers"]
    if given == "auto":
        return None
    try:
        return Layers(**given)
    except TypeError as error:
        rule = "must be auto, or have stages, penultimate, classifier and perhaps preact"
        raise ValueError(f"{setting}.feature_layers {rule}, got {given}") from error


def penultimate(config: Any, setting: str, member: Any, built: nn.Module) -> str | None:
    """The path of what a network's classifier gets (see `kdexp.features`); None of one without a linear layer.

    Args:
        config: the experiment's.
        setting: that named the network, for messages.
        member: its part of the configuration.
        built: the network.
    """
    if isinstance(getattr(built, "layers", None), Layers) or _layers(setting, member) is not None:
        return _side(config, setting, member, built).layers.penultimate
    return input_of_classifier(built, torch.zeros(2, *config.dataset.input_shape))


def term(config: Any, pair: Pair | None = None) -> Term:
    """A soft loss with its weights; with the pair of networks that it compares, a representation loss."""
    settings = plain(config)
    weights = {key: settings.pop(key) for key in TERM_KEYS if key in settings}
    settings.pop("published", None)
    built = instantiate(settings, "loss") if pair is None else instantiate(settings, "feature_loss", pair)
    return Term(built, **weights)


def feature_losses(config: Any, learner: nn.Module, frozen: nn.Module, labels: Tensor) -> dict[str, Term]:
    """The representation losses, with their adapters and weights.

    Args:
        config: the experiment's.
        learner: the student.
        frozen: the teacher's network.
        labels: see `Pair`.
    """
    setting, member = _the_teacher(config)
    sides = _side(config, "student", config.student, learner), _side(config, setting, member, frozen)
    pair = Pair(*sides, labels, config.dataset.num_outputs)
    return {name: term(loss, pair) for name, loss in config.feature_loss.items()}


def _labels(splits: Splits) -> Tensor:
    """The label of each training sample at the place of its index."""
    train = splits.train
    labels = train.target.new_full((len(train.inputs), *train.target.shape[1:]), UNLABELED)
    labels[train.index] = train.target
    return labels


def teacher(
    config: Any, data: Data, *, may_train: bool = True, kind: Callable[..., Teacher] = Teacher
) -> Teacher | None:
    """The frozen teacher with its weights, trained first if need be.

    Args:
        config: the experiment's.
        data: its data.
        may_train: see below.
        kind: its class, or what makes one of what `Teacher` takes.

    Returns:
        The teacher; None for a control, and for a teacher that would have to be trained when it may not be.
    """
    named = teachers(config)
    if not named:
        return None
    if not may_train and any(_is_to_be_trained(member, config, data) for member in named.values()):
        return None
    networks = [
        _laid_out(_teacher_network(member, name, config, data), config.trainer.channels_last, config)
        for name, member in named.items()
    ]
    return kind(
        networks,
        task=config.dataset.task,
        data=(list(config.dataset.mean), list(config.dataset.std)),
        expects=[_statistics(member, net) for member, net in zip(named.values(), networks, strict=True)],
        precision=config.teacher.precision,
    )


def _teacher_network(member: Any, setting: str, config: Any, data: Data) -> nn.Module:
    if member.weights == "pretrained":
        return _pretrained(member, setting, config.dataset)
    if member.weights == "built":
        return network(member, setting, config.dataset)
    weights = _weights_file(member, config, data)
    built = network(member, setting, config.dataset, pretrained=False)  # before it is said what becomes of it
    if member.weights == "auto":
        name = member.get("name") or member._target_.rsplit(".", 1)[-1]
        state = "reused from" if weights.is_file() else "trained once, kept in"
        log.info("%s %s: %s %s", setting, name, state, weights.parent)
        limit = config.trainer.limit_train_batches
        if limit is not None and not weights.is_file():
            log.info("%s is trained on all its batches: trainer.limit_train_batches=%s limits the student alone "
                     "(quick=true makes both small)", setting, limit)  # fmt: skip
        train = partial(_train_teacher, member, setting, config, data, weights.parent.name)
        trained_once(weights.parent, _teacher_key(member, config, data), train)
    words = load_weights(
        built,
        results.verified(weights, f"{setting}.weights"),
        f"{setting}.weights",
        key=member.get("weights_key"),
        rename=plain(member).get("rename"),
        dialects=BENCHMARK_NAMES,
    )
    if words:
        log.info("%s.weights %s: %s", setting, weights, words)
    return built


def _pretrained(member: Any, setting: str, dataset: Any) -> nn.Module:
    if "pretrained" not in member:
        rule = "must be auto or a file for a network that nobody publishes weights of"
        raise ValueError(f"{setting}.weights {rule}, got pretrained for {member._target_}")
    fresh = network(member, setting, dataset, pretrained=False)  # before anything is downloaded
    published = getattr(fresh, "pretrained_cfg", {}).get("num_classes", 1000)  # timm says it; torchvision's: ImageNet
    if dataset.num_outputs != published:
        rule = (
            f"must be auto or a file when the data set does not have the {published} classes of the published weights"
        )
        raise ValueError(f"{setting}.weights {rule}, got pretrained with dataset={dataset.name}")
    return network(member, setting, dataset, pretrained=True)


def _statistics(member: Any, built: nn.Module) -> tuple[list[float], list[float]]:
    """What the network's inputs were normalised with when it was trained."""
    if member.weights != "pretrained":
        return list(member.mean), list(member.std)
    published = getattr(built, "pretrained_cfg", {})
    return (
        list(published.get("mean", (0.485, 0.456, 0.406))),  # of ImageNet, in all of torchvision's weights
        list(published.get("std", (0.229, 0.224, 0.225))),
    )


def _is_to_be_trained(member: Any, config: Any, data: Data) -> bool:
    return member.weights == "auto" and not _weights_file(member, config, data).is_file()


def _weights_file(member: Any, config: Any, data: Data) -> Path:
    if member.weights != "auto":
        return Path(member.weights)
    key = fingerprint(_teacher_key(member, config, data))
    return Path(config.store_dir) / "teachers" / key / "teacher.safetensors"


def _teacher_key(member: Any, config: Any, data: Data) -> dict[str, Any]:
    """All that a trained teacher's weights depend on."""
    return {
        "network": {key: value for key, value in plain(member).items() if key not in _NETWORK_KEYS},
        "recipe": _recipe(member, config.dataset),
        "statistics": [list(member.mean), list(member.std)],
        "data": {
            k: config.dataset[k] for k in ("name", "task", "num_classes", "val_fraction", "split_seed", "drop_last")
        },
        "content": data.content,
        **quick.mark(config),
    }


def _recipe(member: Any, dataset: Any) -> dict[str, Any]:
    """A teacher's recipe without what decides nothing in it."""
    recipe: dict[str, Any] = plain(member.recipe)
    if "monitor" in recipe:  # an older kdexp's has none
        chosen_by, _ = monitor.rule(recipe.pop("monitor"), dataset, attacked=bool(recipe.get("scheme")))
        recipe |= {"monitor": chosen_by} if recipe["max_epochs"] > 1 else {}
    if not recipe["label_noise"]:
        del recipe["label_noise_kind"]
        if recipe["train_fraction"] == recipe["imbalance_ratio"] == 1 and not recipe["unlabeled_fraction"]:
            del recipe["subset_seed"]
    return recipe


def _train_teacher(member: Any, setting: str, config: Any, data: Data, key: str, folder: Path) -> nn.Module:
    recipe = member.recipe
    torch.manual_seed(recipe.seed)
    learner = _laid_out(network(member, setting, config.dataset), recipe.channels_last, config)
    own = data.for_teacher(member, setting)
    scheme = recipe.get("scheme") or {}
    kind = adversarial(scheme, config.dataset, f"{setting}.recipe.scheme") if scheme else Distiller
    module = kind(
        learner,
        instantiate(recipe.optimizer, "optimizer"),
        task=config.dataset.task,
        num_outputs=config.dataset.num_outputs,
        scheduler=instantiate(recipe.scheduler, "scheduler"),
        label_smoothing=recipe.label_smoothing,
        seed=recipe.seed,
    )
    module.monitor, module.tie_breaker = monitor.rule(recipe.get("monitor"), config.dataset, attacked=bool(scheme))
    settings = {
        "accelerator": config.trainer.accelerator,
        "devices": 1,
        "precision": recipe.precision,
        "max_epochs": recipe.max_epochs,
        "gradient_clip_val": recipe.gradient_clip_val,
    }
    fitted = fit(module, own, folder, settings, owner=key, title="teacher")
    load_weights(learner, fitted.best, "teacher.weights")
    return learner.cpu()


def _laid_out(built: nn.Module, channels_last: bool | str, config: Any) -> nn.Module:
    """The network, its weights in the memory format asked for; images follow in the first convolution."""
    if is_channels_last(built, channels_last, config):
        built.to(memory_format=torch.channels_last)
    return built


def is_channels_last(built: nn.Module, wanted: bool | str, config: Any) -> bool:
    """Whether a network's weights and feature maps have their channels last.

    With auto on a CPU, where it makes the network faster, which the widths of its convolutions decide and no clock, so
    that the same settings give the same numbers again: a network with spatial convolutions of fewer than eight channels
    is slower so, and one of more than 256 hardly gains (scripts/bench_layout.py; docs/benchmarks.md). On a GPU auto is
    false.

    Args:
        built: the network.
        wanted: a setting, ``trainer.channels_last`` or a teacher's ``recipe.channels_last``: true, false or auto.
        config: the experiment's.
    """
    if wanted != "auto":
        return bool(wanted)
    if device(config.trainer.accelerator).type != "cpu":
        return False
    convolutions = [module for module in built.modules() if isinstance(module, nn.Conv2d)]
    spatial = [layer for layer in convolutions if layer.groups == 1 and layer.kernel_size != (1, 1)]
    return bool(convolutions) and all(8 <= layer.out_channels <= 256 for layer in spatial)


def device(accelerator: str) -> torch.device:
    """Where work that needs no Trainer is done."""
    return torch.device("cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu")


def teacher_measures(config: Any, frozen: Teacher, data: Data) -> dict[str, Any]:
    """What the teacher itself can do and costs, measured the first time and remembered in the store.

    Returns:
        ``val`` and ``test``: metrics; ``curves``: of test (see `kdexp.metrics.CurveData.compact`); ``model``: its
        parameters and multiply-accumulates a sample, all members of an ensemble together.
    """
    key = fingerprint(
        {
            "version": _MEASURES_VERSION,
            "weights": [state_digest(network) for network in frozen.networks],
            "statistics": [
                _statistics(member, net) for member, net in zip(teachers(config).values(), frozen.networks, strict=True)
            ],
            "data": {k: config.dataset[k] for k in ("name", "task", "val_fraction", "split_seed", "mean", "std")},
            "content": data.content,
            **quick.mark(config),
        }
    )
    path = Path(config.store_dir) / "teacher-measures" / f"{key}.json"
    remembered = _remembered(path)
    if not remembered:
        place = device(config.trainer.accelerator)
        frozen.to(place)
        module, drawn = data.student, curves(config, data.student).to(place)
        found: dict[str, Any] = {
            split: evaluate(
                lambda inputs: frozen(inputs).logits,
                module.eval_batches(split, place),
                metrics(config, module, split).to(place),
                curves=drawn if split == "test" else None,
                what=f"teacher: evaluating on {split}",
            )
            for split in ("val", "test")
        }
        found["curves"] = drawn.compute().compact()
        shape = list(config.dataset.input_shape)
        found["model"] = {
            "parameters": sum(parameters(network) for network in frozen.networks),
            "macs": sum(macs(network, shape) for network in frozen.networks),
        }
        remembered = json.loads(json.dumps(found))
        try:
            with atomic_path(path) as temporary:
                temporary.write_text(json.dumps(found))
        except OSError as error:  # somebody else's store
            log.warning("the teacher's metrics are not kept in store_dir: %s: %s", path.parent, error.strerror)
    return remembered


def _remembered(path: Path) -> dict[str, Any]:
    """What was measured before; nothing where it was not, or the file is damaged."""
    try:
        found = read_json(path)
    except ValueError as error:
        if path.exists():
            log.warning("%s is damaged: %s; the teacher is measured again", path, error)
        return {}
    return found if isinstance(found, dict) and found.keys() >= {"val", "test", "curves", "model"} else {}


def near_chance(accuracy: float, counts: Tensor, samples: int, task: Task, auc: float | None = None) -> tuple[str, str]:
    """A network's accuracy beside what needs no input: chance, and always the most frequent class.

    Args:
        accuracy: on a split, in [0, 1]; multilabel: of single labels.
        counts: (C,) samples of each class in that split, see `samples_per_class`.
        samples: of the split.
        task: what the targets mean.
        auc: on the split, in [0, 1], where it is known. Of yes/no outputs it decides, too: what is rare hides in the
            accuracy.

    Returns:
        What there is to say, and what to do where the accuracy is hardly better than that; nothing where it is.
    """
    if task == "multilabel":
        share = counts / samples
        chance, majority = 0.5, float(torch.maximum(share, 1 - share).mean())
    else:
        chance, majority = 1 / len(counts), float(counts.max() / counts.sum())
    found = f"accuracy {accuracy:.3f}{f', AUC {auc:.3f}' if auc is not None else ''}; chance {chance:.3f}, "
    found += f"the most frequent class {majority:.3f}"
    blind = max(chance, majority)
    ranks = auc is not None and auc >= 0.6 and (task != "multiclass" or len(counts) == 2)
    if ranks or accuracy >= blind + 0.1 * (1 - blind):
        return found, ""
    return found, "it has little to teach: train it longer (teacher.recipe), or check its weights, mean and std"


def teacher_on_val(config: Any, frozen: Teacher, data: Data) -> tuple[float, Tensor, int, Task, float | None]:
    """What `near_chance` is to be told of the teacher on val."""
    measured, target = teacher_measures(config, frozen, data)["val"], data.student.splits.val.target
    task: Task = config.dataset.task
    counts = samples_per_class(target, task, config.dataset.num_classes)
    return measured["acc"], counts, len(target), task, measured.get("auc")


def refuse_undefined_monitor(config: Any, data: Data) -> None:
    """See that the metrics that are set to choose the best epoch exist on val; auto does without.

    Raises:
        ValueError: an AUC where a single class occurs.
    """
    chosen_by = {"trainer.monitor": config.trainer.get("monitor")}
    chosen_by |= {f"{name}.recipe.monitor": member.recipe.get("monitor") for name, member in teachers(config).items()}
    for setting, value in chosen_by.items():
        if value == "val/auc" and not _has_auc(config, data):
            raise ValueError(f"{setting} must be defined on val, got val/auc, and only one class there")


def _has_auc(config: Any, data: Data) -> bool:
    any_logits = metrics(config, data.student, "val")
    for part in torch.split(data.student.splits.val.target, 4096):
        any_logits.update(torch.zeros(len(part), config.dataset.num_outputs), part)
    return "auc" in any_logits.compute()


def teacher_cache(config: Any, frozen: Teacher | None, data: Data) -> Cache | None:
    """The kept answers of the teacher; None where none are kept.

    Args:
        config: the experiment's.
        frozen: the teacher, told which features to read (see `Teacher.read`).
        data: the data.

    Raises:
        ValueError: there is no room for them.
    """
    if frozen is None or config.teacher.cache == "none":
        return None
    module = data.student
    probe = frozen.to("cpu").answers(torch.zeros(1, *config.dataset.input_shape))
    shape = probe[0].logits.shape[1:]
    top_k = config.teacher.cache_top_k or (TOP_K if shape[0] > ALL_CLASSES else shape[0])
    features = {path: feature.shape[1:] for path, feature in probe[0].features.items()}
    kept: dict[SplitName, tuple[Path, dict[str, Any], Record]] = {}
    wanted: dict[Path, int] = {}
    views = config.trainer.max_epochs if config.augment.views is None else max(config.augment.views, 1)
    splits: tuple[SplitName, ...] = ("train", "val", "test")
    for split in splits:
        record = Record(
            len(frozen.networks), shape, features if split == "train" else {}, config.teacher.cache_precision,
            top_k if top_k < shape[0] else None,
        )  # fmt: skip
        key = _answers_key(config, frozen, data, split, record)
        card = {"made_for": plain(config.choices), "split": split, "samples": len(getattr(module.splits, split)),
                "bytes_per_sample": record.dtype.itemsize, "key": key, "config": plain(config)}  # fmt: skip
        folder = folder_of(config.store_dir, fingerprint(key))
        kept[split] = folder, card, record
        wanted[folder] = card["samples"] * record.dtype.itemsize * (views if split == "train" else 1)
    make_room(folder.parent, wanted, config.teacher.cache_max_gb)
    answers = Cache(frozen, module, kept, views)
    train = answers.answers["train"]
    filled = sum(view < views for view in train.filled_views())
    if filled < views and not os.access(train.folder, os.W_OK):
        raise ValueError(
            f"store_dir must be a folder that can be written to, got {train.folder}, with {filled} of {views} views"
        )
    log.info("teacher cache: %d views of %d samples, %.3g MB each, %d of them there; %s",
             views, len(module.splits.train), train.bytes_per_view / 1e6,
             filled, train.folder)  # fmt: skip
    if top_k < shape[0]:
        log.info("teacher cache: the %d largest of %d logits are kept, the others by their mean", top_k, shape[0])
    if config.teacher.cache == "static" and config.augment.transforms:
        log.warning("warning: teacher.cache=static shows the same samples in every epoch, and a student overfits them "
                    "sooner (Beyer et al. 2022, arXiv 2106.05237); views:K augments them")  # fmt: skip
    return answers


def kept_answers(config: Any, *, may_train: bool = True) -> Cache | None:
    """The kept answers of an experiment's teacher, for whoever wants them without its student.

    Returns:
        None for an experiment without a teacher, or whose teacher would have to be trained when it may not be.
    """
    data = Data(config)
    frozen = teacher(config, data, may_train=may_train)
    if frozen is None:
        return None
    distiller(config, student(config, frozen, pretrained=False), frozen, data)  # its losses say which features are read
    answers = teacher_cache(config, frozen, data)
    if answers is not None:
        answers.device = device(config.trainer.accelerator)
    return answers


def _answers_key(config: Any, frozen: Teacher, data: Data, split: SplitName, record: Record) -> dict[str, Any]:
    """All that a teacher's answers to a split depend on; temperature, alpha and the student do not matter."""
    members = teachers(config).values()
    augmented = split == "train" and config.augment.views != 0
    transforms = plain(config.augment.transforms) if augmented else []
    index = getattr(data.student.splits, split).index
    place = device(config.trainer.accelerator)
    called = [*(target(member, "network") for member in members), *(target(each, "transform") for each in transforms)]
    code = [Path(inspect.getfile(one)) for one in called]
    code += [Path(__file__).parent / name for name in _ANSWERING]
    return {
        "weights": [state_digest(network) for network in frozen.networks],
        "networks": [{k: v for k, v in plain(member).items() if k not in _NETWORK_KEYS} for member in members],
        "statistics": [_statistics(member, net) for member, net in zip(members, frozen.networks, strict=True)],
        "task": config.dataset.task,
        "precision": config.teacher.precision,
        "features": list(frozen.paths) if split == "train" else [],
        "record": str(record.dtype),
        "content": data.content,
        "split": [split, hashlib.sha256(index.numpy().tobytes()).hexdigest()],
        "normalised": [list(config.dataset.mean), list(config.dataset.std)],
        "channels_last": [is_channels_last(net, config.trainer.channels_last, config) for net in frozen.networks],
        "augment": [transforms, config.augment.seed if augmented else None],
        "device": place.type if place.type == "cpu" else torch.cuda.get_device_name(place),
        "versions": [torch.__version__, __version__, torch.backends.cpu.get_cpu_capability()],
        "code": [sha256(file) for file in code],
    }


# Our own files that a teacher's kept answers depend on.
_ANSWERING = ("features.py", "teacher.py", "teacher_cache.py", "data/counter.py", "data/loading.py")


def metrics(config: Any, module: DataModule, split: str, *, fidelity: bool = False, alone: bool = True) -> Metrics:
    """Metrics for one split; ``alone`` for an evaluation that only one rank does."""
    return Metrics(
        config.dataset.task,
        config.dataset.num_outputs,
        samples=len(getattr(module.splits, split)),
        fidelity=fidelity,
        sync_on_compute=not alone,
    )


def curves(config: Any, module: DataModule) -> Curves:
    """ROC curves and confusion matrix of the test split, for an evaluation that only one rank does."""
    return Curves(
        config.dataset.task, config.dataset.num_outputs, samples=len(module.splits.test), sync_on_compute=False
    )


_ADVERSARIAL: dict[str, type[AdversarialDistiller]] = {
    "pgd_at": PGDTraining, "trades": TRADES, "ard": ARD, "rslad": RSLAD, "iad": IAD, "adaad": AdaAD,
}  # fmt: skip


def adversarial(scheme: Any, dataset: Any, setting: str) -> Callable[..., Distiller]:
    """The kind of training on adversarial examples that a scheme names.

    Raises:
        ValueError: an attack that makes no sense.
    """
    settings = plain(scheme)
    is_image = len(dataset.input_shape) == 3
    try:
        attack = Attack(**settings.pop("attack"), bounds=PIXELS if is_image else None)
    except ValueError as error:
        raise ValueError(f"{setting}.attack: {error}") from error
    mean, std = (list(dataset.mean), list(dataset.std)) if is_image else ([0.0], [1.0])
    return partial(_ADVERSARIAL[settings.pop("name")], attack=attack, mean=mean, std=std, **settings)


def distiller(config: Any, learner: nn.Module, frozen: Teacher | None, data: Data) -> Distiller:
    """The student's training as configured."""
    full = config.trainer.full_train_metrics
    module = data.student
    features = {}
    if config.feature_loss:
        assert frozen is not None
        features = feature_losses(config, learner, frozen.networks[0], _labels(module.splits))
    kind: Callable[..., Distiller] = partial(Distiller, teacher=frozen, feature_losses=features)
    if config.scheme.get("name") == "ema" and not is_control(config):
        kind = partial(EMADistiller, decay=config.scheme.decay)
    elif config.scheme.get("name") == "mutual" and not is_control(config):
        kind = partial(MutualDistiller, peers=peers(config))
    elif config.scheme.get("name") in _ADVERSARIAL and not is_control(config):
        kind = partial(adversarial(config.scheme, config.dataset, "scheme"), teacher=frozen)
    training = kind(
        learner,
        instantiate(config.optimizer, "optimizer"),
        task=config.dataset.task,
        num_outputs=config.dataset.num_outputs,
        soft_loss=term(config.loss) if has_soft_term(config) else None,
        alpha=_schedule(config.alpha, config.alpha_schedule),
        temperature=_schedule(config.temperature, config.temperature_schedule),
        scheduler=instantiate(config.scheduler, "scheduler"),
        label_smoothing=config.label_smoothing,
        seed=config.seed,
        val_metrics=metrics(config, module, "val", fidelity=frozen is not None, alone=False),
        train_metrics=Metrics(
            config.dataset.task, config.dataset.num_outputs, samples=len(module.splits.train), accuracy_only=not full
        ),
        gradient_stats_every_n_steps=config.trainer.gradient_stats_every_n_steps,
        log_every_n_steps=config.trainer.log_every_n_steps,
    )
    training.monitor, training.tie_breaker = monitor.rule(
        config.trainer.get("monitor"), config.dataset, attacked=is_attacked(config)
    )
    return training


def _schedule(start: float, schedule: Any) -> Any:
    if schedule.kind == "constant":
        return start
    return lambda progress: anneal(start, schedule.final, progress, schedule.kind)
