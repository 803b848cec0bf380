"""The rules of a whole configuration, before anything is trained."""

import re
from collections.abc import Mapping, Sequence

from omegaconf import DictConfig, OmegaConf

from kdexp.config import trust
from kdexp.config.compose import plain
from kdexp.config.identity import INIT_FROM_TEACHER, Identity, has_attack
from kdexp.config.objects import target
from kdexp.config.require import Values, is_count, missing_values, require
from kdexp.data.settings import Augment, Dataset, check_classes
from kdexp.experiment.members import (
    ROWS,
    compared_by,
    has_soft_term,
    new_task,
    possible_teachers,
    targets_of,
    teachers,
)
from kdexp.experiment.settings import check_budget, check_loss_statement, check_tracking
from kdexp.robustness import configured
from kdexp.schemes.base import scheme_of
from kdexp.teacher.settings import CACHE_MODES, check_teacher
from kdexp.training.settings import (
    PRECISIONS,
    check_monitor,
    check_monitor_of_task,
    check_rate,
    check_schedules,
    check_terms,
    check_trainer,
    check_weights,
)


def check(config: DictConfig) -> None:
    """The rules that need no data and no network. Called before anything heavy, for a sweep on every job first.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    check_values(config)
    for part in trust.EXPERIMENT:
        trust.check(OmegaConf.to_container(config[part], resolve=True), trust.EXPERIMENT[part], part)
    members = possible_teachers(config)
    schemes = {"scheme": config.scheme}
    schemes |= {f"{name}.recipe.scheme": each["recipe"].get("scheme") for name, each in members.items()}
    chosen = {setting: scheme_of(plain(scheme), setting) for setting, scheme in schemes.items() if scheme}
    for setting, scheme in chosen.items():
        scheme.check(setting, config.dataset)
    if "scheme" in chosen:
        chosen["scheme"].check_feature_loss(config.feature_loss)
        if not Identity(config).is_control:
            cache = config.teacher.get("cache", "none")
            chosen["scheme"].check_teachers(teachers(config), config.loss.get("_target_"), cache)
    _check_init(plain(config.student), config.teacher, len(teachers(config)), is_control=Identity(config).is_control)
    _check_views(config.teacher, config.augment, config.dataset)
    _check_saved_outputs(config.teacher, members, config.augment, has_feature_loss=bool(config.feature_loss))
    dataset = config.dataset
    task = new_task(config.task, dataset, config.label_smoothing)
    named, targets = type(task).__name__.lower(), targets_of(task, dataset)
    augments, monitors = {"augment": config.augment}, {"trainer": config.trainer.get("monitor")}
    augments |= {f"{name}.recipe.augment": each["recipe"].get("augment") or {} for name, each in members.items()}
    monitors |= {f"{name}.recipe": each["recipe"].get("monitor") for name, each in members.items()}
    monitors["task"] = task.monitor
    for setting, scheme in schemes.items():
        may_attack = "attacks" in task.supports or not has_attack(scheme)
        require(may_attack, setting, f"must attack nothing for task={named}", plain(scheme or {}).get("_target_"))
    for name, monitor in monitors.items():
        check_monitor_of_task(f"{name}.monitor", monitor, named, targets)
    loss = config.loss if has_soft_term(config) else None
    is_saved = any(_is_saved(member) for member in members.values())
    require(not is_saved or targets == "labels", "teacher", f"must be networks for task={named}", "saved outputs")
    _check_compared(compared_by(task), named, loss, config.scheme, members)
    if compared_by(task) != ROWS:
        require(config.temperature == 1, "temperature", f"must be 1 for task={named}", config.temperature)
    for name, augment in augments.items():
        transforms, has_texts = augment.get("transforms", ()), "texts" in task.supports
        _check_transforms(f"{name}.transforms", transforms, dataset.name, targets, has_texts=has_texts)


def _check_compared(
    compared: str, task: str, loss: Values | None, scheme: Values, members: Mapping[str, Values]
) -> None:
    """See that the soft loss compares what the task gives, and that nothing takes what is no row of logits for one."""
    if loss is not None:
        rule = f"must compare {compared} for task={task}"
        require(compared_by(target(loss, "loss")) == compared, "loss", rule, loss["_target_"])
    if compared != ROWS:
        require(len(members) <= 1, "teacher", f"must be of one network for task={task}", len(members))
        require(not scheme, "scheme", f"must be null for task={task}", plain(scheme).get("_target_"))
        for name, each in members.items():
            top_k = each.get("cache_top_k")
            require(top_k is None, f"{name}.cache_top_k", f"must be null for task={task}", top_k)


def check_values(config: DictConfig) -> None:
    """Those of the rules of `check` that need nothing imported that the configuration names: they take no time.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    # Not of the whole: before a sweep's jobs start, Hydra's own values are not there yet.
    for part in ("dataset", "teacher", "student", "trainer"):
        missing = missing_values(OmegaConf.to_container(config[part]), part)
        require(not missing, ", ".join(missing), "must be given", "nothing")
    check_weights(config.alpha, config.temperature, config.label_smoothing)
    check_schedules(config.alpha_schedule, config.temperature_schedule)
    check_terms(config.alpha, config.loss, config.feature_loss)
    check_trainer(config.trainer, config.optimizer)
    check_rate("optimizer", config.optimizer)
    check_monitor(
        "trainer.monitor", config.trainer.get("monitor"), config.dataset, attacked=Identity(config).is_attacked
    )
    _check_dataset(config.dataset)
    require(0 <= config.seed < 2**63, "seed", "must be in [0, 2^63)", config.seed)
    _check_networks(config.student, possible_teachers(config), config.dataset)
    name = config.sweep_name
    require(name is None or re.fullmatch(r"[\w.-]*\w", name), "sweep_name", "must be letters, digits, _, . and -", name)
    require(config.rerun in (None, "all"), "rerun", "must be null or all", config.rerun)
    if config.robustness:
        configured.check(plain(config.robustness))
    check_tracking(config.tracking)
    check_loss_statement(config.loss_statement)
    axes = configured.axes(plain(config.robustness or {}))
    check_budget(config.budget, [axis.name for axis in axes if axis.has_measure])


