"""What a configuration becomes: data, teacher, student, losses, the training; each made when it is first wanted."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from kdexp.config.compose import compose, plain
from kdexp.config.require import Values, require
from kdexp.experiment import networks
from kdexp.experiment.data import Data
from kdexp.experiment.distillers import build_distiller, peer_settings
from kdexp.experiment.losses import Losses, build_term, feature_terms, train_labels
from kdexp.experiment.members import has_soft_term, teachers
from kdexp.experiment.teacher_cache import teacher_cache
from kdexp.experiment.teachers import Teachers
from kdexp.teacher.cached_outputs import TeacherMemory, TeacherOutputCache
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller


class Experiment:
    """What a configuration becomes. Each part is made when it is first wanted, and once.

    The order in which they are made changes no number: what is drawn at random is drawn from the seed.

    Args:
        config: a checked configuration, as `kdexp.config.compose.compose` or Hydra makes it, or its plain values.
        may_train_teacher: whether a teacher that is to be trained, and is not in the store yet, is trained now.
    """

    def __init__(self, config: Values, *, may_train_teacher: bool = True) -> None:
        self.config = config if isinstance(config, DictConfig) else OmegaConf.create(dict(config))
        self._may_train_teacher = may_train_teacher
        self._state_of_losses: torch.Tensor | None = None

    @classmethod
    def compose(cls, *overrides: str, output_dir: str | Path = "outputs", **places: str | Path) -> "Experiment":
        """The experiment that ``kdexp-train OVERRIDES`` would run.

        Args:
            overrides: as on the command line: ``"dataset=digits", "loss=dkd"``.
            output_dir: the run folder.
            places: other folders, ``store_dir`` and ``data_dir``.

        Raises:
            ValueError: an unknown option or key, or a value of the wrong type.
        """
        return cls(compose(overrides, "train", output_dir=output_dir, **places))

    @cached_property
    def values(self) -> Values:
        """The configuration as plain values."""
        found: Values = plain(self.config)
        return found

    @cached_property
    def device(self) -> torch.device:
        """Where work that needs no Trainer is done."""
        return networks.device_for(self.config.trainer.accelerator)

    @cached_property
    def members(self) -> dict[str, Values]:
        """The setting and the configuration of each teacher: none for a control, several for an ensemble."""
        return teachers(self.values)

    @cached_property
    def data(self) -> Data:
        """The data set, loaded and split."""
        return self.new_data()

    def new_data(self, like: Data | None = None) -> Data:
        """See `data`.

        Args:
            like: the same data set, loaded for an experiment with another order or augmentation.
        """
        config = self.config
        return Data(
            config.dataset,
            config.augment,
            config.task,
            config.label_smoothing,
            limit_train_batches=config.trainer.limit_train_batches,
            seed=config.seed,
            store_dir=config.store_dir,
            is_quick=config.quick,
            like=like,
        )

    @cached_property
    def epochs(self) -> int:
        """How many the student is trained for: ``trainer.max_epochs``, or those that hold ``trainer.max_steps``."""
        trainer = self.config.trainer
        if trainer.max_steps is None:
            return int(trainer.max_epochs)
        batches, limit = self.data.student.train_batches, trainer.limit_train_batches
        if limit is not None:
            batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
        require(batches >= 1, "trainer.limit_train_batches", "must leave a batch for trainer.max_steps", limit)
        steps: int = math.ceil(batches / trainer.accumulate_grad_batches)
        return -(-int(trainer.max_steps) // steps)

    @cached_property
    def teacher(self) -> Teacher | None:
        """The frozen teacher with its weights, trained first if need be.

        None for a control, and where it would have to be trained and may not be.
        """
        return self.new_teacher(Teacher)

    def new_teacher(self, make: Callable[..., Teacher]) -> Teacher | None:
        """See `teacher`.

        Args:
            make: `Teacher`, or what makes one of what `Teacher` takes.
        """
        if not self.members:
            return None
        every = self._teachers
        if not self._may_train_teacher and every.to_be_trained():
            return None
        built = every.networks()
        return make(
            built,
            kind=self.data.task.kind,
            data=(list(self.config.dataset.mean), list(self.config.dataset.std)),
            expects=every.input_statistics(built),
            precision=self.config.teacher.precision,
            dense=self.data.is_dense,
        )

    @cached_property
    def _teachers(self) -> Teachers:
        config = self.config
        return Teachers(
            self.members,
            self.data,
            config.dataset,
            config.task,
            accelerator=config.trainer.accelerator,
            channels_last=config.trainer.channels_last,
            limit_train_batches=config.trainer.limit_train_batches,
            store_dir=config.store_dir,
            is_quick=config.quick,
            device=self.device,
        )

    def teachers_to_be_trained(self) -> dict[str, Values]:
        """The setting and the configuration of each teacher that is to be trained and is not in the store yet."""
        return self._teachers.to_be_trained()

    @cached_property
    def student(self) -> nn.Module:
        """The student, with initial weights that depend on the seed alone.

        It is that of conf/student, or what a feature loss deploys in its place (SimKD), with parts of the teacher; and
        it has weights of the teacher's where ``student.init_from_teacher`` says so.
        """
        is_deployed = any(networks.deployed(loss) is not None for loss in self.config.feature_loss.values())
        blocks = self.config.student.get("init_from_teacher") if self.members else None
        teacher = self.teacher if is_deployed or blocks else None
        built = self.new_student(teacher if is_deployed else None, pretrained=None)
        self._state_of_losses = torch.get_rng_state()
        networks.prepare(built, lambda: self.data.student.splits)
        if blocks and teacher is not None:
            networks.init_from_teacher(built, teacher.networks[0], blocks)
        return built

    def new_student(self, teacher: Teacher | None = None, *, pretrained: bool | None = False) -> nn.Module:
        """A network as the student's, to load weights into.

        Args:
            teacher: a feature loss may deploy parts of it; None: the same shapes, with other weights.
            pretrained: see `kdexp.experiment.networks.build_network`; a run that is resumed has its weights from a
                checkpoint.
        """
        config = self.config
        torch.manual_seed(config.seed)
        pretrained = False if config.resume else pretrained
        built = networks.build_network(config.student, "student", config.dataset, config.task, pretrained=pretrained)
        for loss in config.feature_loss.values():
            deployed = networks.deployed(loss)
            if deployed is not None:
                setting, member = self.one_teacher
                other = (
                    teacher.networks[0]
                    if teacher
                    else networks.build_network(member, setting, config.dataset, config.task, pretrained=False)
                )
                shape = config.dataset.input_shape
                sides = (
                    networks.side_of("student", config.student, built, shape),
                    networks.side_of(setting, member, other, shape),
                )
                built = deployed(*sides)
        return networks.laid_out(built, config.trainer.channels_last, self.device)

    @property
    def one_teacher(self) -> tuple[str, Values]:
        """The setting and the configuration of the one teacher that feature losses read.

        Raises:
            ValueError: there are several, or none.
        """
        if len(self.members) != 1:
            raise ValueError(f"feature_loss needs a teacher of one network, got {len(self.members)}")
        return next(iter(self.members.items()))

    @cached_property
    def peers(self) -> dict[str, nn.Module]:
        """The networks that learn along with the student, as the scheme says."""
        if not self.peer_settings:
            return {}
        _ = self.student  # first: what is drawn for the losses comes after the peers
        built = self.new_peers()
        for peer in built.values():
            networks.prepare(peer, lambda: self.data.student.splits)
        self._state_of_losses = torch.get_rng_state()
        return built

    def new_peers(self) -> dict[str, nn.Module]:
        """The networks that learn along, each with initial weights of its own."""
        config, built = self.config, {}
        for place, (name, peer) in enumerate(self.peer_settings.items(), start=1):
            torch.manual_seed(config.seed + place)
            pretrained = False if config.resume else None
            network = networks.build_network(
                peer, f"scheme.peers.{name}", config.dataset, config.task, pretrained=pretrained
            )
            built[name] = networks.laid_out(network, config.trainer.channels_last, self.device)
        return built

    @property
    def peer_settings(self) -> Mapping[str, Values]:
        """The configuration of each network that learns along, by its name."""
        return peer_settings(self.values)

    @cached_property
    def losses(self) -> Losses:
        """The soft loss and the feature losses, whose adapters are drawn as if right after the student."""
        # All that draws random numbers of its own comes first: a teacher that is trained, the student, its peers.
        teacher = self.teacher if self.config.feature_loss else None
        student, _ = self.student, self.peers
        assert self._state_of_losses is not None
        torch.set_rng_state(self._state_of_losses)
        found = Losses()
        if teacher is not None:
            labels = train_labels(self.data.student.splits)
            found = self.new_feature_losses(student, teacher.networks[0], labels)
        return replace(found, soft=build_term(self.config.loss)) if has_soft_term(self.config) else found

    def _losses_of_shapes(self) -> Losses:
        """`losses`, or others of the same shapes where the student is not wanted: nothing is downloaded for it."""
        if "losses" in vars(self):
            return self.losses
        assert self.teacher is not None
        student, labels = self.new_student(self.teacher), train_labels(self.data.student.splits)
        return self.new_feature_losses(student, self.teacher.networks[0], labels)

    def new_feature_losses(self, student: nn.Module, teacher: nn.Module, labels: torch.Tensor) -> Losses:
        """The feature losses, with their adapters and weights.

        Args:
            student: its network.
            teacher: its network.
            labels: see `kdexp.contracts.TeacherStudentPair`.
        """
        setting, member = self.one_teacher
        shape = self.config.dataset.input_shape
        sides = (
            networks.side_of("student", self.config.student, student, shape),
            networks.side_of(setting, member, teacher, shape),
        )
        terms = feature_terms(self.config.feature_loss, sides, labels, self.config.dataset.num_outputs)
        return Losses(features=terms)

    @cached_property
    def distiller(self) -> Distiller:
        """The student's training; `cache` is not attached, since it is filled while a student is trained."""
        losses = self.losses
        return build_distiller(self.config, self.data, self.student, self.peers, self.teacher, losses)

    @cached_property
    def cache(self) -> TeacherOutputCache | None:
        """The teacher's cached outputs; None where none are cached."""
        return self.new_cache()

    def new_cache(self) -> TeacherOutputCache | None:
        """See `cache`."""
        if self.teacher is None or self.config.teacher.cache == "none":
            return None
        if self.config.feature_loss:
            self.teacher.read(self._losses_of_shapes().teacher_paths)
        return teacher_cache(self.config, self.members, self.teacher, self.data, self.epochs)

    @cached_property
    def teacher_memory(self) -> TeacherMemory:
        """The teacher's outputs of val and test in this process."""
        return TeacherMemory()

    @cached_property
    def batches(self) -> pl.LightningDataModule:
        """What the Trainer is given."""
        return self.data.student

    def control(self) -> "Experiment":
        """The control: the same student, data, recipe and seed, without a teacher."""
        alone = OmegaConf.create(dict(self.values))
        alone.alpha, alone.alpha_schedule.kind, alone.alpha_schedule.final = 1.0, "constant", None
        alone.feature_loss, alone.scheme = {}, {}
        alone.student.pop("init_from_teacher", None)
        return Experiment(alone)

    def cost(self) -> dict[str, object]:
        """What there is to say of the run's cost besides its seconds and bytes."""
        return {}
