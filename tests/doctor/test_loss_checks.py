"""What the doctor says of the loss."""

import math

import pytest

from kdexp.doctor.inspection import MeasuredTerm
from kdexp.doctor.loss_checks import alpha_convention, batch_dependent, loss_warning, term_findings
from kdexp.doctor.measurements import BatchDependence
from kdexp.training.settings import Schedule


def well(**changed) -> MeasuredTerm:
    return MeasuredTerm(**({"weight": 0.5, "values": [1.0, 3.0], "norms": [0.5, 0.7]} | changed))


def test_terms_that_are_well_are_shown_with_their_means():
    findings = term_findings({"hard": well(), "soft": well(cosines=[0.1, 0.3])}, degenerate=False)
    assert [finding.verdict for finding in findings] == ["ok"] * 3
    assert findings[0].found == "value 2, weight 0.5, gradient norm 0.6"
    assert findings[1].found == "value 2, weight 0.5, gradient norm 0.6, cosine +0.20 to hard"


@pytest.mark.parametrize(
    ("changed", "degenerate", "verdict"),
    [
        ({"norms": [0.0, 0.0]}, False, "error"),
        ({"norms": [0.0, 0.0]}, True, "warning"),
        ({"norms": [0.0, 0.1]}, False, "ok"),
        ({"norms": [0.1, math.inf]}, False, "error"),
        ({"values": [1.0, math.nan]}, False, "error"),
        ({"weight": 0.0, "norms": []}, False, "ok"),
        ({"weight": 0.0, "norms": [], "values": [math.nan]}, False, "error"),
    ],
)
def test_a_term_is_judged_by_its_values_and_gradients(changed, degenerate, verdict):
    findings = {f.check: f for f in term_findings({"hard": well(), "soft": well(**changed)}, degenerate=degenerate)}
    assert findings["soft term"].verdict == verdict
    assert findings["hard term"].verdict == "ok"


def test_the_reference_is_the_first_term_that_has_a_weight():
    terms = {"hard": well(weight=0.0, norms=[]), "soft": well(), "at": well(cosines=[1.0])}
    assert term_findings(terms, degenerate=False)[2].found.endswith("cosine +1.00 to soft")


@pytest.mark.parametrize(("weak", "verdict"), [(0.007, "ok"), (0.005, "note")])
def test_terms_out_of_balance_by_a_hundred_are_noted(weak, verdict):
    terms = {"hard": well(), "soft": well(norms=[weak])}
    balance = term_findings(terms, degenerate=False)[-1]
    assert balance.verdict == verdict
    assert f"hard has {0.6 / weak:.3g} times the gradient norm of soft" in balance.found


@pytest.mark.parametrize(
    ("alpha", "published", "kind", "verdict"),
    [
        (0.1, None, "constant", "ok"),
        (0.69, None, "constant", "ok"),
        (0.7, None, "constant", "note"),
        (0.9, 0.9, "constant", "ok"),  # the method's own
        (0.9, 0.5, "constant", "note"),
        (1.0, None, "constant", "ok"),
        (0.9, None, "linear", "ok"),
    ],
)
def test_a_large_alpha_is_asked_about(alpha, published, kind, verdict):
    assert alpha_convention(alpha, Schedule(kind, 0.1), published).verdict == verdict


def test_a_schedule_of_alpha_is_shown():
    found = alpha_convention(0.9, Schedule("linear", 0.1), None).found
    assert found == "0.9 * hard + 0.1 * soft in the first epoch, then linear to alpha=0.1"


@pytest.mark.parametrize(
    ("losses", "ranks", "batch_size", "verdict", "words"),
    [
        (None, 1, 64, "ok", "fewer than 4 labeled samples"),
        (BatchDependence(), 2, 64, "ok", "none"),
        (BatchDependence(own=["soft"]), 1, 64, "ok", "soft"),
        (BatchDependence(own=["soft"]), 2, 64, "note", "soft"),
        (BatchDependence(own=["soft"]), 1, 9, "note", "soft"),
        (BatchDependence(own=["soft"], foreign=["mine"]), 2, 64, "warning", "soft, mine; 2 ranks"),
        (BatchDependence(unknown=["crd"]), 2, 64, "ok", "unknown for crd (random or stateful)"),
    ],
)
def test_losses_that_compare_samples_are_judged_by_ranks_and_batch(losses, ranks, batch_size, verdict, words):
    finding = batch_dependent(losses, ranks=ranks, batch_size=batch_size, num_classes=10)
    assert finding.verdict == verdict
    assert words in finding.found
    assert bool(finding.advice) == (verdict != "ok")


def test_a_warning_of_a_loss_is_a_finding_with_advice():
    two, other = loss_warning("no gradient with 2 classes"), loss_warning("half of it is void")
    assert (two.verdict, two.found) == ("warning", "no gradient with 2 classes")
    assert "loss=kd" in two.advice
    assert "docstring" in other.advice
