from types import SimpleNamespace

import pytest
import torch

from kdexp.training.step_watch import Diverged, DivergenceWatch


def trainer(step: int) -> SimpleNamespace:
    """One of two ranks, of which the other sees the same."""
    strategy = SimpleNamespace(reduce=lambda tensor, reduce_op: tensor)
    return SimpleNamespace(world_size=2, global_step=step, current_epoch=0, strategy=strategy)


def test_several_ranks_stop_together_and_name_the_first_bad_step():
    watch, names = DivergenceWatch(), ("hard", "soft")
    for step in (46, 47, 48, 49):
        bad = torch.tensor([1.0, float("nan") if step > 46 else 1.0])
        watch.watch(bad, names, trainer(step))
    with pytest.raises(Diverged, match=r"^the soft loss became NaN or Inf at step 47 \(epoch 0\)$"):
        watch.watch(torch.ones(2), names, trainer(50))


def test_one_process_on_a_cpu_stops_at_once():
    alone = trainer(3)
    alone.world_size = 1
    with pytest.raises(Diverged, match="the hard loss became NaN or Inf at step 3 "):
        DivergenceWatch().watch(torch.tensor([float("inf"), 0.0]), ("hard", "soft"), alone)
