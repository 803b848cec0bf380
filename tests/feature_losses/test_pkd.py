import numpy as np
import pytest
import torch
from pairs import CNN, SHAPE, Encoder, encoders, make_batch, make_pair, outputs_of
from torch import nn

from kdexp.feature_losses.pkd import PKD, pkd
from kdexp.models.cnn import cnn


def test_the_distance_of_directions_by_hand():
    own, goal = torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([[1.0, 0.0], [0.0, 7.0]])
    # (0.6, 0.8) from (1, 0), and two of one direction
    assert pkd(own, goal).item() == pytest.approx((0.4**2 + 0.8**2) / 4, rel=1e-6)


def normalized(vectors):
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("which", "stages"),
    [
        ("skip", [("blocks.0", "blocks.1"), ("blocks.1", "blocks.3")]),
        ("last", [("blocks.0", "blocks.3"), ("blocks.1", "blocks.4")]),
    ],
)
@pytest.mark.parametrize("states", ["mean", "first"])
def test_all_layers_but_the_last_are_compared_without_padding(which, stages, states):
    torch.manual_seed(0)
    pair = encoders(6, 6, depths=(3, 6))
    loss, batch = PKD(pair, teacher_stages=which, states=states), make_batch()
    assert [*zip(loss.student_paths, loss.teacher_paths, strict=True)] == [*stages, ("mask", "mask")]
    student, teacher = outputs_of(loss, pair, batch)
    lengths = student.features["mask"].sum(1).long().tolist()
    assert len(set(lengths)) > 2

    def vectors(features):
        texts = [features[n, : lengths[n]].detach().double().numpy() for n in range(len(lengths))]
        return normalized(np.stack([text[0] if states == "first" else text.mean(0) for text in texts]))

    terms = [(vectors(student.features[own]) - vectors(teacher.features[goal])) ** 2 for own, goal in stages]
    assert loss(student, teacher).item() == pytest.approx(np.mean(terms), rel=1e-5)
    assert not list(loss.parameters())


def test_the_published_layers_of_twelve():
    pair = encoders(4, 4, depths=(6, 12))
    assert PKD(pair).teacher_paths[:-1] == [f"blocks.{number - 1}" for number in (2, 4, 6, 8, 10)]
    assert PKD(pair, teacher_stages="last").teacher_paths[:-1] == [
        f"blocks.{number - 1}" for number in (7, 8, 9, 10, 11)
    ]


def test_other_widths_and_maps_are_projected():
    torch.manual_seed(0)
    loss = PKD(encoders(4, 6))
    assert all(isinstance(each, nn.Linear) for each in loss.projections)
    pair = make_pair(cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=4), CNN, CNN)
    loss = PKD(pair)
    student, teacher = outputs_of(loss, pair, make_batch())
    own, goal = (each.features["stage1"].mean((2, 3)) for each in (student, teacher))
    other = pkd(*(each.features["stage2"].mean((2, 3)) for each in (student, teacher)))
    torch.testing.assert_close(loss(student, teacher), (pkd(own, goal) + other) / 2)


def test_the_student_may_have_other_tokens():
    torch.manual_seed(0)
    pair = make_pair(Encoder(4), Encoder(4, mask=None), None, None)
    loss = PKD(pair)
    student, teacher = outputs_of(loss, pair, make_batch())
    assert loss(student, teacher).isfinite()
    assert "mask" not in teacher.features


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"^feature_loss.pkd.teacher_stages must be skip or last, got even$"):
        PKD(encoders(4, 4), teacher_stages="even")
    with pytest.raises(ValueError, match=r"^feature_loss.pkd.states must be mean or first, got cls$"):
        PKD(encoders(4, 4), states="cls")
    with pytest.raises(
        ValueError, match=r"^feature_loss=pkd needs at least 2 stages in student and teacher, got 1 and 3$"
    ):
        PKD(encoders(4, 4, depths=(1, 3)))
