"""What losses of token states make of padding, against sums by hand over ragged batches."""

import numpy as np
import pytest
import torch
from pairs import CNN, RNN, SHAPE, Encoder, encoders, leaves, make_batch, make_pair, outputs_of
from scipy.spatial.distance import cosine as cosine_distance
from torch import nn

from kdexp.contracts import FeatureLayers, Outputs
from kdexp.experiment.losses import feature_terms
from kdexp.feature_losses.fitnet import FitNet
from kdexp.feature_losses.penultimate import Cosine, FeatureMSE
from kdexp.feature_losses.tokens import mean_of_tokens, spread_stages, token_cosine, token_mse
from kdexp.features import discover, side
from kdexp.models.cnn import cnn
from kdexp.models.rnn import rnn

LENGTHS = [1, 4, 2, 3]
MASK = torch.arange(4) < torch.tensor(LENGTHS).unsqueeze(1)


def states(features=5, seed=0, junk=0.0):
    """(4, 4, features) float64 of a ragged batch, junk at padding."""
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(4, 4, features, generator=generator, dtype=torch.float64)
    return found.where(MASK.unsqueeze(2), junk)


def of_texts(distance, own, goal):
    """The mean over texts of the mean over their tokens."""
    own, goal = own.numpy(), goal.numpy()
    return np.mean([np.mean([distance(own[n, i], goal[n, i]) for i in range(LENGTHS[n])]) for n in range(4)])


@pytest.mark.parametrize(
    ("function", "distance"), [(token_mse, lambda s, t: np.mean((s - t) ** 2)), (token_cosine, cosine_distance)]
)
def test_each_text_is_the_mean_over_its_tokens_whatever_stands_at_padding(function, distance):
    own, goal = states(seed=1), states(seed=2)
    expected = of_texts(distance, own, goal)
    for junk in (0.0, 1e6, float("nan")):
        found = function(states(seed=1, junk=junk), states(seed=2, junk=-junk), MASK.float())
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_gradients_are_those_of_the_tokens_alone():
    for function in (token_mse, token_cosine):
        own = states(seed=1).requires_grad_()
        assert torch.autograd.gradcheck(lambda x: function(x, states(seed=2), MASK), own)  # noqa: B023
        function(own, states(seed=2), MASK).backward()
        assert own.grad[~MASK].eq(0).all()
        assert own.grad[MASK].ne(0).all()


def test_a_mean_of_tokens_by_hand():
    values = torch.tensor([[1.0, 9.0, 9.0], [2.0, 4.0, 9.0]])
    mask = torch.tensor([[1, 0, 0], [1, 1, 0]])
    assert mean_of_tokens(values, mask) == (1 + (2 + 4) / 2) / 2


@pytest.mark.parametrize(
    ("depths", "expected"),
    [
        ((2, 6), [(0, 2), (1, 5)]),
        ((4, 12), [(0, 2), (1, 5), (2, 8), (3, 11)]),
        ((3, 3), [(0, 0), (1, 1), (2, 2)]),
        ((3, 4), [(0, 0), (1, 1), (2, 3)]),
        ((4, 2), [(1, 0), (3, 1)]),
    ],
)
def test_stages_are_matched_at_even_distances(depths, expected):
    pair = encoders(4, 4, depths=depths)
    assert spread_stages(pair) == [(f"blocks.{own}", f"blocks.{goal}") for own, goal in expected]


@pytest.mark.parametrize(
    ("method", "distance"), [(FeatureMSE, lambda s, t: np.mean((s - t) ** 2)), (Cosine, cosine_distance)]
)
def test_chosen_stages_are_compared_token_by_token_and_added(method, distance):
    torch.manual_seed(0)
    pair = encoders(6, 6, depths=(2, 4))
    loss, batch = method(pair, stages=[0, 1]), make_batch()
    assert (loss.student_paths, loss.teacher_paths) == (
        ["blocks.0", "blocks.1", "mask"],
        ["blocks.1", "blocks.3", "mask"],
    )
    student, teacher = outputs_of(loss, pair, batch)
    lengths = student.features["mask"].sum(1).long().tolist()
    assert len(set(lengths)) > 2, "ragged"
    expected = 0
    for own, goal in (("blocks.0", "blocks.1"), ("blocks.1", "blocks.3")):
        own, goal = student.features[own].detach().double(), teacher.features[goal].double()
        per_text = [
            np.mean([distance(own[n, i].numpy(), goal[n, i].numpy()) for i in range(length)])
            for n, length in enumerate(lengths)
        ]
        expected += np.mean(per_text)
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_without_padding_every_position_counts():
    torch.manual_seed(0)
    pair = make_pair(rnn(5, SHAPE, hidden=6), rnn(5, SHAPE, hidden=6), RNN, RNN)
    loss = FeatureMSE(pair, stages=[0])
    student, teacher = outputs_of(loss, pair, make_batch())
    own, goal = student.features["recurrent"], teacher.features["recurrent"]
    torch.testing.assert_close(loss(student, teacher), torch.nn.functional.mse_loss(own, goal))


