"""From a loaded data set to what is trained on, chosen by and reported: subsets, label noise, unlabeled samples."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from kdexp.contracts import UNLABELED, Images, Kind, Source, Split, Splits
from kdexp.data.stateless_rng import RngStream, order, uniform

_NOISES = ("symmetric", "pairflip")
_NAMED = 10  # of the classes in the data, in a message


def make_splits(
    source: Source,
    *,
    kind: Kind,
    num_classes: int,
    input_shape: Sequence[int] | None = None,
    val_fraction: float,
    split_seed: int,
    train_fraction: float = 1.0,
    subset_seed: int = 0,
    imbalance_ratio: float = 1.0,
    label_noise: float = 0.0,
    label_noise_kind: str = "symmetric",
    unlabeled_fraction: float = 0.0,
    check: Callable[[Source, Kind, int, Sequence[int] | None], None] | None = None,
) -> Splits:
    """Split a data set; every count is exact and, where a sample has one class, every choice is stratified by class.

    Validation and test labels are never touched. The order of events: val is taken from train, then a subset of what
    is left, then this is thinned to a long tail, then labels are made wrong, then labels are hidden.

    Args:
        source: as a file of `kdexp.data` loads it.
        kind: what the targets mean.
        num_classes: C, which must be the number of classes found (2 for the binary kind).
        input_shape: what the shape of a sample must be; None: any.
        val_fraction: in (0, 1), the fraction of train that becomes val; not used when the source has an official val.
        split_seed: of the choice of val.
        train_fraction: in (0, 1], the fraction of the rest that is trained on. With the same seeds a smaller subset is
            part of a larger one.
        subset_seed: of the subset, the thinning, the noisy labels and the unlabeled samples.
        imbalance_ratio: >= 1, the size of the largest class over that of the smallest (Cui et al. 2019,
            "Class-Balanced Loss Based on Effective Number of Samples", arXiv 1901.05555, section 5.1; Cao et al. 2019,
            arXiv 1906.07413). Class c of C (from 0) keeps the first ``floor(n_max * ratio^(-c / (C - 1)))`` of its
            samples in the random order that the subset is the beginning of. n_max is the largest size that every class
            has samples for: all of class 0 when the classes are of one size. 1: nothing is thinned, not even where the
            classes differ in size. A smaller train_fraction is still part of a larger one.
        label_noise: in [0, 1], the fraction of training labels that are replaced by a wrong one (Patrini et al. 2017,
            "Making Deep Neural Networks Robust to Label Noise", section 5). Multi-label: the fraction of single entries
            that are inverted.
        label_noise_kind: "symmetric": any of the C - 1 other classes, evenly; "pairflip": class c becomes c + 1 mod C.
        unlabeled_fraction: in [0, 1], the fraction of training labels that become `UNLABELED`. Multi-label: of rows;
            masks: of whole masks, where they have a class.
        check: sees that the targets are what the task needs; None: see `check_source`.

    Returns:
        The three parts.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    _check(label_noise_kind in _NOISES, "label_noise_kind", f"must be {' or '.join(_NOISES)}", label_noise_kind)
    _check_amounts(kind, train_fraction, imbalance_ratio, label_noise, unlabeled_fraction)
    (check or check_source)(source, kind, num_classes, input_shape)
    _check_not_by_class(source.train_target, imbalance_ratio, label_noise, unlabeled_fraction)
    train, val = _train_and_val(source, kind, num_classes, val_fraction, split_seed)
    chosen = _subset(train.target, kind, num_classes, train_fraction, imbalance_ratio, subset_seed)
    target, index = train.target[chosen], train.index[chosen]

    # Which labels are hidden is chosen by the true ones.
    hidden = stratified_order(target, subset_seed, RngStream.HIDDEN)[: round(unlabeled_fraction * len(target))]
    _make_wrong(target, kind, num_classes, label_noise, label_noise_kind, subset_seed)
    _hide(target, hidden)
    return Splits(Split(train.inputs, target, index), val, _whole(source.test_inputs, source.test_target))


def _check_not_by_class(target: Tensor, imbalance_ratio: float, label_noise: float, unlabeled_fraction: float) -> None:
    """Refuse what is done by class, or to labels, where targets are none."""
    if has_labels(target):
        return
    rule = "for targets that are not one label, or a row of labels, a sample"
    _check(imbalance_ratio == 1, "imbalance_ratio", f"must be 1 {rule}", imbalance_ratio)
    _check(label_noise == 0, "label_noise", f"must be 0 {rule}", label_noise)
    hides = not target.is_floating_point() and target.dtype.is_signed
    rule = "must be 0 for targets that are no labels and no masks"
    _check(hides or unlabeled_fraction == 0, "unlabeled_fraction", rule, unlabeled_fraction)


