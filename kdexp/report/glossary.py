"""The metrics of runs and of robustness reports: the field's names, their units, and what a newcomer must know."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How one kind of value is shown.

    Attributes:
        name: the field's.
        lower_is_better: else higher is better, or neither (the fitted temperature).
        unit: what it is in where it is no share that is shown in %.
        head: of its column in the tables of runs, where that is not the name.
        plural: of the name, where that is not ``NAME values``.
        counted: what it is measured on.
    """

    name: str
    lower_is_better: bool = False
    unit: str = ""
    head: str = ""
    plural: str = ""
    counted: str = "samples"

    @property
    def column(self) -> str:
        """The head of its column in the tables of runs."""
        return self.head or self.name

    @property
    def values(self) -> str:
        """Several of its values, in words: ``accuracies``, ``Dice values``."""
        return self.plural or f"{self.name} values"

    @property
    def title(self) -> str:
        """The name at the beginning of a sentence: ``Accuracy``, ``Mean IoU``."""
        return capitalized(self.name)

    @property
    def averaged(self) -> str:
        """The name after the word mean, over seeds: ``accuracy``; of mean IoU ``IoU``."""
        return self.name.removeprefix("mean ")

    def number(self, value: float | None, *, sign: bool = False) -> str:
        """In % with two decimals, or with four in the metric's own unit; a dash for what is not defined."""
        if value is None:
            return "-"
        value, digits = (value, 4) if self.unit else (100 * value, 2)
        return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


def capitalized(text: str) -> str:
    """The text at the beginning of a sentence."""
    return f"{text[0].upper()}{text[1:]}"


_MEASURES = {
    "acc": Metric("accuracy", head="acc", plural="accuracies"),
    "dice": Metric("Dice", counted="pixels"),
    "miou": Metric("mean IoU", counted="pixels"),
}
"""What runs can be compared by: see `kdexp.contracts.Task.measure`. Another name is its own word."""

_BESIDE = {
    "acc": ("f1", "auc"),
    "dice": ("sensitivity", "specificity", "auc", "ece"),
    "miou": ("dice", "auc", "ece"),
}
"""What is shown of the test split beside the measure."""


def _under_conditions(measure: str, name: str) -> dict[str, Metric]:
    """What robustness reports say of a measure."""
    return {
        f"{measure}_lost": Metric(f"{name} lost", lower_is_better=True),
        f"mean_{measure}": Metric(name),
        f"level_at_half_{measure}": Metric(f"level at half {name}", unit="level"),
        f"worst_condition_{measure}": Metric(f"{name} in the worst condition"),
    }


_METRICS = {
    **_MEASURES,
    **{key: metric for name, of in _MEASURES.items() for key, metric in _under_conditions(name, of.name).items()},
    "image_dice": Metric("Dice, mean over images", counted="pixels"),
    "sensitivity": Metric("sensitivity"),
    "specificity": Metric("specificity"),
    "f1": Metric("F1", head="f1"),
    "auc": Metric("AUC", head="auc"),
    "mce_unnormalized": Metric("mean error (unnormalized mCE)", lower_is_better=True),
    "mce_vs_control": Metric("mCE, control = 100", lower_is_better=True),
    "relative_mce": Metric("relative mCE, control = 100", lower_is_better=True),
    "auroc": Metric("AUROC"),
    "fpr95": Metric("FPR95", lower_is_better=True),
    "ece": Metric("ECE", lower_is_better=True, head="ece"),
    "ece_adaptive": Metric("adaptive ECE", lower_is_better=True),
    "max_calibration_error": Metric("maximum calibration error", lower_is_better=True),
    "nll": Metric("NLL", lower_is_better=True, unit="nats"),
    "brier": Metric("Brier score", lower_is_better=True),
    "temperature": Metric("temperature fitted on val", unit="T"),
    "linear_probe_acc": Metric("accuracy of a linear probe"),
    "knn_acc": Metric("accuracy of nearest neighbors"),
    "cka_to_teacher": Metric("CKA to the teacher"),
}

_AXES = {"corruptions_lite": "corruptions", "noise_levels": "noise", "clean": "clean data"}

_EXPLAINED: dict[tuple[str, ...], str] = {
    ("mce_unnormalized", "mce_vs_control", "relative_mce"): "mCE: errors averaged over corruptions, in % of the "
    "control's errors under the same corruption; unnormalized: the mean error itself; relative: of what is lost "
    "against clean data, - where the control loses nothing. Of mean IoU and Dice an error is what they lack to 100.",
    **{
        (f"mean_{key}",): f"{of.name} under noise and attacks: the mean over the levels, from none to the strongest."
        for key, of in _MEASURES.items()
    },
    **{
        (f"level_at_half_{key}",): f"level at half {of.name}: the noise or attack (eps) that halves the {of.name} on "
        "clean data; higher is better, - where none of the levels does."
        for key, of in _MEASURES.items()
    },
    ("auroc", "fpr95"): "AUROC, FPR95: does the confidence (msp: largest probability; max_logit; energy) tell the test "
    "data from data of other classes? AUROC 50 is chance; FPR95: the other data that pass when 95 % of the test data "
    "do.",
    ("ece", "ece_adaptive", "max_calibration_error"): "ECE: the mean gap between confidence and accuracy, over bins of "
    "equal width; adaptive: over bins of equally many samples; maximum: the largest gap of a bin.",
    ("nll", "brier"): "NLL: negative log-likelihood of the true class, in nats; Brier score: squared distance of the "
    "probabilities from the label.",
    ("temperature",): "scaled: with the logits divided by the temperature that fits val best.",
    ("linear_probe_acc", "knn_acc", "cka_to_teacher"): "linear probe, nearest neighbors: trained on the frozen "
    "representations; CKA: how alike these and the teacher's are, 100 for the same but for rotation and scale.",
}


def known(name: str) -> Metric:
    """A metric by its name in results.json (``acc``, ``dice``) or robustness.json (``mnist8 acc``, ``ece_scaled``).

    One that is not known, of another version of kdexp, is shown under its own name, as it is.
    """
    base = _base(name)
    if base.startswith("error_"):
        return Metric(f"error, {base.removeprefix('error_')}", lower_is_better=True)
    return _METRICS.get(base, Metric(base, unit="as stored"))


def beside(measure: str) -> Sequence[str]:
    """The metrics that tables of runs show of the test split beside the one that the runs are compared by."""
    return _BESIDE.get(measure, ())


def _base(name: str) -> str:
    last = name.rpartition(" ")[2].removesuffix("_scaled")
    ending = last.rpartition("_")[2]
    return ending if ending in ("auroc", "fpr95") else last


def label(axis: str, name: str) -> str:
    """A row's head: ``noise: accuracy, gaussian_noise``, ``calibration: ECE, scaled (lower is better)``."""
    metric, last = known(name), name.rpartition(" ")[2]
    of = name.rpartition(" ")[0]
    score = last.removesuffix(f"_{_base(name)}") if metric.name in ("AUROC", "FPR95") else ""
    details = [score, of, "scaled" if last.endswith("_scaled") else ""]
    words = ", ".join([metric.name, *(detail for detail in details if detail)])
    unit = f" [{metric.unit}]" if metric.unit else ""
    return f"{_AXES.get(axis, axis)}: {words}{unit}{' (lower is better)' if metric.lower_is_better else ''}"


def explained(names: Iterable[str]) -> Iterator[str]:
    """A line for each group of metrics in a table whose names are not plain English."""
    bases = {_base(name) for name in names}
    yield from (words for group, words in _EXPLAINED.items() if bases & set(group))
