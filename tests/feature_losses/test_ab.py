import pytest
import torch
from pairs import leaves, outputs_of

from kdexp.feature_losses.ab import AB, ab


def by_hand(student, teacher, margin):
    """The paper's loss, one neuron after the other: relu of what is missing to the margin, on the teacher's side."""
    total = 0.0
    for s, t in zip(student.flatten().tolist(), teacher.flatten().tolist(), strict=True):
        missing = margin - s if t > 0 else margin + s
        total += max(0.0, missing) ** 2
    return total / len(student)


@pytest.mark.parametrize("margin", [1.0, 0.3])
def test_is_the_papers_hinge_summed_over_neurons(margin):
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 2, 2, dtype=torch.float64)
    assert ab(student, teacher, margin).item() == pytest.approx(by_hand(student, teacher, margin), rel=1e-12)


def test_hand_computed():
    # Active: 1 - 0.25, and 2 is far enough. Not active: 0 counts as not active, and 0.5 is 1.5 on the wrong side.
    student = torch.tensor([[0.25, 2.0, 0.5, -3.0]])[:, :, None, None]
    teacher = torch.tensor([[0.1, 9.0, 0.0, -1.0]])[:, :, None, None]
    assert ab(student, teacher, 1.0).item() == pytest.approx(0.75**2 + 1.5**2)


def test_is_zero_beyond_the_margin_however_active_the_teacher_is():
    teacher = torch.tensor([[0.01, 50.0, -0.01]])[:, :, None, None]
    student = torch.tensor([[1.0, 1.5, -7.0]])[:, :, None, None].requires_grad_()
    loss = ab(student, teacher, 1.0)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


def test_gradient_passes_a_finite_difference_check():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ab(s, teacher, 1.0), student.requires_grad_())


def test_later_stages_count_more_and_all_are_before_the_activation(pair, batch):
    loss = AB(pair, margin=0.5)
    student, teacher = outputs_of(loss, pair, batch)
    assert min(f.min().item() for f in [*student.features.values(), *teacher.features.values()]) < 0
    parts = [
        by_hand(connector(student.features[path]).detach(), teacher.features[path], 0.5)
        for path, connector in zip(("stage1.-2", "stage2.-2", "stage3.-2"), loss.connectors, strict=True)
    ]
    expected = parts[0] / 4 + parts[1] / 2 + parts[2]
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-4)


def test_training_brings_neurons_to_the_teachers_side(pair, batch):
    torch.manual_seed(0)
    loss = AB(pair)
    optimizer = torch.optim.Adam([*pair.student.network.parameters(), *loss.parameters()], lr=1e-2)
    agreed = []
    for _ in range(60):
        student, teacher = outputs_of(loss, pair, batch)
        last = loss.connectors[-1](student.features["stage3.-2"])
        agreed.append(((last > 0) == (teacher.features["stage3.-2"] > 0)).float().mean().item())
        optimizer.zero_grad()
        loss(student, teacher, batch).backward()
        optimizer.step()
    assert agreed[0] < 0.7
    assert agreed[-1] > 0.95


def test_vectors_are_maps_of_one_position_also_in_a_batch_of_one(vector_pair, batch):
    loss = AB(vector_pair)
    student, teacher = (leaves(outputs) for outputs in outputs_of(loss, vector_pair, batch))
    assert loss(student, teacher, batch) > 0
    student, teacher = (
        leaves(type(o)(o.logits[:1], {p: f[:1] for p, f in o.features.items()})) for o in (student, teacher)
    )
    loss(student, teacher, batch).backward()
    assert student.features["hidden.-3"].grad.isfinite().all()


def test_a_bad_margin_is_refused(pair):
    with pytest.raises(ValueError, match=r"^feature_loss.ab.margin must be > 0, got 0$"):
        AB(pair, margin=0)
