"""The metrics of runs and of robustness reports: the field's names, their units, and what a newcomer must know."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

AS_STORED = "as stored"
"""The unit of a metric that is not known."""


@dataclass(frozen=True)
class Metric:
    """How one kind of value is shown.

    Attributes:
        name: the field's.
        lower_is_better: else higher is better, or neither (the fitted temperature).
        unit: what it is in where it is no share that is shown in %.
        digits: after the point, where it has a unit; a share has two.
        head: of its column in the tables of runs, where that is not the name.
        plural: of the name, where that is not ``NAME values``.
        counted: what it is measured on.
    """

    name: str
    lower_is_better: bool = False
    unit: str = ""
    digits: int = 4
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

    @property
    def scale(self) -> int:
        """What a value is multiplied by to be shown."""
        return 1 if self.unit else 100

    @property
    def decimals(self) -> int:
        """How many are shown."""
        return self.digits if self.unit else 2

    @property
    def shown_in(self) -> str:
        """The unit of what is shown: ``%``, ``nats``; nothing for a metric that is not known."""
        return "" if self.unit == AS_STORED else self.unit or "%"

    @property
    def differs_in(self) -> str:
        """The unit of differences: ``points``, ``nats``."""
        return "" if self.unit == AS_STORED else self.unit or "points"

    @property
    def said_in(self) -> str:
        """After the name of what is shown: `` in %``; nothing for a metric that is not known."""
        return f" in {self.shown_in}" if self.shown_in else ""

    def number(self, value: float | None, *, sign: bool = False) -> str:
        """In % with two decimals, or with those of the metric in its own unit; a dash for what is not defined."""
        if value is None:
            return "-"
        return f"{self.scale * value:{'+' if sign else ''}.{self.decimals}f}"

    def spread(self, mean: float, std: float | None = None, *, sign: bool = False) -> str:
        """A mean with the standard deviation, where there is one: ``96.11 ± 0.20``."""
        alone = self.number(mean, sign=sign)
        return alone if std is None else f"{alone} ± {self.number(std)}"

    def in_unit(self, text: str) -> str:
        """A text of numbers, or the title of an axis' metric, with the unit: ``96.11 %``."""
        return f"{text} {self.shown_in}".rstrip()

    def difference(self, value: float) -> str:
        """A difference with sign and unit: ``+1.20 points``."""
        return f"{self.number(value, sign=True)} {self.differs_in}".rstrip()

    def axis(self, words: str) -> str:
        """The title of an axis: ``test accuracy, %``."""
        return f"{words}, {self.shown_in}".removesuffix(", ")

    def axis_of_gains(self, words: str) -> str:
        """The title of an axis of differences: ``gain on test, points``."""
        return f"{words}, {self.differs_in}".removesuffix(", ")

    def gain(self, own: float, other: float) -> float:
        """By how much the first is better than the second; negative where it is worse."""
        return other - own if self.lower_is_better else own - other


def capitalized(text: str) -> str:
    """The text at the beginning of a sentence."""
    return f"{text[0].upper()}{text[1:]}"


SHARE = Metric("share")
"""Any that is shown in %."""

_MEASURES = {
    "acc": Metric("accuracy", head="acc", plural="accuracies"),
    "dice": Metric("Dice", counted="pixels"),
    "miou": Metric("mean IoU", counted="pixels"),
    "elbo": Metric("ELBO", unit="nats", digits=2),
}
"""What runs can be compared by: see `kdexp.contracts.Task.measure`. Another name is its own word."""

