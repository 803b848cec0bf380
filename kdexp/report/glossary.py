"""The metrics of a robustness report: the field's names for them, their units, and what a newcomer must know."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Metric:
    """How one kind of value is shown.

    Attributes:
        name: the field's.
        lower_is_better: else higher is better, or neither (the fitted temperature).
        unit: what it is in where it is no share that is shown in %.
    """

    name: str
    lower_is_better: bool = False
    unit: str = ""

    def number(self, value: float | None, *, sign: bool = False) -> str:
        """In % with two decimals, or with four in the metric's own unit; a dash for what is not defined."""
        if value is None:
            return "-"
        value, digits = (value, 4) if self.unit else (100 * value, 2)
        return f"{value:+.{digits}f}" if sign else f"{value:.{digits}f}"


_METRICS = {
    "acc": Metric("accuracy"),
    "acc_lost": Metric("accuracy lost", lower_is_better=True),
    "mean_acc": Metric("accuracy"),
    "level_at_half_acc": Metric("level at half accuracy", unit="level"),
    "mce_unnormalized": Metric("mean error (unnormalized mCE)", lower_is_better=True),
    "mce_vs_control": Metric("mCE, control = 100", lower_is_better=True),
    "relative_mce": Metric("relative mCE, control = 100", lower_is_better=True),
    "worst_condition_acc": Metric("accuracy in the worst condition"),
    "auroc": Metric("AUROC"),
    "fpr95": Metric("FPR95", lower_is_better=True),
    "ece": Metric("ECE", lower_is_better=True),
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

_EXPLAINED = {
    ("mce_unnormalized", "mce_vs_control", "relative_mce"): "mCE: errors averaged over corruptions, in % of the "
    "control's errors under the same corruption; unnormalized: the mean error itself; relative: of what is lost "
    "against clean data, - where the control loses nothing.",
    ("mean_acc",): "accuracy under noise and attacks: the mean over the levels, from none to the strongest.",
    ("level_at_half_acc",): "level at half accuracy: the noise or attack (eps) that halves the accuracy on clean data; "
    "higher is better, - where none of the levels does.",
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
    """A metric by its name in robustness.json: ``mce_unnormalized``, ``mnist8 acc``, ``msp_auroc``, ``ece_scaled``.

    One that is not known, of another version of kdexp, is shown under its own name, as it is.
    """
    base = _base(name)
    if base.startswith("error_"):
        return Metric(f"error, {base.removeprefix('error_')}", lower_is_better=True)
    return _METRICS.get(base, Metric(base, unit="as stored"))


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