def _subset(
    target: Tensor, kind: Kind, num_classes: int, train_fraction: float, imbalance_ratio: float, seed: int
) -> Tensor:
    """Positions of the samples that are trained on, in ascending order."""
    keep = round(train_fraction * len(target))
    chosen = stratified_order(target, seed, RngStream.SUBSET)[:keep]
    _check_complete("train_fraction", train_fraction, "train", target[chosen], kind, num_classes)
    if imbalance_ratio > 1:
        chosen = chosen[_long_tail(target[chosen], num_classes, imbalance_ratio)]
        _check_complete("imbalance_ratio", imbalance_ratio, "train", target[chosen], kind, num_classes)
    return chosen.sort().values


def _check_amounts(
    kind: Kind, train_fraction: float, imbalance_ratio: float, label_noise: float, unlabeled_fraction: float
) -> None:
    _check(0 < train_fraction <= 1, "train_fraction", "must be in (0, 1]", train_fraction)
    _check(1 <= imbalance_ratio < math.inf, "imbalance_ratio", "must be >= 1", imbalance_ratio)
    rule = "must be 1 with kind=multilabel, where a sample is of several classes"
    _check(kind != "multilabel" or imbalance_ratio == 1, "imbalance_ratio", rule, imbalance_ratio)
    _check(0 <= label_noise <= 1, "label_noise", "must be in [0, 1]", label_noise)
    _check(0 <= unlabeled_fraction <= 1, "unlabeled_fraction", "must be in [0, 1]", unlabeled_fraction)


def has_one_class(target: Tensor) -> bool:
    """Whether a sample's target is the number of its class, (N,) int64."""
    return target.dim() == 1 and not target.is_floating_point()


def has_labels(target: Tensor) -> bool:
    """Whether a sample's target is the number of its class or a row of labels, (N, C) float32."""
    return has_one_class(target) or (target.dim() == 2 and target.is_floating_point())


def are_masks(target: object) -> bool:
    """Whether targets are masks, (N, H, W) class numbers."""
    return isinstance(target, Tensor) and target.dim() == 3 and not target.is_floating_point()


def labelled(target: Tensor) -> Tensor:
    """(N,) bool: which samples have a label, at least in part; all, where targets are no labels."""
    if not target.is_floating_point():
        return (target.flatten(1) if target.dim() > 1 else target.unsqueeze(1)).amax(1) >= 0
    return (target != UNLABELED).any(1) if has_labels(target) else torch.ones(len(target), dtype=torch.bool)


def stratified_order(target: Tensor, seed: int, stream: int) -> Tensor:
    """A random order of the samples in which every beginning holds the classes in the proportions of the whole.

    Where the samples have no single class it is a plain random order.

    A class of n samples has its r-th one at (r + 1/2) / n of the way; to take the first k is thus to share k seats
    among the classes by the method of Webster and Sainte-Lague, which never takes back a seat when k grows.

    Args:
        target: (N,) int64 class numbers, ``UNLABELED`` being one more class; or (N, C) multi-label rows, masks or any
            other targets.
        seed: of the order.
        stream: see `RngStream`.

    Returns:
        (N,) int64 permutation.
    """
    shuffled = order(seed, 0, len(target), stream)
    if not has_one_class(target):
        return shuffled
    labels = target[shuffled] - UNLABELED
    place = (_rank_in_class(labels).double() + 0.5) / torch.bincount(labels)[labels]
    return shuffled[place.argsort(stable=True)]


def _rank_in_class(labels: Tensor) -> Tensor:
    """(N,) int64: how many samples of the same class stand before each one; labels (N,) int64, >= 0."""
    grouped = labels.argsort(stable=True)
    counts = torch.bincount(labels)
    firsts = counts.cumsum(0) - counts
    rank = torch.empty_like(labels)
    rank[grouped] = torch.arange(len(labels)) - firsts[labels[grouped]]
    return rank


def few_of_each_class(split: Split, count: int) -> Split:
    """A small part of a split, the same at every call: the classes in turn, as long as they have samples.

    Args:
        split: the samples; those without a label count as one more class. Those that have no single class are drawn
            without regard to it.
        count: how many, >= 1; more than there are: all.
    """
    shuffled = order(0, 0, len(split), RngStream.SAMPLE)
    if has_one_class(split.target):
        shuffled = shuffled[_rank_in_class(split.target[shuffled] - UNLABELED).argsort(stable=True)]
    chosen = shuffled[:count].sort().values
    return Split(split.inputs, split.target[chosen], split.index[chosen])