_BESIDE = {
    "acc": ("f1", "auc"),
    "dice": ("sensitivity", "specificity", "auc", "ece"),
    "miou": ("dice", "auc", "ece"),
    "elbo": ("distortion", "rate", "active_units", "psnr"),
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
    "fpr95_openood": Metric("FPR95 of OpenOOD", lower_is_better=True),
    "aupr_in": Metric("AUPR-in"),
    "aupr_out": Metric("AUPR-out"),
    "ece": Metric("ECE", lower_is_better=True, head="ece"),
    "ece_adaptive": Metric("adaptive ECE", lower_is_better=True),
    "max_calibration_error": Metric("maximum calibration error", lower_is_better=True),
    "distortion": Metric("distortion", lower_is_better=True, unit="nats", digits=2),
    "rate": Metric("rate", unit="nats", digits=2),
    "active_units": Metric("active units", unit="dimensions", digits=1),
    "psnr": Metric("PSNR", unit="dB", digits=2),
    "nll": Metric("NLL", lower_is_better=True, unit="nats"),
    "brier": Metric("Brier score", lower_is_better=True),
    "aurc": Metric("AURC", lower_is_better=True),
    "augrc": Metric("AUGRC", lower_is_better=True),
    "failure_auroc": Metric("failure AUROC"),
    "coverage_at_5": Metric("coverage at 5 % risk"),
    "worst_class": Metric("accuracy of the worst class", plural="accuracies of the worst class"),
    "worst_group": Metric("accuracy of the worst group", plural="accuracies of the worst group"),
    "worst_class_index": Metric("worst class", unit="class number", digits=0),
    "coverage": Metric("coverage"),
    "set_size": Metric("size of a set", lower_is_better=True, unit="classes", digits=2),
    "empty_sets": Metric("empty sets", lower_is_better=True),
    "worst_class_coverage": Metric("coverage of the worst class"),
    "agreement": Metric("agreement with the teacher"),
    "agreement_teacher_right": Metric("agreement with the teacher where it is right"),
    "agreement_teacher_wrong": Metric("agreement with the teacher where it is wrong", lower_is_better=True),
    "teacher_wrong_samples": Metric("samples on which the teacher is wrong", unit="samples", digits=0),
    "kl_to_teacher": Metric("KL to the teacher", lower_is_better=True, unit="nats"),
    "temperature": Metric("temperature fitted on val", unit="T"),
    "linear_probe_acc": Metric("accuracy of a linear probe"),
    "knn_acc": Metric("accuracy of nearest neighbors"),
    "cka_to_teacher": Metric("CKA to the teacher"),
}

_OF_SCORES = ("auroc", "fpr95", "fpr95_openood", "aupr_in", "aupr_out")
"""What `kdexp.robustness.ood_scores` has of each score."""
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
    _OF_SCORES: "AUROC, FPR95, AUPR: does the confidence (msp: largest probability; max_logit; energy) tell the test "
    "data from data of other classes? AUROC 50 is chance; FPR95: the other data that pass when 95 % of the test data "
    "do; of OpenOOD: the test data that are flagged when 95 % of the other data are; AUPR-in, AUPR-out: the area under "
    "precision over recall of the test data and of the other data, for a useless score their share.",
    ("ece", "ece_adaptive", "max_calibration_error"): "ECE: the mean gap between confidence and accuracy, over bins of "
    "equal width; adaptive: over bins of equally many samples; maximum: the largest gap of a bin.",
    ("nll", "brier"): "NLL: negative log-likelihood of the true class, in nats; Brier score: squared distance of the "
    "probabilities from the label.",
    ("aurc", "augrc", "failure_auroc", "coverage_at_5"): "AURC, AUGRC: the area under the curve of risk over coverage "
    "when the least confident predictions are left out; generalized (AUGRC): under that of the share of all "
    "predictions that are wrong and not left out. Failure AUROC: does the confidence tell right predictions from wrong "
    "ones? Coverage at 5 % risk: the share of the samples that can be answered with at most 5 % of the answers wrong.",
    ("coverage", "set_size", "empty_sets", "worst_class_coverage"): "coverage: the conformal sets that hold the right "
    "class (lac: the smallest sets; aps: adaptive ones, randomized: with a random part).",
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
    return _METRICS.get(base, Metric(base, unit=AS_STORED))


def beside(measure: str) -> Sequence[str]:
    """The metrics that tables of runs show of the test split beside the one that the runs are compared by."""
    return _BESIDE.get(measure, ())


def _base(name: str) -> str:
    if name.startswith("acc_of_group "):  # whose name may be anything
        return "acc"
    last = name.rpartition(" ")[2].removesuffix("_scaled")
    if last in _METRICS:
        return last
    return next((ending for ending in _OF_SCORES if last.endswith(f"_{ending}")), last)


def label(axis: str, name: str) -> str:
    """A row's head: ``noise: accuracy, gaussian_noise``, ``calibration: ECE, scaled (lower is better)``."""
    metric, last = known(name), name.rpartition(" ")[2]
    of = name.rpartition(" ")[0]
    score = last.removesuffix(_base(name)).removesuffix("_") if _base(name) in _OF_SCORES else ""
    details = [score, of, "scaled" if last.endswith("_scaled") else ""]
    words = ", ".join([metric.name, *(detail for detail in details if detail)])
    unit = f" [{metric.unit}]" if metric.unit else ""
    return f"{_AXES.get(axis, axis)}: {words}{unit}{' (lower is better)' if metric.lower_is_better else ''}"


def explained(names: Iterable[str]) -> Iterator[str]:
    """A line for each group of metrics in a table whose names are not plain English."""
    bases = {_base(name) for name in names}
    yield from (words for group, words in _EXPLAINED.items() if bases & set(group))
