import numpy as np
import pytest
import torch
from pairs import outputs_of

from kdexp.feature_losses.ft import FT, ft


def by_hand(student, teacher):
    entries = []
    for s, t in zip(student.flatten(1).numpy(), teacher.flatten(1).numpy(), strict=True):
        entries.append(np.abs(s / np.sqrt((s**2).sum()) - t / np.sqrt((t**2).sum())))
    return np.mean(entries)


def test_is_the_mean_absolute_difference_of_factors_of_unit_length():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 5, 3, 2, 2, dtype=torch.float64)
    np.testing.assert_allclose(ft(student, teacher), by_hand(student, teacher), rtol=1e-12)


def test_hand_computed():
    # (3, 4) and (4, 3) have length 5; (1, 0) against (0, -2) differs by 1 in both entries.
    student = torch.tensor([[3.0, 4.0], [1.0, 0.0]])[:, :, None, None]
    teacher = torch.tensor([[4.0, 3.0], [0.0, -2.0]])[:, :, None, None]
    assert ft(student, teacher).item() == pytest.approx((0.2 + 0.2 + 1 + 1) / 4)


def test_a_factors_scale_does_not_matter_but_each_channel_does():
    torch.manual_seed(0)
    factor = torch.randn(4, 3, 2, 2)
    assert ft(7 * factor, factor).item() == pytest.approx(0, abs=1e-7)
    # RepDistiller's mean of squares over channels would not see this.
    assert ft(factor.flip(1), factor) > 0.01


def test_a_factor_of_zeros_has_a_finite_gradient():
    zeros = torch.zeros(2, 3, 2, 2, requires_grad=True)
    ft(zeros, torch.ones(2, 3, 2, 2)).backward()
    assert zeros.grad.isfinite().all()


def test_alone_the_paraphraser_learns_to_rebuild_the_teachers_maps_and_nothing_else_learns(pair, batch):
    torch.manual_seed(0)
    loss = FT(pair)
    assert loss.in_init_stage is False  # the name by which `Distiller` sets it
    loss.in_init_stage = True
    optimizer = torch.optim.Adam([*pair.student.network.parameters(), *loss.parameters()], lr=1e-2)
    before = [p.clone() for p in (*pair.student.network.parameters(), *loss.translator.parameters())]
    values = []
    for _ in range(100):
        student, teacher = outputs_of(loss, pair, batch)
        value = loss(student, teacher, batch)
        maps = teacher.features["stage3"]
        rebuilt = loss.decoder(loss.paraphraser(maps))
        assert value.item() == pytest.approx(((rebuilt - maps) ** 2).mean().item(), rel=1e-5)
        values.append(value.item())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert values[-1] < 0.3 * values[0]
    after = (*pair.student.network.parameters(), *loss.translator.parameters())
    assert all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_later_the_student_and_the_translator_follow_a_frozen_paraphraser(pair, batch):
    torch.manual_seed(0)
    loss = FT(pair)
    student, teacher = outputs_of(loss, pair, batch)
    value = loss(student, teacher, batch)
    value.backward()
    with torch.no_grad():
        factors = loss.translator(student.features["stage3"]), loss.paraphraser(teacher.features["stage3"])
    assert value.item() == pytest.approx(by_hand(*factors), rel=1e-5)
    assert all(p.grad is None for part in (loss.paraphraser, loss.decoder) for p in part.parameters())
    assert all(p.grad is not None for p in loss.translator.parameters())
    assert pair.student.network.stage1[0].weight.grad.abs().sum() > 0


@pytest.mark.parametrize(("rate", "channels"), [(0.5, 12), (0.75, 18), (0.01, 1)])
def test_a_factor_has_its_share_of_the_teachers_channels(pair, batch, rate, channels):
    loss = FT(pair, rate=rate)
    _, teacher = outputs_of(loss, pair, batch)
    assert loss.paraphraser(teacher.features["stage3"]).shape == (6, channels, 2, 2)


def test_other_sizes_are_averaged_and_vectors_are_one_position(pair, vector_pair, batch):
    loss = FT(pair)
    student, teacher = outputs_of(loss, pair, batch)
    larger = type(student)(student.logits, {"stage3": torch.randn(6, 16, 5, 5)})
    with torch.no_grad():
        translated, factor = loss.translator(larger.features["stage3"]), loss.paraphraser(teacher.features["stage3"])
    expected = by_hand(torch.nn.functional.adaptive_avg_pool2d(translated, 2), factor)
    assert loss(larger, teacher, batch).item() == pytest.approx(expected, rel=1e-5)
    vectors = FT(vector_pair)
    assert vectors(*outputs_of(vectors, vector_pair, batch), batch) > 0


def test_a_bad_rate_is_refused(pair):
    with pytest.raises(ValueError, match=r"^feature_loss.ft.rate must be > 0, got 0$"):
        FT(pair, rate=0)
