"""The line that says what came out of an epoch."""

import logging
from types import SimpleNamespace

import pytest
from small_training import sgd
from torch import nn

from kdexp.losses.kd import KD
from kdexp.tasks.classification import Classification
from kdexp.tasks.segmentation import Segmentation
from kdexp.training.distiller import Distiller
from kdexp.training.epoch_table import MetricsCSVCallback


@pytest.mark.parametrize(
    ("task", "shown"),
    [
        (Classification(3), "val/acc 0.9000"),
        (Segmentation(3), "val/miou 0.4000"),
        (Segmentation(1, "binary"), "val/dice 0.6000"),
    ],
    ids=["classes", "masks", "binary masks"],
)
def test_an_epoch_is_told_by_the_metric_of_the_task(tmp_path, caplog, task, shown):
    caplog.set_level(logging.INFO, "kdexp")
    module = Distiller(
        nn.Conv2d(3, task.num_outputs, 1), sgd, task=task, alpha=1.0, temperature=1.0, soft_loss=KD(1.0, kind=task.kind)
    )
    module.epoch_metrics = {"train/loss": 1.0, "val/loss": 2.0, "val/acc": 0.9, "val/miou": 0.4, "val/dice": 0.6}
    trainer = SimpleNamespace(current_epoch=0, global_step=1, is_global_zero=True, max_epochs=1)
    table = MetricsCSVCallback(tmp_path / "metrics.csv", "student", say_every_seconds=0.0)
    table.on_train_epoch_start(trainer, module)
    table.on_train_epoch_end(trainer, module)
    (line,) = caplog.messages
    assert line.startswith(f"student: epoch 1/1  train/loss 1.0000 val/loss 2.0000 {shown}  ")
