"""What kdexp assumes of Lightning's private code, and what happens where Lightning has changed."""

import importlib.util
import logging
import sys
from operator import attrgetter
from pathlib import Path
from pkgutil import resolve_name

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loops import fetchers, fit_loop, training_epoch_loop
from pytorch_lightning.trainer import trainer as trainer_module
from pytorch_lightning.trainer.connectors import signal_connector

from kdexp.config.compose import compose
from kdexp.experiment.run import run
from kdexp.training import child_ranks, fast_epoch_loop, lightning_internals
from kdexp.training.lightning_internals import CHILD_RANKS, FAST_EPOCH_LOOP

SMOKE = ["experiment=smoke", "tracking=none", "trainer.max_epochs=2", "dataset.source.train_samples=300"]
EVERY = pytest.mark.parametrize("assumed", [FAST_EPOCH_LOOP, CHILD_RANKS], ids=["fast epoch loop", "child ranks"])


@pytest.fixture
def trainer():
    return pl.Trainer(accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_checkpointing=False)


@EVERY
def test_lightning_is_as_kdexp_assumes(assumed, trainer):
    """Where this fails, Lightning has changed: change what replaces it, and then the assumptions that are named.

    Until then trainings are right and slower, since Lightning's own part is used.
    """
    assert assumed.broken(trainer) == []


def owner_and_name(target):
    """Where ``module:Class.function`` is an attribute, and of which name."""
    module, _, path = target.partition(":")
    within, _, last = path.rpartition(".")
    return resolve_name(f"{module}:{within}") if within else resolve_name(module), last


def other(first, /, *rest):
    return first, rest


@EVERY
def test_each_class_is_looked_at(assumed, trainer):
    for path, target in assumed.classes.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*owner_and_name(target), other)
            found = assumed.broken(trainer)
        assert any(
            line.startswith(f"class: trainer.{path} must be of {target}, got pytorch_lightning") for line in found
        )


@EVERY
def test_each_signature_is_looked_at(assumed, trainer):
    for target, parameters in assumed.signatures.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*owner_and_name(target), other)
            assert f"signature: {target} must take ({parameters}), got (first rest)" in assumed.broken(trainer)


@EVERY
def test_each_attribute_is_looked_at(assumed, trainer):
    for path, names in assumed.attributes.items():
        for name in names.split() if ":" not in path else []:
            holder = attrgetter(path)(trainer)
            with pytest.MonkeyPatch.context() as patch:
                for owner in (holder, *type(holder).__mro__):
                    if name in vars(owner):
                        patch.delattr(owner, name)
                assert f"attribute: {path} must have {name}, got nothing" in assumed.broken(trainer)


def test_the_end_of_an_epoch_is_looked_at(monkeypatch, trainer):
    monkeypatch.setattr(fetchers._PrefetchDataFetcher, "__init__", lambda self: None)
    (found,) = FAST_EPOCH_LOOP.broken(trainer)
    assert found == "attribute: pytorch_lightning.loops.fetchers:_PrefetchDataFetcher must have done, got nothing"


@EVERY
def test_each_order_of_calls_is_looked_at(assumed, trainer):
    for target, calls in assumed.calls.items():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(*owner_and_name(target), other)
            first = calls.split()[0]
            assert f"order of calls: {target} must call {first}, got nothing there" in assumed.broken(trainer)


@pytest.fixture(scope="module")
def fast(tmp_path_factory, store):
    """A training with kdexp's loop."""
    steps, own = [], fast_epoch_loop.Steps.advance
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            fast_epoch_loop.Steps, "advance", lambda self, data: (own(self, data), steps.append(self._is_plain))
        )
        found = trained(tmp_path_factory.mktemp("fast"), store)
    assert steps
    assert all(steps)
    return found


def trained(folder, store):
    run(compose(SMOKE, output_dir=folder, store_dir=store))
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return saved["state_dict"], saved["optimizer_states"], (folder / "metrics.csv").read_text()


def assert_equal(one, two):
    assert one[0].keys() == two[0].keys()
    assert all(torch.equal(one[0][key], two[0][key]) for key in one[0])
    torch.testing.assert_close(one[1], two[1], rtol=0, atol=0)
    assert one[2] == two[2]


HOOK = 'call._call_callback_hooks(trainer, "on_train_batch_end", batch_output, batch, batch_idx)'
MODULES_HOOK = HOOK.replace("callback_hooks", "lightning_module_hook")
CHANGES = {
    "class": ("class _TrainingEpochLoop(", "class _BatchLoop("),
    "signature": ("def advance(self, data_fetcher: _DataFetcher)", "def advance(self, data_fetcher, *, skip=False)"),
    "attribute": ("scheduler_progress", "schedulers"),
    "order of calls": (f"{HOOK}\n        {MODULES_HOOK}", f"{MODULES_HOOK}\n        {HOOK}"),
}


@pytest.fixture
def change_lightning(monkeypatch, tmp_path):
    """Change the source of Lightning's loop, as another version might."""

    def change(old, new):
        source = Path(training_epoch_loop.__file__).read_text()
        assert old in source
        path = tmp_path / "changed_epoch_loop.py"
        path.write_text(source.replace(old, new))
        spec = importlib.util.spec_from_file_location("changed_epoch_loop", path)
        changed = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, "changed_epoch_loop", changed)
        spec.loader.exec_module(changed)
        loop = getattr(changed, "_TrainingEpochLoop", None)
        if loop is None:
            monkeypatch.delattr(training_epoch_loop, "_TrainingEpochLoop")
        else:
            monkeypatch.setattr(training_epoch_loop, "_TrainingEpochLoop", loop)
        for user in (trainer_module, fit_loop):
            monkeypatch.setattr(user, "_TrainingEpochLoop", loop or changed._BatchLoop)

    lightning_internals._warn_once.cache_clear()
    return change


@pytest.mark.parametrize("kind", CHANGES)
def test_where_lightning_has_changed_its_own_loop_trains_to_the_same_weights(
    kind, change_lightning, fast, tmp_path, store, monkeypatch, caplog
):
    change_lightning(*CHANGES[kind])
    monkeypatch.setattr(fast_epoch_loop.Steps, "__init__", lambda *_: pytest.fail("kdexp's loop was used"))
    with caplog.at_level(logging.WARNING, "kdexp"):
        assert_equal(trained(tmp_path / "one", store), fast)
        trained(tmp_path / "two", store)
    (message,) = [line for line in caplog.messages if "Lightning" in line]
    assert message.startswith(
        f"warning: Lightning {pl.__version__} has changed: Lightning's own loop trains, with the same numbers, instead "
        f"of kdexp's faster one: {kind}: "
    )
    assert "_TrainingEpochLoop" in message or "scheduler_progress" in message
    assert "\n" not in message


def test_where_lightning_has_changed_it_handles_signals_and_ranks_itself(fast, tmp_path, store, monkeypatch, caplog):
    lightning_internals._warn_once.cache_clear()
    kind = signal_connector._SignalConnector
    own = kind.register_signal_handlers
    monkeypatch.setattr(kind, "register_signal_handlers", lambda self, again=False: own(self))
    monkeypatch.setattr(child_ranks, "take_over", lambda _: pytest.fail("kdexp's was used"))
    with caplog.at_level(logging.WARNING, "kdexp"):
        assert_equal(trained(tmp_path, store), fast)
    (message,) = [line for line in caplog.messages if "Lightning" in line]
    assert "Lightning's own handling of signals and ranks is used" in message
    assert message.endswith("_SignalConnector.register_signal_handlers must take (self), got (self again)")
