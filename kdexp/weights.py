"""Weights in files: kdexp's own, and the forms in which others save theirs; a pickle that could run code is refused."""

import argparse
import hashlib
import json
import pickle
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdexp.atomic import atomic_path

METADATA = "kdexp"
"""Key in the header of a .safetensors file."""

Rules = Sequence[tuple[str, str]]
"""Regular expressions and their replacements, applied to a name one after the other."""

# Where checkpoints keep a network's weights, the likeliest first.
_LEVELS = ("state_dict", "model_state_dict", "model", "net", "network", "student")
_SHOWN = 4  # names of each side in a message


def state_digest(network: nn.Module) -> str:
    """SHA-256 of a network's weights and buffers, as hex digits."""
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def save_weights(network: nn.Module, path: Path, description: Mapping[str, object] | None = None) -> None:
    """Write a network's state as .safetensors, atomically.

    Args:
        network: the network.
        path: of the file.
        description: of the network, plain values, for the file's header: JSON under the one key `METADATA` (safetensors
            writes several keys in any order, and the file's checksum would change from run to run).
    """
    state = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in network.state_dict().items()}
    metadata = {METADATA: json.dumps(description, sort_keys=True)} if description else None
    with atomic_path(path) as temporary:
        save_file(state, temporary, metadata)


def load_weights(
    network: nn.Module,
    path: Path,
    setting: str,
    *,
    prefix: str | None = None,
    key: str | None = None,
    rename: Mapping[str, str] | None = None,
    dialects: Mapping[str, Rules] | None = None,
) -> str:
    """Fill a network from a file, whoever wrote it.

    Looked for are tensors with the network's names: at the top of the file or one level below it; after one prefix that
    all of them share (``module.``, ``model.``, ``_orig_mod.``, ...), if any; under the network's own names or those of
    a dialect. No other tensor may have the prefix, so that a part of a deeper network is not taken for the whole of
    this one. What else the file holds (an optimizer, a teacher beside the student) does not matter. A batch norm's
    count of batches may be missing.

    Args:
        network: the network to fill, in place.
        path: .safetensors; or a file of torch.save's, read with ``weights_only=True``: tensors, plain values, NumPy
            scalars and argparse's namespaces. A pickle with anything else is refused, not run.
        setting: the config key that named the file, for messages.
        prefix: of the names in the file; None: whatever fits. Of several that fit, ``student.`` comes first, averaged
            weights (``ema``) and ``teacher.`` come last.
        key: the entry of the file that holds the weights, ``a.b`` for one within another or for the names of entry a
            that begin with ``b.``; None: whatever fits, averaged weights last.
        rename: regular expression -> replacement, applied to the names in the file.
        dialects: name -> rules that turn the names of other people's code into those of the network.

    Returns:
        How the file was read, in words, and what else in it fits; empty where the names stood at its top as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, holds no plain weights, or those of another architecture.
    """
    content = _read(path, setting)
    wanted = network.state_dict()
    free = _of_any_size(network)
    entries = {key: _entry(content, key, path, setting)} if key else _levels(content)
    levels = {level: _renamed(state, tuple((rename or {}).items())) for level, state in entries.items()}
    named: list[_Fit] = []
    for place, (level, state) in enumerate(levels.items()):
        named += _fits(state, wanted, free, prefix, dialects or {}, level, place)
    fits = [fit for fit in named if not fit.misshapen]
    if not fits:
        reason = named[0].misshapen if named else _names(content, levels, wanted, setting)
        raise ValueError(f"{setting} must hold the weights of this network, got {path} {reason}")
    best = min(fits, key=lambda fit: fit.rank)
    others = [f"{setting}_key={fit.place}" for fit in fits if fit.place != best.place]
    for fit in fits:
        if fit.rank == best.rank and fit.prefix != best.prefix:
            raise ValueError(
                f"{setting} must hold one network of this architecture, got two in {path}, {best.prefix!r} and "
                f"{fit.prefix!r}: choose with {setting}_key={best.place} or {others[0]}"
            )
    network.load_state_dict({**wanted, **best.weights})
    return best.words + (f" ({', '.join(dict.fromkeys(others))} would fit too)" if others else "")


@dataclass(frozen=True)
class _Fit:
    """A part of a file that has the names of a network.

    Attributes:
        weights: under the network's own names.
        level: the entry of the file.
        prefix: of the names there.
        dialect: in which they were.
        rank: the smaller the likelier.
        misshapen: what is wrong with the shapes; empty where they fit.
    """

    weights: Mapping[str, Tensor]
    level: str
    prefix: str
    dialect: str
    rank: tuple[int, int]
    misshapen: str

    @property
    def place(self) -> str:
        """Where it is in the file, as a key."""
        return f"{self.level}.{self.prefix}".strip(".")

    @property
    def words(self) -> str:
        """How it was read."""
        words = [f"the entry {self.level}"] if self.level else []
        words += [f"without the prefix {self.prefix}"] if self.prefix else []
        words += [f"with the names of {self.dialect}"] if self.dialect else []
        return ", ".join(words)


