"""Keys of older files: read under the names of today, and written back when an identity is made of them.

What is renamed here is renamed everywhere else; no other module knows an old name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from kdexp.config.require import Values

_SCHEMES: Mapping[str, Mapping[str, str]] = {
    "teacher_assistant": {"_target_": "kdexp.schemes.teacher_assistant.TeacherAssistant"},
    "born_again": {"_target_": "kdexp.schemes.born_again.BornAgain"},
    "cross_domain": {"_target_": "kdexp.schemes.cross_domain.CrossDomain"},
    "mutual": {"_target_": "kdexp.schemes.mutual.Mutual", "teacher": "own"},
    "ema": {"_target_": "kdexp.schemes.ema.EMA", "teacher": "own"},
    "pgd_at": {"_target_": "kdexp.schemes.pgd_at.PGDTraining", "teacher": "none"},
    "trades": {"_target_": "kdexp.schemes.trades.TRADES", "teacher": "none"},
    "ard": {"_target_": "kdexp.schemes.ard.ARD"},
    "rslad": {"_target_": "kdexp.schemes.rslad.RSLAD"},
    "iad": {"_target_": "kdexp.schemes.iad.IAD"},
    "adaad": {"_target_": "kdexp.schemes.adaad.AdaAD"},
}
"""The schemes that files know by their name alone: those that are older than `_target_`. Newer ones are not added."""


_CLASSIFICATION = {"_target_": "kdexp.tasks.classification.Classification"}
"""The task of files that are older than tasks."""


@dataclass(frozen=True, eq=False)
class _Renamed:
    """Names that have changed.

    Attributes:
        place: a regular expression for where they stand: of a part of a configuration or, for values, of a setting.
        names: old -> new.
        owner: how the ``_target_`` of such a part begins; those of others have names of their own.
    """

    place: str
    names: Mapping[str, str]
    owner: str = ""


_KEYS = (
    _Renamed(
        r"\.scheduler$",
        {"milestones": "milestone_fractions", "warmup": "warmup_ratio", "final": "min_lr_ratio"},
        owner="kdexp.schedules.",
    ),
    _Renamed(r"\.(dataset|scheme\.source)$", {"resample": "class_sampling", "task": "kind"}),
    _Renamed(
        r"\.robustness$",
        {
            "resamples": "n_resamples",
            "confidence": "confidence_level",
            "noise_dose": "noise_levels",
            "features": "representations",
        },
    ),
    _Renamed(r"\.robustness\.attacks$", {"features_scale": "tabular_eps_scale"}, owner="kdexp."),
    _Renamed(r"\.robustness\.(features|representations)$", {"neighbours": "n_neighbors"}, owner="kdexp."),
    _Renamed(r"\.robustness\.(corruptions|noise_dose|noise_levels)\.kinds$", {"feature_noise": "tabular_noise"}),
    _Renamed(r"\.robustness\.noise_(dose|levels)\.kinds\.[^.]+$", {"doses": "levels"}, owner="kdexp."),
    _Renamed(r"\.robustness\.attacks\.kinds\.[^.]+$", {"step": "rel_stepsize"}),
    _Renamed(r"\.attack$", {"step_size": "abs_stepsize"}),  # of a scheme; and of a condition, in its key
    _Renamed(r"\.hydra\.sweeper$", {"trials": "n_trials", "seeds": "final_seeds"}, owner="hydra_plugins.kdexp."),
    _Renamed(r"\.(loss|feature_loss\.[^.]+)$", {"alone": "init_fraction", "after": "weight_after_init"}),
    _Renamed(r"\.(loss|feature_loss\.[^.]+|(dataset|scheme\.source)\.source)$", {"task": "kind"}, owner="kdexp."),
)
_CORRUPTION = "kdexp.robustness.corruption"
_VALUES = (
    _Renamed(r"\.teacher\.cache$", {"exact": "per_epoch", "static": "unaugmented"}),
    _Renamed(r"\.label_noise_kind$", {"pair": "pairflip"}),
    _Renamed(r"^\.control$", {"auto": "train", "none": "skip"}),  # of kdexp-eval
    _Renamed(r"^\.(choices\.)?robustness$", {"noise_dose": "noise_levels", "features": "representations"}),
    _Renamed(r"^\.corruption$", {"feature_noise": "tabular_noise"}),
    _Renamed(r"\.robustness\.\w+\.kinds\.[^.]+\.applies_to$", {"features": "tabular"}),
    _Renamed(
        r"\.robustness\.noise_(dose|levels)\.kinds\.[^.]+\._target_$",
        {f"{_CORRUPTION}.DoseCurve": f"{_CORRUPTION}.LevelCurve"},
    ),
)


def upgrade(values: Values) -> dict[str, Any]:
    """A configuration from a file with the keys of today; one of today is returned as it is.

    Args:
        values: a configuration or a part of one, in plain values.
    """
    renamed = _with_names(values, "", lambda names: names)
    if "alpha_schedule" in renamed and not renamed.get("task"):  # a whole configuration
        renamed["task"] = dict(_CLASSIFICATION)
    if isinstance(renamed.get("trainer"), Mapping):
        renamed["trainer"] = {"max_steps": None, **renamed["trainer"]}
    return _with_schemes(renamed, lambda scheme: scheme if "_target_" in scheme else {**_added(scheme), **scheme})


def upgrade_override(text: str) -> str:
    """``SETTING=VALUE``, as somebody typed it for an older kdexp, with the names of today."""
    key, equals, value = text.partition("=")
    path = key.lstrip("+~")
    new, words = new_name({}, path) or path, _names(_VALUES, f".{path.partition('@')[0]}", {})
    value = words.get(value) or re.sub(r"\w+", lambda word: words.get(word[0], word[0]), value)  # a list, or a sweep
    return key.removesuffix(path) + new + equals + value


def before(values: Values) -> dict[str, Any]:
    """A configuration with the keys that it had before `upgrade`: what fingerprints and teachers' keys are made of.

    Args:
        values: a configuration or a part of one, in plain values.
    """
    older = _with_names(without_added(values), "", lambda names: {new: old for old, new in names.items()})
    return _with_older_paths(older)


def without_added(values: Values) -> dict[str, Any]:
    """A configuration without the keys that `upgrade` adds.

    Args:
        values: a configuration or a part of one, in plain values.
    """
    older = {k: v for k, v in values.items() if (k, v) != ("task", _CLASSIFICATION)}
    if isinstance(older.get("trainer"), Mapping):
        older["trainer"] = {k: v for k, v in older["trainer"].items() if (k, v) != ("max_steps", None)}
    if "dataset" in older:
        older["dataset"] = _older_dataset(older["dataset"])
    if isinstance(older.get("feature_loss"), Mapping):
        older["feature_loss"] = {name: _without_default(loss) for name, loss in older["feature_loss"].items()}
    return _with_schemes(older, _older)


def _older_dataset(dataset: Any) -> Any:
    """A data set as it was before it said for how many epochs it is trained on, and a table had texts or groups."""
    if not isinstance(dataset, Mapping):
        return dataset
    older = {key: value for key, value in dataset.items() if key != "default_epochs"}
    source = older.get("source")
    if isinstance(source, Mapping):
        unset = [key for key in ("text", "group") if source.get(key, "") is None]
        older["source"] = {key: value for key, value in source.items() if key not in unset}
    return older


def _without_default(loss: Values) -> Values:
    return {k: v for k, v in loss.items() if (k, v) != ("of_logits", False)}


def new_name(values: Values, setting: str) -> str | None:
    """What a setting is called today that somebody calls by its old name; None of all others.

    Args:
        values: the configuration that it is to be a part of.
        setting: its place in it, with dots.
    """
    node: Any = values
    place, new = "", ""
    for name in setting.split("."):
        today = _names(_KEYS, place, node).get(name, name)
        place, new = f"{place}.{name}", f"{new}.{today}"
        node = node.get(today, {}) if isinstance(node, Mapping) else {}
    return new[1:] if new != place else None


def new_option(group: str, option: str) -> str | None:
    """What an option is called today that somebody calls by its old name; None of all others."""
    return _names(_VALUES, f".{group}", {}).get(option)


def refuse_setting(setting: str) -> None:
    """See that the name of a setting, with dots, is no old one.

    Raises:
        ValueError: one line with the new name.
    """
    new = new_name({}, setting)
    if new is not None:
        raise ValueError(f"there is no setting {setting}; did you mean {new}?")


def refuse_value(setting: str, value: str) -> None:
    """See that the value of a setting, or an option of a group, has no old name.

    Raises:
        ValueError: one line with the new name.
    """
    new = new_option(setting, value)
    if new is not None:
        raise ValueError(f"there is no {setting}={value}; did you mean {setting}={new}?")


def refuse(values: Values, place: str = "") -> None:
    """See that nobody has typed an old name, or a yaml of their own has one.

    Args:
        values: a configuration in plain values, which need not be resolved.
        place: where it stands in another one.

    Raises:
        ValueError: one line with the new name.
    """
    names = _names(_KEYS, place, values)
    for key, value in values.items():
        where = f"{place}.{key}"
        if key in names:
            new = f"{place}.{names[key]}"
            raise ValueError(f"there is no setting {where[1:]}; did you mean {new[1:]}?")
        if isinstance(value, Mapping):
            refuse(value, where)
        elif isinstance(value, str):
            refuse_value(where[1:], value)


def _names(table: tuple[_Renamed, ...], place: str, node: Any) -> Mapping[str, str]:
    target = str(node.get("_target_", "")) if isinstance(node, Mapping) else ""
    found: dict[str, str] = {}
    for entry in _entries(table, place):
        if not target or target.startswith(entry.owner):
            found |= entry.names
    return found


@lru_cache(maxsize=4096)
def _entries(table: tuple[_Renamed, ...], place: str) -> list[_Renamed]:
    return [entry for entry in table if re.search(entry.place, place)]


def _with_names(node: Values, place: str, turned: Callable[[Mapping[str, str]], Mapping[str, str]]) -> dict[str, Any]:
    """A copy with the keys and values renamed.

    Args:
        node: a configuration or a part of one.
        place: where it stands.
        turned: old -> new as it is, or the other way round.
    """
    names, found = turned(_names(_KEYS, place, node)), {}
    for key, value in node.items():
        where = f"{place}.{key}"
        if isinstance(value, Mapping):
            value = _with_names(value, where, turned)
        elif isinstance(value, str):
            value = turned(_names(_VALUES, where, {})).get(value, value)
        found[names.get(key, key)] = value
    return found


def _with_older_paths(node: Values) -> dict[str, Any]:
    """A copy with the older paths of prior runs' students and the older names in interpolations."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            value = _with_older_paths(value)
        elif key == "weights" and isinstance(value, str):
            value = re.sub(r"(^|/)prior_runs(?=/[^/]+/student\.safetensors$)", r"\1steps", value)
        elif isinstance(value, str):
            value = re.sub(r"(?<=\$\{)(dataset\.|kdexp\.inferred:)kind(?=\})", r"\1task", value)
        found[key] = value
    return found


def _older(scheme: Values) -> Values:
    added = _added(scheme)
    if "source" in scheme:  # a data set of its own
        scheme = {**scheme, "source": _older_dataset(scheme["source"])}
    is_upgraded = all(scheme.get(key) == value for key, value in added.items())
    return {key: value for key, value in scheme.items() if key not in added} if is_upgraded else scheme


def _added(scheme: Values) -> Mapping[str, str]:
    return _SCHEMES.get(str(scheme.get("name")), {})


def _with_schemes(node: Values, change: Callable[[Values], Values]) -> dict[str, Any]:
    """A copy with each scheme changed: the run's, and those of teachers' recipes."""
    found: dict[str, Any] = {}
    for key, value in node.items():
        if isinstance(value, Mapping):
            found[key] = dict(change(value)) if key == "scheme" else _with_schemes(value, change)
        else:
            found[key] = value
    return found
