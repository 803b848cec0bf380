"""Checks of the loss: each term's value and gradient, their balance, alpha, warnings, and what depends on the batch."""

import math
from collections.abc import Mapping, Sequence

from kdexp.doctor.finding import Finding
from kdexp.doctor.inspection import MeasuredTerm
from kdexp.doctor.measurements import BatchDependence
from kdexp.training.settings import Schedule


def term_findings(terms: Mapping[str, MeasuredTerm], *, degenerate: bool) -> list[Finding]:
    """A row for each term, and one for their balance.

    Args:
        terms: name -> what was measured; of the terms that act on the student.
        degenerate: a loss has warned that a part of it has no gradient.
    """
    reference = next((name for name, term in terms.items() if any(term.norms) and not term.cosines), "")
    findings = [_term(name, term, reference, degenerate) for name, term in terms.items()]
    norms = {name: _mean(term.norms) for name, term in terms.items() if term.norms}
    norms = {name: norm for name, norm in norms.items() if 0 < norm < math.inf}
    return [*findings, _balance(norms)] if len(norms) > 1 else findings


def _term(name: str, term: MeasuredTerm, reference: str, degenerate: bool) -> Finding:
    check, found = f"{name} term", f"value {_mean(term.values):.4g}, weight {term.weight:.4g}"
    norm = f", gradient norm {_mean(term.norms):.3g}" if term.norms else ""
    if not all(map(math.isfinite, [*term.values, *term.norms])):
        advice = "look for log(0), 0/0 or an overflow in this term; trainer.precision=32-true rules out the last"
        return Finding(check, found + norm, "error", advice)
    if term.weight == 0:
        return Finding(check, f"{found}: not used in the first epoch")
    found += norm
    if max(term.norms) < 1e-12:
        advice = "it cannot teach the student: leave it out or replace it"
        return Finding(check, found, "warning" if degenerate else "error", advice)
    if term.cosines:
        found += f", cosine {_mean(term.cosines):+.2f} to {reference}"
    return Finding(check, found)


def _balance(norms: Mapping[str, float]) -> Finding:
    check = "gradient norm ratio"
    strong, weak = max(norms, key=norms.__getitem__), min(norms, key=norms.__getitem__)
    found = f"{strong} has {norms[strong] / norms[weak]:.3g} times the gradient norm of {weak}"
    if norms[strong] > 100 * norms[weak]:
        return Finding(check, found, "note", f"{weak} hardly counts: change its weight, or alpha")
    return Finding(check, found)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else math.nan


def loss_warning(message: str) -> Finding:
    """A warning that a loss or a network has issued."""
    advice = "see the docstring of the loss that raised this warning"
    if "2 classes" in message:
        advice = "with two classes use loss=kd, all of whose terms have a gradient"
    return Finding("loss warning", message, "warning", advice)


def alpha_convention(alpha: float, schedule: Schedule, published: float | None) -> Finding:
    """Point at a large alpha: it weighs the hard term here, and the soft one in DeiT, KD-Lib and others.

    Args:
        alpha: in the first epoch, in [0, 1].
        schedule: how it moves.
        published: the alpha of the loss's paper, where it has one.
    """
    found = f"{alpha:g} * hard + {1 - alpha:g} * soft"
    if schedule.kind != "constant":
        return Finding("alpha", f"{found} in the first epoch, then {schedule.kind} to alpha={schedule.final:g}")
    if 0.7 <= alpha < 1 and alpha != published:
        advice = f"alpha weighs the HARD term here, in other libraries the soft one: is alpha={1 - alpha:.3g} meant?"
        return Finding("alpha", found, "note", advice)
    return Finding("alpha", found)


def batch_dependent(losses: BatchDependence | None, *, ranks: int, batch_size: int, num_classes: int) -> Finding:
    """Whether losses that compare the samples of a batch see enough of them.

    Args:
        losses: which do; None where a batch has too few labeled samples to tell.
        ranks: processes of the run.
        batch_size: samples in a batch of all ranks.
        num_classes: of the data.
    """
    check = "batch-dependent losses"
    if losses is None:
        return Finding(check, "not checked: fewer than 4 labeled samples in a batch")
    comparing = losses.own + losses.foreign
    found = ", ".join(comparing) or "none"
    if losses.unknown:
        found += f"; unknown for {', '.join(losses.unknown)} (random or stateful)"
    if losses.foreign and ranks > 1:
        advice = f"{', '.join(losses.foreign)} must gather the batch of all ranks itself: see kdexp.losses.all_gather"
        return Finding(check, f"{found}; {ranks} ranks", "warning", advice)
    if losses.own and ranks > 1:
        advice = f"computed on the global batch of all {ranks} ranks, {batch_size} samples, as in one process"
        return Finding(check, found, "note", advice)
    if comparing and batch_size < num_classes:
        advice = f"a batch of {batch_size} has fewer samples than the {num_classes} classes: "
        return Finding(check, found, "note", f"{advice}try a larger one")
    return Finding(check, found)
