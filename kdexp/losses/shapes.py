"""Shapes that must fit: PyTorch broadcasts many that do not, and gives a wrong loss without a word."""

from collections.abc import Sequence

import torch
from torch import Tensor

from kdexp.contracts import Task


def check_shapes(patterns: str, /, **tensors: Tensor) -> None:
    """Refuse tensors whose shapes do not follow their patterns.

        check_shapes("N C H W, N C H W, C", student_maps=student_maps, teacher_maps=teacher_maps, margin=margin)

    Shapes alone are read, never values, so that torch.func.vmap and torch.compile(fullgraph=True) work through it.

    Args:
        patterns: one for each tensor, with a word for each dimension. A number is that size, ``any`` is any size, and
            another word is one size wherever it stands. The last word may be ``...``, further dimensions that are the
            same wherever it stands, or ``*``, any further dimensions.
        tensors: by the names that the message has for them.

    Raises:
        ValueError: a shape that does not fit its pattern together with the shapes before it.
    """
    known: _Known = {}
    for pattern, (name, tensor) in zip(patterns.split(","), tensors.items(), strict=True):
        words = pattern.split()
        if not _fits(tensor.shape, words, name, known):
            raise ValueError(f"{name} must have shape {_rule(words, name, known)}, got {tuple(tensor.shape)}")


# Word -> its size, and the tensor that has it.
_Known = dict[str, tuple[object, str]]


def _fits(shape: Sequence[int], words: Sequence[str], name: str, known: _Known) -> bool:
    *words, rest = words if words[-1] in ("...", "*") else (*words, "")
    if len(shape) < len(words) or (len(shape) > len(words) and not rest):
        return False
    for word, size in zip(words, shape, strict=False):
        if word != "any" and (int(word) if word.isdigit() else known.setdefault(word, (size, name))[0]) != size:
            return False
    further = tuple(shape[len(words) :])
    return rest != "..." or known.setdefault(rest, (further, name))[0] == further


def _rule(words: Sequence[str], name: str, known: _Known) -> str:
    sources: dict[str, list[str]] = {}
    for word in words:
        size, source = known.get(word, ((), name))
        if source != name and size != ():
            sources.setdefault(source, []).append(f"{word} = {size}")
    given = " and ".join(f"{', '.join(sizes)} of {source}" for source, sizes in sources.items())
    shape = ", ".join(words) + ("," if len(words) == 1 else "")
    return f"({shape}) with {given}" if given else f"({shape})"


def check_logits(task: Task, **logits: Tensor) -> None:
    """Refuse logits that are not all of one shape (N, C, ...), with C = 1 for the binary task.

    Raises:
        ValueError: another shape.
    """
    pattern = "N 1 ..." if task == "binary" else "N C ..."
    check_shapes(",".join([pattern] * len(logits)), **logits)


def check_scalars(**values: float | Tensor) -> None:
    """Refuse tensors with dimensions where one number is wanted.

    Raises:
        ValueError: a tensor that is not a scalar.
    """
    for name, value in values.items():
        if isinstance(value, Tensor) and value.ndim:
            raise ValueError(f"{name} must be a scalar, got shape {tuple(value.shape)}")


def check_target(target: Tensor, shape: Sequence[int], task: Task) -> None:
    """Refuse a target that does not belong to the logits.

    Args:
        target: multiclass: int64 (N, ...), or a float of the logits' shape after mixup. binary: (N, ...), or the
            logits' shape, of any dtype. multilabel: the logits' shape, of any dtype.
        shape: of the network's logits, (N, C, ...).
        task: what they mean.

    Raises:
        ValueError: another shape, or for class numbers another dtype.
    """
    shape = tuple(shape)
    numbers = (shape[0], *shape[2:])
    found = tuple(target.shape)
    if task == "multiclass":
        fits = found == (shape if target.is_floating_point() else numbers)
        fits = fits and (target.is_floating_point() or target.dtype == torch.int64)
        rule = f"int64 class numbers {numbers}, or after mixup floats {shape}"
    elif task == "binary":
        fits, rule = found in (numbers, shape), f"{numbers} or {shape}"
    else:
        fits, rule = found == shape, f"{shape}"
    if not fits:
        raise ValueError(f"target must be {rule}, got {str(target.dtype).removeprefix('torch.')} {found}")