def _check_dataset(dataset: Dataset) -> None:
    require(
        dataset.kind in ("multiclass", "binary", "multilabel"),
        "dataset.kind",
        "must be multiclass, binary or multilabel",
        dataset.kind,
    )
    require(dataset.batch_size >= 1, "dataset.batch_size", "must be at least 1", dataset.batch_size)
    require(dataset.eval_batch_size >= 1, "dataset.eval_batch_size", "must be at least 1", dataset.eval_batch_size)
    require(dataset.num_workers >= 0, "dataset.num_workers", "must be at least 0", dataset.num_workers)
    fewest = 1 if dataset.kind == "multilabel" else 2
    require(dataset.num_classes >= fewest, "dataset.num_classes", f"must be at least {fewest}", dataset.num_classes)
    check_classes("dataset", dataset.classes, dataset.num_classes)
    shape = list(dataset.input_shape)
    require(shape and min(shape) >= 1, "dataset.input_shape", "must be sizes of at least 1, one or more", shape)


def _check_init(student: Values, teacher: Values, number_of_teachers: int, *, is_control: bool) -> None:
    """The setting of the student that needs the one teacher; a control does without it."""
    chosen, name = student.get(INIT_FROM_TEACHER), f"student.{INIT_FROM_TEACHER}"
    if chosen is None:
        return
    is_list = isinstance(chosen, list) and chosen and all(type(number) is int for number in chosen)
    require(is_list, name, "must be null or a list of the teacher's blocks, from 0", chosen)
    require(not teacher.get("classes"), name, "must be null with teacher.classes", chosen)
    require(number_of_teachers == 1 or is_control, name, "must be null where there is no teacher, or several", chosen)