def cut(outputs, length):
    """As a student in training gives it: without the padding that no text of the batch needs."""
    return Outputs(outputs.logits, {path: feature[:, :length] for path, feature in outputs.features.items()})


@pytest.mark.parametrize("method", [lambda pair: FeatureMSE(pair, stages=[2]), FitNet])
def test_a_shorter_student_has_the_same_value(method):
    torch.manual_seed(0)
    pair = encoders(6, 8)
    loss = method(pair)
    student, teacher = outputs_of(loss, pair, make_batch())
    longest = int(student.features["mask"].sum(1).max())
    assert longest < 8
    torch.testing.assert_close(loss(cut(student, longest), teacher), loss(student, teacher))
    with pytest.raises(ValueError, match=r"^feature_loss=\w+ needs a student and a teacher with the same tokens"):
        loss(cut(student, longest - 1), teacher)


def test_a_hint_of_tokens_is_regressed_by_a_linear_layer_and_padding_has_no_part_in_it():
    torch.manual_seed(0)
    pair = encoders(6, 8)
    loss = FitNet(pair)
    student, teacher = outputs_of(loss, pair, make_batch())
    own, goal, mask = student.features["blocks.1"], teacher.features["blocks.1"], student.features["mask"] > 0
    regressed = own @ loss.regressor.weight.T + loss.regressor.bias
    per_text = [(regressed[n][mask[n]] - goal[n][mask[n]]).square().mean() for n in range(len(own))]
    torch.testing.assert_close(loss(student, teacher), torch.stack(per_text).mean())
    torch.testing.assert_close(token_mse(regressed, goal, mask), torch.stack(per_text).mean())


def test_networks_with_other_tokens_are_refused():
    rule = r"needs a student and a teacher with the same tokens \(tokenizer, vocab_size, max_tokens\)"
    pair = make_pair(Encoder(4), Encoder(4, mask=None), None, None)
    with pytest.raises(ValueError, match=rf"^feature_loss=cosine {rule}, got 8 and 8 of a text$"):
        Cosine(pair, stages=[0])
    pair = encoders(4, 4)
    loss = FeatureMSE(pair, stages=[0])
    student, teacher = (leaves(each) for each in outputs_of(loss, pair, make_batch()))
    teacher.features["mask"] = teacher.features["mask"].flip(0)
    with pytest.raises(ValueError, match=rf"^feature_loss=feature_mse {rule}, got other numbers of them in a batch$"):
        loss(student, teacher)


def test_stages_that_are_not_there_or_no_sequences_are_refused():
    with pytest.raises(ValueError, match=r"^feature_loss.cosine.stages must be .* from 0 to 2, got \[3\]$"):
        Cosine(encoders(4, 4), stages=[3])
    pair = make_pair(cnn(5, SHAPE, width=4), cnn(5, SHAPE, width=4), CNN, CNN)
    with pytest.raises(ValueError, match=r"^feature_loss=cosine needs sequences of tokens, got .* from 'stage1'$"):
        Cosine(pair, stages=[0])


def test_a_loss_that_does_not_know_the_padding_is_refused():
    pair = encoders(4, 4)
    settings = {"_target_": "kdexp.feature_losses.at.AT", "weight": 1.0}
    with pytest.raises(
        ValueError, match=r"^feature_loss=at must read vectors of texts, or their mask .*'blocks.0' alone$"
    ):
        feature_terms({"at": settings}, (pair.student, pair.teacher), pair.target, 5)
    own = FeatureLayers(["blocks.0"], "pool", "classifier", mask="mask")
    assert own.mask == "mask"
    settings = {"_target_": "kdexp.feature_losses.rkd.RKD", "weight": 1.0}
    assert feature_terms({"rkd": settings}, (pair.student, pair.teacher), pair.target, 5)


def test_the_mask_of_a_network_that_reads_texts_is_found():
    network, inputs = Encoder(4), make_batch().inputs
    network.tokens = nn.Module()
    network.tokens.mask = network._modules.pop("mask")
    object.__setattr__(network, "mask", network.tokens.mask)  # where forward looks for it
    assert side(network, discover(network, inputs), inputs).shapes["tokens.mask"] == (6, 8)
    assert discover(cnn(5, SHAPE, width=4), inputs).mask is None
