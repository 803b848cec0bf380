"""Teachers whose classes are in another order than the data set's, or are other ones."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from kdexp.atomic import read_json
from kdexp.contracts import Kind
from kdexp.teacher.probabilities import FLOOR
from kdexp.teacher.saved_outputs import SavedOutputs

_ORDER = "class_order"
_LARGEST = 2**20  # bytes of a mapping file


def read(path: Path, outputs: int, classes: Sequence[str], names: Sequence[str] | None) -> list[int]:
    """The teacher's output of each class of the data set; -1 where it has none.

    Args:
        path: json or yaml, a list of the data set's classes in the order of the teacher's outputs, null for an output
            that is none of them; or a mapping, teacher's class -> data set's class, also as a csv file of two columns.
            Classes are names or numbers from 0; outputs of the teacher that are not named are left out.
        outputs: of the teacher.
        classes: names of the data set's.
        names: of the teacher's outputs, where it knows them.

    Raises:
        ValueError: it is no such file, or names a class that is not there, or one twice; the message begins with what
            has to be.
    """
    content = _content(path)
    pairs = list(enumerate(content)) if isinstance(content, list) else list(content.items())
    if isinstance(content, list) and len(content) != outputs:
        raise ValueError(f"must have a class or null for each of the teacher's {outputs} outputs, got {len(content)}")
    order = [-1] * len(classes)
    used: set[int] = set()
    for of_teacher, of_data in pairs:
        if of_data is None:
            continue
        output = _number(of_teacher, names or [], outputs, "the teacher")
        place = _number(of_data, classes, len(classes), "the data set")
        if order[place] >= 0 or output in used:
            raise ValueError(f"must name each class once, got {of_teacher}: {of_data} again in {path}")
        order[place] = output
        used.add(output)
    if sum(output >= 0 for output in order) < min(2, len(classes)):
        raise ValueError(f"must name at least two classes of the data set, got {path}")
    return order


def _content(path: Path) -> list[object] | Mapping[object, object]:
    if path.suffix not in (".json", ".yaml", ".yml", ".csv") or not path.is_file() or path.stat().st_size > _LARGEST:
        raise ValueError(f"must be an existing json, yaml or csv file of at most {_LARGEST // 2**20} MB, got {path}")
    try:
        if path.suffix == ".json":
            content = read_json(path)
        elif path.suffix == ".csv":
            with path.open(newline="", encoding="utf-8") as file:
                content = {row[0]: row[1] for row in csv.reader(file) if len(row) == 2}
        else:
            from yaml import YAMLError, safe_load

            try:
                content = safe_load(path.read_text(encoding="utf-8"))
            except (YAMLError, RecursionError) as error:
                raise ValueError(" ".join(str(error).split())) from error
    except (ValueError, OSError, csv.Error) as error:
        raise ValueError(f"must be a whole {path.suffix[1:]} file, got {path}: {error!s:.200}") from error
    if not isinstance(content, list | dict) or not content:
        raise ValueError(f"must be a list of classes, or classes by classes, got {type(content).__name__} in {path}")
    return content


def _number(said: object, names: Sequence[str], count: int, whose: str) -> int:
    """The number of a class, which may be a number as text."""
    text = str(said)
    if text in names:
        return list(names).index(text)
    if not isinstance(said, bool) and text.isdecimal() and int(text) < count:
        return int(text)
    known = f"a name or a number up to {count - 1}" if names else f"a number up to {count - 1}"
    raise ValueError(f"must name classes of {whose} by {known}, got {text!r:.60}")


def map_classes(network: nn.Module, order: Sequence[int], kind: Kind) -> None:
    """From now on a network gives its logits in the order of the data set's classes; see `known_classes`.

    A class that it does not know has the probability `FLOOR` at T = 1: beside all others together (multiclass), or by
    itself. For a binary data set two logits become one, their difference, and of a single one the sign is turned.

    Args:
        network: changed in place: it gets a hook, and the buffer ``class_order``, by which its weights' digest differs.
        order: see `read`.
        kind: of the data set's logits.
    """
    network.register_buffer(_ORDER, torch.tensor(order))
    module = network.rows if isinstance(network, SavedOutputs) else network
    module.register_forward_hook(_Mapping(order, kind))


class _Mapping:
    def __init__(self, order: Sequence[int], kind: Kind) -> None:
        self._order, self._kind = list(order), kind

    def __call__(self, module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        logits = output.float()
        if self._kind == "binary":
            if logits.shape[1] == 1:
                return logits if self._order == [0, 1] else -logits
            no, yes = (logits[:, place : place + 1] for place in self._order)
            return yes - no
        known = [place for place in self._order if place >= 0]
        kept = logits.index_select(1, torch.tensor(known, device=logits.device))
        if len(known) == len(self._order):
            return kept
        if self._kind == "multiclass":
            other = kept.logsumexp(1, keepdim=True) + math.log(FLOOR)
        else:
            other = torch.full_like(kept[:, :1], math.log(FLOOR / (1 - FLOOR)))
        places = [known.index(place) if place >= 0 else len(known) for place in self._order]
        return torch.cat([kept, other], 1).index_select(1, torch.tensor(places, device=logits.device))


def known_classes(networks: Sequence[nn.Module]) -> list[int] | None:
    """The numbers of the data set's classes that all of a teacher's networks know; None: all of them."""
    orders = [getattr(network, _ORDER, None) for network in networks]
    known = [order >= 0 for order in orders if isinstance(order, Tensor)]
    if not known or all(bool(each.all()) for each in known):
        return None
    found: list[int] = torch.stack(known).all(0).nonzero().flatten().tolist()
    return found
