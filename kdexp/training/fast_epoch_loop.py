"""The Trainer's loop over training batches, without what no training here uses.

Lightning's own spends about a millisecond on every step, whatever the step computes: it calls every callback and plugin
at each of a dozen hooks, keeps results that nothing logs, and wraps the optimizer's step twice. For a small network on
a CPU that is several times the step itself (docs/benchmarks.md). `Steps` does the same work in the same order, to the
bit, where one process trains on one device; every other training goes through Lightning's own loop, and so does all
that is not a step: epochs, validation, checkpoints, resuming.
"""

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loops.fetchers import _DataFetcher
from pytorch_lightning.loops.training_epoch_loop import _TrainingEpochLoop
from pytorch_lightning.plugins.precision import MixedPrecision, Precision
from pytorch_lightning.strategies import SingleDeviceStrategy

from kdexp.training.distiller import Distiller


class Steps(_TrainingEpochLoop):
    """Use it as ``trainer.fit_loop.epoch_loop``. Of the module's hooks, those around a training batch are called."""

    def __init__(self, trainer: pl.Trainer) -> None:
        own = trainer.fit_loop.epoch_loop
        super().__init__(trainer, own.min_steps, own.max_steps)
        self._is_plain: bool | None = None

    def advance(self, data_fetcher: _DataFetcher) -> None:
        """One step."""
        if self._is_plain is None:
            self._is_plain = self._find_out()
        if self.restarting or not self._is_plain:
            super().advance(data_fetcher)
            return
        trainer, module, data = self.trainer, self.trainer.lightning_module, self._data
        batch, _, _ = next(data_fetcher)
        batch_idx = self.batch_idx + 1
        progress, optimizer_progress = self.batch_progress, self.automatic_optimization.optim_progress.optimizer
        progress.is_last_batch = data_fetcher.done
        batch = data.transfer_batch_to_device(batch, module.device, 0)
        batch = data.on_after_batch_transfer(batch, 0)
        progress.increment_ready()
        for callback in self._callbacks:
            callback.on_train_batch_start(trainer, module, batch, batch_idx)
        module.on_train_batch_start(batch, batch_idx)
        progress.increment_started()
        optimizer_progress.step.increment_ready()
        with trainer.precision_plugin.train_step_context():
            loss = module.training_step(batch, batch_idx)
        optimizer_progress.zero_grad.increment_ready()
        optimizer_progress.zero_grad.increment_started()
        self._optimizer.zero_grad()
        optimizer_progress.zero_grad.increment_completed()
        module.backward(loss)
        if trainer.gradient_clip_val is not None:
            module.clip_gradients(self._optimizer, trainer.gradient_clip_val, trainer.gradient_clip_algorithm)
        self._optimizer.step()
        optimizer_progress.step.increment_completed()
        progress.increment_processed()
        for config in trainer.lr_scheduler_configs:
            self.scheduler_progress.increment_ready()
            config.scheduler.step()
            self.scheduler_progress.increment_completed()
        outputs = {"loss": loss.detach()}
        for callback in self._callbacks:
            callback.on_train_batch_end(trainer, module, outputs, batch, batch_idx)
        module.on_train_batch_end(outputs, batch, batch_idx)
        progress.increment_completed()

    def on_advance_end(self, data_fetcher: _DataFetcher) -> None:
        """After a step: validation, where it is time for it."""
        if self.restarting or not self._is_plain or self._num_ready_batches_reached():
            super().on_advance_end(data_fetcher)
        else:
            self._batches_that_stepped += 1

    def _broadcast_sigterm_tensor(self) -> None:
        """Nothing: signals are kdexp's (`kdexp.training.child_ranks`); Lightning's own swallows connection errors."""

    def _find_out(self) -> bool:
        """Whether this is a training that `advance` does itself."""
        trainer = self.trainer
        data, configs = trainer.datamodule, trainer.lr_scheduler_configs
        plugin: object = trainer.precision_plugin
        if not isinstance(trainer.lightning_module, Distiller) or data is None:
            return False
        self._data, self._optimizer = data, trainer.optimizers[0]
        # Those that listen to single steps: the progress bar, when there is a terminal.
        self._callbacks = [
            callback
            for callback in trainer.callbacks
            if type(callback).on_train_batch_start is not Callback.on_train_batch_start
            or type(callback).on_train_batch_end is not Callback.on_train_batch_end
        ]
        return (
            type(trainer.strategy) is SingleDeviceStrategy
            and type(plugin) in (Precision, MixedPrecision)
            and getattr(plugin, "scaler", None) is None
            and trainer.accumulate_grad_batches == 1
            and trainer.val_check_batch == trainer.num_training_batches
            and all(config.interval == "step" and config.frequency == 1 for config in configs)
        )
