"""Stages that have no positions to compare, for the losses that compare positions."""

import logging
from dataclasses import replace

import pytest
import torch
from pairs import CLASSES, CNN, make_batch, make_pair, outputs_of

from kdexp.feature_losses import maps
from kdexp.feature_losses.at import AT
from kdexp.feature_losses.cwd import CWD
from kdexp.feature_losses.nst import NST
from kdexp.models.cnn import cnn

SMALL = (1, 4, 4)  # which leaves a single position in the last of three stages
TWO = replace(CNN, stages=CNN.stages[:2])
LOSSES = {"at": AT, "nst": NST, "cwd": CWD}


@pytest.fixture(params=LOSSES)
def name(request):
    return request.param


def pair_with(student_layers, teacher_layers, shape=SMALL):
    torch.manual_seed(0)
    networks = cnn(CLASSES, shape, width=4), cnn(CLASSES, shape, width=6)
    return make_pair(*networks, student_layers, teacher_layers, shape=shape)


def test_a_stage_of_a_single_position_is_left_out_and_named_once(name, caplog):
    maps._log_once.cache_clear()
    caplog.set_level(logging.WARNING, "kdexp")
    values, batch = [], make_batch(shape=SMALL)
    for layers in (CNN, CNN, TWO):
        pair = pair_with(layers, layers)
        torch.manual_seed(1)
        loss = LOSSES[name](pair)
        assert loss.student_paths == (["stage2"] if name == "cwd" else ["stage1", "stage2"])
        values.append(loss(*outputs_of(loss, pair, batch)))
    assert torch.equal(values[0], values[2])
    rule = "compares positions and leaves out the stages that have a single one"
    assert caplog.messages == [f"feature_loss={name} {rule}: stage3 (teacher's stage3)"]


def test_a_stage_that_has_one_in_one_network_alone_is_left_out_too(name):
    teacher = replace(CNN, stages=["stage1", "stage2", "stage2"])
    assert "stage3" not in LOSSES[name](pair_with(CNN, teacher)).student_paths


def test_nothing_is_left_out_or_said_where_every_stage_has_positions(name, caplog):
    caplog.set_level(logging.WARNING, "kdexp")
    loss = LOSSES[name](pair_with(CNN, CNN, shape=(1, 8, 8)))
    assert loss.student_paths == (["stage3"] if name == "cwd" else CNN.stages)
    assert not caplog.messages


def test_it_is_refused_where_no_stage_is_left(name):
    last = replace(CNN, stages=["stage3"])
    rule = r"needs a stage of maps or sequences with at least 2 positions in both networks"
    found = r"\(16, 1, 1\) from the student's 'stage3' and \(24, 1, 1\) from the teacher's 'stage3'"
    with pytest.raises(ValueError, match=rf"^feature_loss={name} {rule}, got {found}$"):
        LOSSES[name](pair_with(last, last))