def _check_networks(student: Values, members: Mapping[str, Values], dataset: Dataset) -> None:
    for name, teacher in members.items():
        rule = f"must be a teacher's settings (teacher@{name}=NAME chooses one, ~{name} leaves it out)"
        require(isinstance(teacher, Mapping), name, rule, teacher)
        check_teacher(name, teacher)
        attacked = has_attack(teacher["recipe"].get("scheme"))
        check_monitor(f"{name}.recipe.monitor", teacher["recipe"].get("monitor"), dataset, attacked=attacked)
    for name, network in {"student": student, **members}.items():
        if network.get("classes"):
            require(
                is_count(network["num_classes"]), f"{name}.num_classes", "must be at least 1", network["num_classes"]
            )
            continue
        require(
            network["num_classes"] == dataset.num_outputs,
            f"{name}.num_classes",
            f"must be {dataset.num_outputs}, the outputs that dataset={dataset.name} (kind {dataset.kind}) needs",
            network["num_classes"],
        )


def _check_transforms(name: str, transforms: Sequence[Values], dataset: str, targets: str, *, has_texts: bool) -> None:
    rules = {"masks": "must move masks as they move images (kdexp.data.joint_augment)", "labels": "must need no masks"}
    rule = rules.get(targets, "must be none, where the images are the targets,")
    for transform in transforms:
        found = target(transform, "transform")
        reads = not has_texts or getattr(found, "reads_texts", False)
        require(reads, name, f"must be made for texts with dataset={dataset}", transform["_target_"])
        moves_masks = getattr(found, "moves_masks", False)
        fits = targets != "images" and moves_masks == (targets == "masks")
        require(fits, name, f"{rule} with dataset={dataset}", transform["_target_"])


def _is_saved(member: Values) -> bool:
    return getattr(target(member, "teacher"), "of_known_samples", False)


def _check_saved_outputs(
    teacher: Values, members: Mapping[str, Values], augment: Augment, *, has_feature_loss: bool
) -> None:
    """See that a teacher of saved outputs, which knows the samples as they are, is shown no others."""
    for setting in (name for name, member in members.items() if _is_saved(member)):
        require(teacher["cache"] != "none", "teacher.cache", f"must be unaugmented with {setting}=outputs", "none")
        names = [transform["_target_"].rsplit(".", 1)[-1] for transform in augment.transforms]
        rule = f"must be none with {setting}=outputs, or teacher.cache=unaugmented"
        require(not names or augment.views == 0, "augment", rule, ", ".join(names))
        require(not has_feature_loss, "feature_loss", f"must be none with {setting}=outputs", "a feature loss")


def _check_views(teacher: Values, augment: Augment, dataset: Dataset) -> None:
    views, cache = augment.views, teacher["cache"]
    require(views is None or views >= 0, "augment.views", "must be null or at least 0", views)
    require(
        teacher["precision"] in PRECISIONS,
        "teacher.precision",
        f"must be one of {', '.join(PRECISIONS)}",
        teacher["precision"],
    )
    require(
        re.fullmatch(CACHE_MODES, str(cache)) is not None,
        "teacher.cache",
        "must be none, views:K, per_epoch or unaugmented",
        cache,
    )
    require(
        teacher["cache_precision"] in ("fp16", "fp32"),
        "teacher.cache_precision",
        "must be fp16 or fp32",
        teacher["cache_precision"],
    )
    require(teacher["cache_max_gb"] > 0, "teacher.cache_max_gb", "must be > 0", teacher["cache_max_gb"])
    top_k = teacher["cache_top_k"]
    require(top_k is None or top_k >= 1, "teacher.cache_top_k", "must be null or at least 1", top_k)
    if cache == "none" or views == 0:
        return
    require(
        dataset.class_sampling is None,
        "teacher.cache",
        "must be none or unaugmented with dataset.class_sampling, which draws views of its own",
        cache,
    )
    for transform in augment.transforms:
        rule = f"must be none or unaugmented with {transform['_target_']}, whose partners depend on the batch"
        mixes = getattr(target(transform, "transform"), "mixes_samples", False)
        require(not mixes, "teacher.cache", rule, cache)