def stratified_sample(target: Tensor, count: int | None, seed: int) -> Tensor:
    """A random part of the samples that holds the classes in the proportions of the whole.

    Args:
        target: see `stratified_order`.
        count: how many, >= 1; None, or more than there are: all.
        seed: which ones; a smaller part is contained in a larger one.

    Returns:
        (n,) int64 positions, ascending.
    """
    if count is None or count >= len(target):
        return torch.arange(len(target))
    return stratified_order(target, seed, RngStream.SAMPLE)[:count].sort().values


def samples_per_class(target: Tensor, kind: Kind, num_classes: int) -> Tensor:
    """Labelled samples of each class, (C,) int64; of multi-label data, those that have each label; of masks, pixels."""
    if kind == "multilabel":
        return (target == 1).sum(0)
    return torch.bincount(target[target >= 0].flatten(), minlength=num_classes)


def train_and_val_index(target: Tensor, val_fraction: float, split_seed: int) -> tuple[Tensor, Tensor]:
    """Which samples are trained on, and which are held out to choose by, where the data have no val part of their own.

    Args:
        target: (N,) int64 or (N, C), see `stratified_order`.
        val_fraction: in (0, 1).
        split_seed: of the choice.

    Returns:
        Two int64 tensors of positions, ascending.
    """
    _check(0 < val_fraction < 1, "val_fraction", "must be in (0, 1)", val_fraction)
    return held_out(target, val_fraction, split_seed, RngStream.VAL)


def held_out(target: Tensor, fraction: float, seed: int, stream: int) -> tuple[Tensor, Tensor]:
    """Split samples in two, stratified by class, see `stratified_order`.

    Args:
        target: (N,) int64 or (N, C).
        fraction: in [0, 1], the fraction held out, rounded to whole samples.
        seed: of the choice.
        stream: see `RngStream`.

    Returns:
        Positions of the rest and of what is held out, int64, ascending.
    """
    shuffled = stratified_order(target, seed, stream)
    size = round(fraction * len(shuffled))
    return shuffled[size:].sort().values, shuffled[:size].sort().values


def _whole(inputs: Tensor | Images, target: Tensor) -> Split:
    return Split(inputs, target, torch.arange(len(target)))


def _train_and_val(
    source: Source, kind: Kind, num_classes: int, val_fraction: float, split_seed: int
) -> tuple[Split, Split]:
    whole = _whole(source.train_inputs, source.train_target)
    if source.val is not None:
        return whole, _whole(*source.val)
    parts = train_and_val_index(whole.target, val_fraction, split_seed)
    train, val = (Split(whole.inputs, whole.target[part], part) for part in parts)
    _check_complete("val_fraction", val_fraction, "val", val.target, kind, num_classes)
    _check_complete("val_fraction", val_fraction, "train", train.target, kind, num_classes)
    return train, val


def _long_tail(target: Tensor, num_classes: int, ratio: float) -> Tensor:
    """(N,) bool: whether a sample is one of the first of its class that are kept."""
    shares = [ratio ** (-c / (num_classes - 1)) for c in range(num_classes)]
    found = torch.bincount(target, minlength=num_classes).tolist()
    # What is a whole number on paper must not be lost to a last bit.
    largest = min(math.floor(n / share + 1e-9) for n, share in zip(found, shares, strict=True))
    sizes = torch.tensor([math.floor(largest * share + 1e-9) for share in shares])
    rank = F.one_hot(target, num_classes).cumsum(0).gather(1, target.unsqueeze(1)).squeeze(1) - 1
    return rank < sizes[target]


def _hide(target: Tensor, hidden: Tensor) -> None:
    if len(hidden):  # images have no number for it
        target[hidden] = target[hidden].clamp(max=UNLABELED)


def _make_wrong(target: Tensor, kind: Kind, num_classes: int, rate: float, noise: str, seed: int) -> None:
    """Replace labels in place."""
    if kind == "multilabel":
        _check(noise == "symmetric" or rate == 0, "label_noise_kind", "must be symmetric with kind=multilabel", noise)
        entries = order(seed, 0, target.numel(), RngStream.NOISY)[: round(rate * target.numel())]
        flat = target.view(-1)
        flat[entries] = torch.where(flat[entries] == UNLABELED, flat[entries], 1 - flat[entries])
        return
    if not rate:
        return
    wrong = stratified_order(target, seed, RngStream.NOISY)[: round(rate * len(target))]
    step = torch.ones_like(wrong)
    if noise == "symmetric":
        step += (uniform(seed, 0, wrong, 1, RngStream.WRONG_CLASS).squeeze(1) * (num_classes - 1)).long()
    target[wrong] = (target[wrong] + step) % num_classes


