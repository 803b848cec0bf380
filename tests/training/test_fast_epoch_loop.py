"""The short loop over training batches does what Lightning's does."""

import pytest
import torch

from kdexp.config.compose import compose
from kdexp.experiment.run import run
from kdexp.training import fast_epoch_loop, fit

SMOKE = ["experiment=smoke", "tracking=none", "trainer.max_epochs=3", "dataset.source.train_samples=300"]


def last(folder):
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def equal(a, b) -> bool:
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


@pytest.mark.parametrize(
    "overrides",
    [
        ["optimizer=sgd", "scheduler=cosine", "trainer.gradient_clip_val=0.05", "augment=shift", "student.dropout=0.2"],
        ["trainer.precision=bf16-mixed", "scheme=ema", "trainer.limit_train_batches=3"],
    ],
    ids=" ".join,
)
def test_the_short_loop_leaves_the_checkpoint_and_the_table_of_lightnings_to_the_bit(
    tmp_path, store, monkeypatch, overrides
):
    steps, short = [], fast_epoch_loop.Steps.advance

    def counted(self, fetcher):
        short(self, fetcher)
        steps.append(self._is_plain)

    monkeypatch.setattr(fast_epoch_loop.Steps, "advance", counted)
    run(compose([*SMOKE, *overrides], output_dir=tmp_path / "short", store_dir=store))
    assert steps
    assert all(steps)
    monkeypatch.setattr(fit, "use_fast_epoch_loop", lambda trainer: None)
    steps.clear()
    run(compose([*SMOKE, *overrides], output_dir=tmp_path / "lightning", store_dir=store))
    assert not steps
    one, two = last(tmp_path / "short"), last(tmp_path / "lightning")
    assert one.keys() == two.keys()
    for key in one:
        assert equal(one[key], two[key]), key
    assert (tmp_path / "short" / "metrics.csv").read_text() == (tmp_path / "lightning" / "metrics.csv").read_text()


def test_what_the_short_loop_does_not_do_goes_through_lightnings(tmp_path, store, monkeypatch):
    found = []
    whether = fast_epoch_loop.Steps._find_out

    def noted(self):
        found.append(whether(self))
        return found[-1]

    monkeypatch.setattr(fast_epoch_loop.Steps, "_find_out", noted)
    run(compose([*SMOKE, "trainer.accumulate_grad_batches=2", "alpha=1"], output_dir=tmp_path, store_dir=store))
    assert found == [False]
