import copy

import numpy as np
import pytest
import torch
from pairs import outputs_of
from scipy.stats import norm

from kdexp.feature_losses.ofd import OFD, Margin, ofd


def by_hand(student, teacher, margin):
    """The paper's partial L2 distance to the margin ReLU, one entry after the other."""
    total = 0.0
    for n, c, h, w in np.ndindex(*student.shape):
        s, t = student[n, c, h, w].item(), teacher[n, c, h, w].item()
        target = t if t > margin[c] else margin[c].item()
        if not s <= target <= 0:
            total += (s - target) ** 2
    return total / len(student)


def test_is_the_papers_distance_summed_over_entries():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 4, 3, 2, 2, dtype=torch.float64)
    margin = torch.tensor([-0.5, -1.0, 0.0], dtype=torch.float64)
    assert ofd(student, teacher, margin).item() == pytest.approx(by_hand(student, teacher, margin), rel=1e-12)


def test_hand_computed():
    # (2 - 3)^2; below the margin on both sides: nothing; above a margin of -1: (0 + 1)^2; between: (-0.2 + 0.5)^2.
    student = torch.tensor([[2.0, -4.0, 0.0, -0.2]]).view(1, 1, 2, 2)
    teacher = torch.tensor([[3.0, -2.0, -9.0, -0.5]]).view(1, 1, 2, 2)
    assert ofd(student, teacher, torch.tensor([-1.0])).item() == pytest.approx(1 + 0 + 1 + 0.09)


def test_is_zero_where_the_student_gives_what_comes_through_the_margin_relu_or_less_below_zero():
    torch.manual_seed(0)
    teacher, margin = torch.randn(4, 3, 2, 2), torch.full((3,), -0.4)
    student = teacher.clamp(min=-0.4)
    student = torch.where(student < 0, student - torch.rand_like(student), student).requires_grad_()
    loss = ofd(student, teacher, margin)
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().max() == 0


def test_the_margin_of_normal_values_is_the_authors_closed_form():
    """They compute it from a batch norm's shift and scale; here it is the mean of what was seen in two batches."""
    torch.manual_seed(0)
    shift, scale = torch.tensor([0.3, -0.2, 1.0]), torch.tensor([1.0, 0.5, 0.8])
    margin = Margin(3)
    for batch in (40, 200):
        values = shift[:, None, None] + scale[:, None, None] * torch.randn(batch, 3, 30, 30)
        margin(values)
    ratio = shift.numpy() / scale.numpy()
    expected = shift.numpy() - scale.numpy() * norm.pdf(ratio) / norm.cdf(-ratio)
    np.testing.assert_allclose(margin.mean, expected, rtol=0.02)


def test_the_margin_is_the_mean_over_all_negative_values_so_far():
    torch.manual_seed(0)
    margin, batches = Margin(2), [torch.randn(n, 2, 3, 1) for n in (2, 7, 1)]
    for maps in batches:
        found = margin(maps)
    everything = torch.cat(batches).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found, torch.stack([channel[channel < 0].mean() for channel in everything]))


def test_a_channel_that_was_never_negative_has_margin_zero():
    margin = Margin(2)
    maps = torch.tensor([[1.0, -2.0], [3.0, -4.0], [0.0, 0.0]])[:, :, None, None]
    assert margin(maps).tolist() == [0.0, -3.0]


def test_earlier_stages_count_half_of_the_next(pair, batch):
    loss = OFD(pair)
    student, teacher = outputs_of(loss, pair, batch)
    parts = []
    for path, connector in zip(("stage1.-2", "stage2.-2", "stage3.-2"), loss.connectors, strict=True):
        goal = teacher.features[path]
        # One channel of this teacher is never negative.
        margin = torch.stack([channel[channel < 0].mean() for channel in goal.transpose(0, 1)]).nan_to_num(0.0)
        parts.append(by_hand(copy.deepcopy(connector)(student.features[path]).detach(), goal, margin))
    expected = parts[0] / 4 + parts[1] / 2 + parts[2]
    assert loss(student, teacher, batch).item() == pytest.approx(expected, rel=1e-4)


def test_margins_are_saved_and_are_no_parameters(pair, batch):
    loss = OFD(pair)
    loss(*outputs_of(loss, pair, batch), batch)
    saved = loss.state_dict()
    assert (saved["margins.1.mean"] < 0).any()
    assert not [name for name, _ in loss.named_parameters() if name.startswith("margins")]


def test_gradient_passes_a_finite_difference_check():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 2, 3, 2, 2, dtype=torch.float64)
    margin = torch.full((3,), -0.5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda s: ofd(s, teacher, margin), student.requires_grad_())