def check_source(source: Source, kind: Kind, num_classes: int, input_shape: Sequence[int] | None) -> None:
    """See that a data set is what `kdexp.contracts.Source` says, with these classes and, unless None, this shape.

    Raises:
        ValueError: one line with the setting, the rule and the value.
    """
    parts = parts_of(source)
    for part, (inputs, target) in parts.items():
        check_inputs(part, inputs, input_shape)
        found = type(target).__name__
        _check(isinstance(target, Tensor), "source", f"must give the labels of {part} as a tensor", found)
        check_number_of_samples(part, inputs, target)
        _check_labels(part, target, kind, num_classes)
    if source.classes is not None:
        names = len(source.classes)
        listed = ", ".join(map(str, source.classes[:_NAMED])) + ", ..." * (names > _NAMED)
        rule = f"must be {names}, the classes in the data ({listed})"
        _check(names == num_classes, "num_classes", rule, num_classes)
    if kind == "multilabel":
        return
    classes = torch.unique(torch.cat([target for _, target in parts.values()])).tolist()
    numbered = classes == list(range(len(classes)))
    _check(numbered, "source", "must number its classes 0..C-1", f"labels {', '.join(map(str, classes[:10]))}")
    number = len(classes)
    _check(number == num_classes, "num_classes", f"must be {number}, the classes in the data", num_classes)


def parts_of(source: Source) -> dict[str, tuple[Tensor | Images, Tensor]]:
    """Name of a part -> its inputs and targets; val only where the data have their own."""
    parts = {"train": (source.train_inputs, source.train_target), "test": (source.test_inputs, source.test_target)}
    return parts if source.val is None else parts | {"val": source.val}


def check_number_of_samples(part: str, inputs: Tensor | Images, target: Tensor) -> None:
    """See that there are as many targets as samples.

    Raises:
        ValueError: one line.
    """
    found = f"{len(inputs)} samples and {len(target)} labels"
    _check(len(inputs) == len(target), "source", f"must have a label for each sample of {part}", found)


def check_inputs(part: str, inputs: Tensor | Images, input_shape: Sequence[int] | None) -> None:
    """See that samples are tensors of this shape: uint8, finite float32, or int32 code points of a text (L).

    Raises:
        ValueError: one line.
    """
    _check(len(inputs) > 0, "source", f"must have samples in {part}", "none")
    first = inputs[0]
    _check(isinstance(first, Tensor), "source", f"must give the samples of {part} as tensors", type(first).__name__)
    shape = list(first.shape)
    fits = input_shape is None or shape == list(input_shape)
    _check(fits, "input_shape", f"must be {shape}, the shape of a sample of {part}", input_shape)
    known = first.dtype in (torch.uint8, torch.float32) or (first.dtype == torch.int32 and first.dim() == 1)
    _check(known, "source", f"must give uint8 or float32 inputs in {part}", first.dtype)
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        ends = torch.stack(inputs.aminmax())  # NaN passes through
        _check(ends.isfinite().all(), "source", f"must give inputs without NaN or Inf in {part}", ends.tolist())


def _check_labels(part: str, target: Tensor, kind: Kind, num_classes: int) -> None:
    if target.dim() == 2:
        found = target.shape[1]
        _check(kind == "multilabel", "kind", "must be multilabel for several labels a sample", kind)
        _check(found == num_classes, "num_classes", f"must be {found}, the labels in the data", num_classes)
        known = torch.isin(target, target.new_tensor([0, 1, UNLABELED]))
        _check(known.all(), "source", f"must give labels of 0 and 1 in {part}", target[~known][:1].tolist())
    else:
        _check(
            target.dim() == 1,
            "source",
            f"must give a label or a row of labels for each sample of {part}",
            f"labels of shape {list(target.shape)}",
        )
        _check(kind != "multilabel", "kind", "must be multiclass or binary for one label a sample", kind)
        _check(kind != "binary" or num_classes == 2, "num_classes", "must be 2 with kind=binary", num_classes)
    wanted = torch.float32 if kind == "multilabel" else torch.int64
    _check(target.dtype == wanted, "source", f"must give {wanted} labels in {part} with kind={kind}", target.dtype)


def _check_complete(setting: str, value: float, part: str, target: Tensor, kind: Kind, num_classes: int) -> None:
    _check(len(target) > 0, setting, f"must leave samples for {part}", value)
    if are_masks(target) and part == "train":
        counts = samples_per_class(target, kind, num_classes)
        rule = f"must leave masks with every class (class {int(counts.argmin())} has none)"
        _check(bool(counts.all()), setting, rule, value)
    if has_one_class(target):
        counts = torch.bincount(target, minlength=num_classes)
        rule = f"must leave samples of every class for {part} (class {int(counts.argmin())} has none)"
        _check(bool(counts.all()), setting, rule, value)


def _check(rule_holds: object, setting: str, rule: str, value: object) -> None:
    if not rule_holds:
        raise ValueError(f"dataset.{setting} {rule}, got {value}")