def _read(path: Path, setting: str) -> Mapping[str, object]:
    if not path.is_file():
        raise FileNotFoundError(f"{setting} must be an existing file, got {path}")
    try:
        if path.suffix == ".safetensors":
            content: object = load_file(path)
        else:
            with torch.serialization.safe_globals(_plain_globals()):
                content = torch.load(path, "cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{setting} must hold plain weights (a pickle with other objects is not run), got {path}"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{setting} must be a whole file of weights, got {path}: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"{setting} must hold a state dict, got {path} with a {type(content).__name__}")
    return content


def _plain_globals() -> list[Callable[..., object] | tuple[Callable[..., object], str]]:
    """What a pickle of plain values may name besides what torch allows: NumPy's numbers and argparse's namespaces."""
    numbers = [np.dtype(code) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"]
    scalar: Any = np.float64(0).__reduce__()[0]
    names = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")  # before and since NumPy 2
    return [argparse.Namespace, np.dtype, *{type(number) for number in numbers}, *((scalar, name) for name in names)]


def _levels(content: Mapping[str, object]) -> dict[str, Mapping[str, object]]:
    """The entry's name -> mappings that may hold the weights, the likeliest first."""

    def place(name: str) -> tuple[bool, int]:
        return "ema" in name, _LEVELS.index(name) if name in _LEVELS else len(_LEVELS)

    entries = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Mapping)}
    return {"": content, **{name: entries[name] for name in sorted(entries, key=place)}}


def _entry(content: Mapping[str, object], key: str, path: Path, setting: str) -> Mapping[str, object]:
    entry = content
    names = key.split(".")
    for depth, name in enumerate(names):
        inner = entry.get(name)
        if not isinstance(inner, Mapping):
            prefix = ".".join(names[depth:]) + "."
            inside = {text.removeprefix(prefix): entry[text] for text in entry if str(text).startswith(prefix)}
            if inside:
                return inside
            has = ", ".join(map(str, list(entry)[:_SHOWN])) or "no entries"
            raise ValueError(f"{setting}_key must name an entry with weights, got {key!r} for {path}, which has {has}")
        entry = inner
    return dict(entry)


def _renamed(state: Mapping[str, object], rules: Rules) -> dict[str, Tensor]:
    """The tensors of an entry, by their names after the rules."""
    renamed = {}
    for name, tensor in state.items():
        if isinstance(name, str) and isinstance(tensor, Tensor):
            for pattern, replacement in rules:
                name = re.sub(pattern, replacement, name)
            renamed[name] = tensor
    return renamed


def _fits(
    state: Mapping[str, Tensor],
    wanted: Mapping[str, Tensor],
    free: set[str],
    only: str | None,
    dialects: Mapping[str, Rules],
    level: str,
    place: int,
) -> Iterator[_Fit]:
    counters = {name for name in wanted if name.endswith(".num_batches_tracked")}
    for prefix, count in _prefixes(state).items():
        if only not in (None, prefix) or count not in (len(wanted), len(wanted) - len(counters)):
            continue
        inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        for dialect, rules in {"": (), **dialects}.items():
            weights = _renamed(inside, rules)
            if weights.keys() in (wanted.keys(), wanted.keys() - counters):
                wrong = [name for name in weights if name not in free and wanted[name].shape != weights[name].shape]
                misshapen = [
                    f"with {name!r} of shape {tuple(weights[name].shape)} instead of {tuple(wanted[name].shape)}"
                    for name in wrong
                ]
                yield _Fit(weights, level, prefix, dialect, (place, _preference(prefix)), "".join(misshapen[:1]))
                break


def _of_any_size(network: nn.Module) -> set[str]:
    """Buffers that take the shape of what is loaded: vocabularies."""
    return {
        f"{path}.{name}".removeprefix(".")
        for path, module in network.named_modules()
        for name in getattr(module, "any_size", ())
    }


def _prefixes(state: Mapping[str, Tensor]) -> Counter[str]:
    """How many tensors have each prefix that ends in a dot; "" among them."""
    count: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")[:-1]
        count.update("".join(f"{part}." for part in parts[:depth]) for depth in range(len(parts) + 1))
    return count


def _preference(prefix: str) -> int:
    if prefix in ("", "student."):
        return 0 if not prefix else 1
    return 4 if "teacher" in prefix else 3 if "ema" in prefix else 2


def _names(
    content: Mapping[str, object],
    levels: Mapping[str, Mapping[str, Tensor]],
    wanted: Mapping[str, Tensor],
    setting: str,
) -> str:
    """Why nothing in a file has the names of a network, with the first names of both sides."""
    names = list(dict.fromkeys(name for state in levels.values() for name in state))
    for name in names:
        for state in levels.values():
            if name in wanted and name in state and state[name].shape != wanted[name].shape:
                return f"with {name!r} of shape {tuple(state[name].shape)} instead of {tuple(wanted[name].shape)}"
    missing = [name for name in wanted if name not in names][:_SHOWN]
    unknown = [name for name in names if name not in wanted][:_SHOWN]
    part = setting.rpartition(".")[0]
    found = (
        f"without {', '.join(missing) or 'nothing'}, with {', '.join(unknown) or 'nothing else'} (entries "
        f"{', '.join(map(str, list(content)[:_SHOWN]))})"
    )
    hint = f": {part}.weights_key names the entry that holds them, {part}.rename turns names into the network's own"
    return found + (hint if part else "")
