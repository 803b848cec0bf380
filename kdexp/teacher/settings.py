"""Settings of conf/teacher and their rules."""

import re
from collections.abc import Callable

from omegaconf import OmegaConf

from kdexp.config.require import Values, check_choice_or_auto, is_count, is_number, require
from kdexp.training.settings import PRECISIONS, check_rate


def cached_views(mode: str) -> int | None:
    """What ``teacher.cache=MODE`` makes of ``augment.views``."""
    if re.fullmatch(CACHE_MODES, mode) and mode.startswith("views:"):
        return int(mode.removeprefix("views:"))
    return 0 if mode == "unaugmented" else None


CACHE_MODES = r"none|per_epoch|unaugmented|views:[1-9]\d*"
NO_FILES = ("auto", "pretrained", "built", "random")
"""Values of a teacher's ``weights`` that are no paths."""
# Keys of a teacher besides its network: how it is trained, run and cached. Members of an ensemble have the first seven.
TEACHER_KEYS = (
    "weights",
    "weights_key",
    "rename",
    "classes",
    "mean",
    "std",
    "recipe",
    "precision",
    "cache",
    "cache_precision",
    "cache_top_k",
    "cache_max_gb",
)


def check_teacher(name: str, teacher: Values) -> None:
    """Refuse settings of one teacher: its weights, its recipe."""
    weights, recipe = teacher["weights"], teacher["recipe"]
    require(isinstance(weights, str), f"{name}.weights", "must be auto, pretrained, built, random or a file", weights)
    rule = "must not be random for a network whose folder gives its weights"
    require(weights != "random" or not teacher.get("folder"), f"{name}.weights", rule, weights)
    rule = "must be built for a teacher that is a file"
    require(weights == "built" or not teacher.get("file"), f"{name}.weights", rule, weights)
    classes = teacher.get("classes")
    require(classes is None or isinstance(classes, str), f"{name}.classes", "must be null or a file", classes)
    rule = "must be null for a teacher that is trained here, on the data set's classes"
    require(classes is None or weights != "auto", f"{name}.classes", rule, classes)
    key, rename = teacher.get("weights_key"), teacher.get("rename") or {}
    require(key is None or isinstance(key, str), f"{name}.weights_key", "must be null or the name of an entry", key)
    require(OmegaConf.is_dict(rename) or rename == {}, f"{name}.rename", "must be new names by old ones", rename)
    for old, new in rename.items():
        require(
            isinstance(new, str) and _is_pattern(old),
            f"{name}.rename",
            "must be replacements of regular expressions",
            f"{old!r}: {new!r}",
        )
    require(
        not (key or rename) or weights not in NO_FILES,
        f"{name}.weights",
        "must be a file with weights_key or rename",
        weights,
    )
    for setting in ("max_epochs", "batch_size"):
        require(is_count(recipe[setting]), f"{name}.recipe.{setting}", "must be at least 1", recipe[setting])
    # Of numbers without a type of their own; a recipe of an older kdexp lacks some.
    shares: tuple[tuple[str, str, Callable[[float], bool]], ...] = (
        ("train_fraction", "must be in (0, 1]", lambda value: 0 < value <= 1),
        ("label_noise", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("unlabeled_fraction", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("label_smoothing", "must be in [0, 1)", lambda value: 0 <= value < 1),
        ("imbalance_ratio", "must be >= 1", lambda value: 1 <= value < float("inf")),
        ("gradient_clip_val", "must be null or > 0", lambda value: value > 0),
        ("seed", "must be in [0, 2^63)", lambda value: 0 <= value < 2**63 and isinstance(value, int)),
        ("subset_seed", "must be in [0, 2^63)", lambda value: 0 <= value < 2**63 and isinstance(value, int)),
    )
    for setting, rule, holds in shares:
        value = recipe.get(setting)
        require(value is None or (is_number(value) and holds(value)), f"{name}.recipe.{setting}", rule, value)
    precision = recipe.get("precision", "32-true")
    require(precision in PRECISIONS, f"{name}.recipe.precision", f"must be one of {', '.join(PRECISIONS)}", precision)
    check_rate(f"{name}.recipe.optimizer", recipe["optimizer"])
    check_choice_or_auto(f"{name}.recipe.channels_last", recipe["channels_last"])
    scheme = recipe.get("scheme") or {}
    require(
        not scheme or scheme.get("teacher") == "none",
        f"{name}.recipe.scheme",
        "must be null or a scheme without a teacher (pgd_at, trades)",
        scheme.get("name"),
    )


def _is_pattern(text: str) -> bool:
    try:
        re.compile(text)
    except (re.error, TypeError):
        return False
    return True
