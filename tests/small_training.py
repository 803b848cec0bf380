"""A training of milliseconds: three classes, five features, 24 samples."""

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader

from kdexp.contracts import Batch
from kdexp.losses.kd import KD
from kdexp.tasks.classification import Classification
from kdexp.teacher.teacher import Teacher
from kdexp.training.distiller import Distiller

CLASSES, FEATURES, SAMPLES, BATCH = 3, 5, 24, 8
TASK = Classification(CLASSES)


def network(seed: int = 0, width: int = 7) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(FEATURES, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, CLASSES))


def batches(permute_labels: bool = False) -> list[Batch]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(SAMPLES, FEATURES, generator=generator)
    target = torch.randint(CLASSES, (SAMPLES,), generator=generator)
    if permute_labels:
        target = target[torch.randperm(SAMPLES, generator=generator)]
    index = torch.arange(SAMPLES)
    return [Batch(inputs[i : i + BATCH], target[i : i + BATCH], index[i : i + BATCH]) for i in range(0, SAMPLES, BATCH)]


def loader(data: list[Batch]) -> DataLoader:
    return DataLoader(data, batch_size=None)  # Lightning takes a list for several loaders


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


def train(module: Distiller, data: list[Batch] | None = None, epochs: int = 3, callbacks=(), **settings) -> pl.Trainer:
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        callbacks=list(callbacks),
        **settings,
    )
    trainer.fit(module, loader(data or batches()), loader(batches()))
    return trainer


def distiller(student: nn.Module, teacher: nn.Module | None = None, **changed) -> Distiller:
    arguments = {"alpha": 0.3, "temperature": 2.0, "soft_loss": KD(2.0)} | changed
    frozen = Teacher([teacher]) if teacher is not None else None
    return Distiller(student, sgd, task=TASK, teacher=frozen, **arguments)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(tensor, b.state_dict()[name]) for name, tensor in a.state_dict().items())
