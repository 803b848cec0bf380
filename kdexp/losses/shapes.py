"""Shapes that must fit: PyTorch broadcasts many that do not, and gives a wrong loss without a word."""

from collections.abc import Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from kdexp.contracts import Kind


def check_shapes(patterns: str, method: str = "", /, **tensors: Tensor) -> None:
    """Refuse tensors whose shapes do not follow their patterns.

        check_shapes("N C H W, N C H W, C", student_maps=student_maps, teacher_maps=teacher_maps, margin=margin)

    Shapes alone are read, never values, so that torch.func.vmap and torch.compile(fullgraph=True) work through it.

    Args:
        patterns: one for each tensor, with a word for each dimension. A number is that size, ``any`` is any size, and
            another word is one size wherever it stands. The last word may be ``...``, further dimensions that are the
            same wherever it stands, or ``*``, any further dimensions.
        method: the feature distillation loss that wants them, for the message, which then says how to come from maps to
            vectors.
        tensors: by the names that the message has for them.

    Raises:
        ValueError: a shape that does not fit its pattern together with the shapes before it.
    """
    # Shapes recur from step to step: each combination is looked at once.
    check = _check if torch.compiler.is_compiling() else _check_once
    names, shapes = tuple(tensors), tuple([tensor.shape for tensor in tensors.values()])
    try:
        check(patterns, method, names, shapes)
    except TypeError:  # the sizes of a symbolic trace have no hash
        _check(patterns, method, names, shapes)


def _check(patterns: str, method: str, names: tuple[str, ...], shapes: tuple[Sequence[int], ...]) -> None:
    sizes: dict[str, object] = {}
    rules = dict(zip(names, patterns.split(", "), strict=True))
    for name, shape in zip(names, shapes, strict=True):
        words = rules[name].split()
        if not _fits(shape, words, sizes):
            before = {other: rules[other] for other in names[: names.index(name)]}
            message = f"{name} must have shape {_rule(words, before, sizes)}"
            if method:
                raise ValueError(f"{message} for {method}, got {tuple(shape)}{_way(words, shape)}")
            raise ValueError(f"{message}, got {tuple(shape)}")


def _way(words: Sequence[str], shape: Sequence[int]) -> str:
    """How to make vectors of maps, or where to read maps instead of vectors; nothing for any other misfit."""
    if len(words) == 2 and len(shape) == 4:
        return ": .mean((2, 3)) pools maps to vectors, .flatten(1) keeps every position"
    if len(words) == 4 and len(shape) == 2:
        return ": vectors have no positions, read a layer before the pooling"
    return ""


_check_once = lru_cache(maxsize=1024)(_check)


def _fits(shape: Sequence[int], words: Sequence[str], sizes: dict[str, object]) -> bool:
    """Whether a shape follows its words; sizes are those of the words so far, to which it adds its own."""
    count, rest = len(words), words[-1]
    if rest in ("...", "*"):
        count -= 1
        if len(shape) < count:
            return False
        further = tuple(shape)[count:]
        if rest == "..." and sizes.setdefault(rest, further) != further:
            return False
    elif len(shape) != count:
        return False
    for place in range(count):
        word, size = words[place], shape[place]
        if word not in sizes:
            sizes[word] = int(word) if word.isdigit() else size
        if sizes[word] != size and word != "any":
            return False
    return True


def _rule(words: Sequence[str], others: Mapping[str, str], sizes: Mapping[str, object]) -> str:
    """(N, C) with N = 6 of student_logits: the words of a shape, and the others' sizes with the first that has them."""
    sources: dict[str, list[str]] = {}
    for word in words:
        source = next((name for name, pattern in others.items() if word in pattern.split()), None)
        if source is not None and word not in ("any", "*") and not word.isdigit() and sizes[word] != ():
            sources.setdefault(source, []).append(f"{word} = {sizes[word]}")
    given = " and ".join(f"{', '.join(found)} of {source}" for source, found in sources.items())
    shape = ", ".join(words) + ("," if len(words) == 1 else "")
    return f"({shape}) with {given}" if given else f"({shape})"


def check_logits(kind: Kind, **logits: Tensor) -> None:
    """Refuse logits that are not all of one shape (N, C, ...), with C = 1 for the binary kind.

    Raises:
        ValueError: another shape.
    """
    pattern = "N 1 ..." if kind == "binary" else "N C ..."
    check_shapes(", ".join([pattern] * len(logits)), **logits)


def check_scalars(**values: float | Tensor) -> None:
    """Refuse tensors with dimensions where one number is wanted.

    Raises:
        ValueError: a tensor that is not a scalar.
    """
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {tuple(value.shape)}")


def check_target(target: Tensor, shape: Sequence[int], kind: Kind) -> None:
    """Refuse a target that does not belong to the logits.

    Args:
        target: multiclass: int64 (N, ...), or a float of the logits' shape after mixup. binary: (N, ...), or the
            logits' shape, of any dtype. multilabel: the logits' shape, of any dtype.
        shape: of the network's logits, (N, C, ...).
        kind: what they mean.

    Raises:
        ValueError: another shape, or for class numbers another dtype.
    """
    found, shape, positions = tuple(target.shape), tuple(shape), (shape[0], *shape[2:])
    if kind == "multilabel":
        fits = found == shape
    elif kind == "binary":
        fits = found in (positions, shape)
    elif target.is_floating_point():
        fits = found == shape
    else:
        fits = found == positions and target.dtype == torch.int64
    if not fits:
        rules = {
            "multiclass": f"int64 class numbers {positions}, or after mixup floats {shape}",
            "binary": f"{positions} or {shape}",
            "multilabel": f"{shape}",
        }
        raise ValueError(f"target must be {rules[kind]}, got {str(target.dtype).removeprefix('torch.')} {found}")
