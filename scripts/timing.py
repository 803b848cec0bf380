"""What the benchmarks share: measurements taken in turn, their medians and spread, and the work that is measured."""

import logging
import platform
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch.nn import functional as F

from kdexp.config.compose import compose
from kdexp.experiment.experiment import Experiment
from kdexp.experiment.networks import build_network, is_channels_last
from kdexp.teacher.teacher import PRECISIONS, Teacher
from kdexp.training.auto_compile import compile_in_place
from kdexp.training.fit import fit, quiet_lightning

quiet_lightning(logging.ERROR)
logging.getLogger("kdexp").setLevel(logging.ERROR)


def machine() -> str:
    """One line: what the figures were taken on."""
    cpu = next((line.split(": ")[1] for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
               platform.processor()) if Path("/proc/cpuinfo").exists() else platform.processor()  # fmt: skip
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning"))
    return f"{cpu}{gpu}, {torch.get_num_threads()} threads, {versions}, Python {platform.python_version()}"


def now(device: torch.device) -> float:
    """Seconds, once all that the device was given is done."""
    torch.get_device_module(device).synchronize()
    return time.perf_counter()


def in_turn(rounds: int, *, warm_up: bool = True, **measures: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds that each measure returns, in turn, so that a busy machine slows all; a first round can warm up."""
    found: dict[str, list[float]] = {name: [] for name in measures}
    for turn in range(-warm_up, rounds):
        for name, measure in measures.items():
            seconds = measure()
            if turn >= 0:
                found[name].append(seconds)
    return found


def row(what: str, ours: list[float], other: list[float], unit: float = 1e3, digits: int = 2) -> str:
    """A row of docs/benchmarks.md: both medians, and the median and spread of the paired ratios ours / other."""
    ratios = sorted(a / b for a, b in zip(ours, other, strict=True))
    middle = [f"{unit * statistics.median(seconds):.{digits}f}" for seconds in (ours, other)]
    spread = f"{ratios[0]:.2f} to {ratios[-1]:.2f}"
    return f"| {what} | {middle[0]} | {middle[1]} | **{statistics.median(ratios):.2f}** | {spread} |"


class Work:
    """A distillation on made-up images, in kdexp and as the bare loop that one would write by hand.

    Args:
        student: an option of conf/student, or its settings after it: "mlp student.hidden=[16]".
        teacher: an option of conf/teacher likewise; its weights stay as they are at first.
        steps: of an epoch.
        batch: samples in a step.
        shape: of an image.
        classes: C.
        settings: more of them.
    """

    def __init__(self, student: str, teacher: str, steps: int, batch: int = 64, shape: tuple[int, ...] = (3, 32, 32),
                 classes: int = 100, settings: tuple[str, ...] = ()) -> None:  # fmt: skip
        self.folder = Path(tempfile.mkdtemp())
        self.steps, self.batch = steps, batch
        per_channel = [0.5] * shape[0], [0.25] * shape[0]
        val = max(classes, batch)
        samples = max(steps * batch, classes) + val
        self.settings = [
            "experiment=smoke", "tracking=none", "augment=none", "optimizer=sgd", "scheduler=constant",
            *f"student={student}".split(), *f"teacher={teacher}".split(), f"dataset.input_shape={list(shape)}",
            f"dataset.num_classes={classes}", f"dataset.mean={per_channel[0]}", f"dataset.std={per_channel[1]}",
            f"dataset.batch_size={batch}", "trainer.gradient_stats_every_n_steps=0", "trainer.max_epochs=1",
            "trainer.channels_last=false",  # as in the loop written by hand
            f"dataset.source.train_samples={samples}", f"dataset.val_fraction={val / samples}", *settings,
        ]  # fmt: skip
        self.config = self.composed()
        self.data = Experiment(self.config).data
        torch.manual_seed(0)
        networks = [build_network(self.config.teacher, "teacher", self.config.dataset, self.config.task)]
        self.teacher = Teacher(networks, kind="multiclass", precision=self.config.teacher.precision)

    def composed(self, *more: str):
        """Its configuration with other settings."""
        return compose([*self.settings, *more], output_dir=self.folder, store_dir=self.folder)

    def kdexp(self, *more: str, alone: bool = False) -> float:
        """Seconds from the first step to the last, of one epoch unless more are set; a cache is filled before."""
        clock = self.clock(*more, alone=alone)
        return clock[-1] - clock[0]

    def clock(self, *more: str, alone: bool = False) -> list[float]:
        """When the steps of each epoch began and when they had ended, in turn; a cache is filled before."""
        config = self.composed(*more, *(["alpha=1"] if alone else []))
        data = Experiment(config).data if more else self.data
        shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        teacher = None if alone else self.teacher
        experiment = Experiment(config)
        experiment.data, experiment.teacher = data, teacher
        for network in self.teacher.networks:
            last = is_channels_last(network, config.trainer.channels_last, experiment.device)
            network.to(experiment.device, memory_format=torch.channels_last if last else torch.contiguous_format)
        module, device = experiment.distiller, experiment.device
        module.cache = experiment.cache
        if config.trainer.compile:
            torch._dynamo.reset()
            compile_in_place([experiment.student, *([] if alone or module.cache else self.teacher.networks)])
        if module.cache is not None:
            module.cache.prepare("train")
        clock: list[float] = []
        first, last = module.on_train_epoch_start, module.on_validation_epoch_start
        module.on_train_epoch_start = lambda: (first(), clock.append(now(device)))
        module.on_validation_epoch_start = lambda: (clock.append(now(device)), last())
        settings = {"devices": 1, "limit_train_batches": self.steps}
        settings |= {name: config.trainer[name] for name in ("accelerator", "precision", "max_epochs")}
        fit(module, data.student, self.folder, settings, owner="timing")
        self.teacher.networks[0].to(memory_format=torch.contiguous_format)  # as all others find it
        return clock

    def bare(self, *, alone: bool = False) -> float:
        """Seconds of the same epoch in a loop written by hand."""
        return self.bare_epochs(1, alone=alone)[0]

    def bare_epochs(self, epochs: int, *, alone: bool = False) -> list[float]:
        """Seconds of each epoch in that loop, the data on the device; in half precision and compiled where kdexp is."""
        trainer, experiment = self.config.trainer, Experiment(self.config)
        device, kind = experiment.device, PRECISIONS[trainer.precision]
        student, network = experiment.new_student(pretrained=None).to(device), self.teacher.networks[0].to(device)
        if is_channels_last(network, trainer.channels_last, device):
            network.to(memory_format=torch.channels_last)
        if trainer.compile:
            torch._dynamo.reset()
            for each in (student, *([] if alone else [network])):
                each.compile()
        optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        split, shape = self.data.student.splits.train, (1, -1, 1, 1)
        inputs, targets, index = (each.to(device) for each in (split.inputs, split.target, split.index))
        mean, std = (
            torch.tensor(list(self.config.dataset[name]), device=device).view(shape) for name in ("mean", "std")
        )
        alpha, T = self.config.alpha, self.config.temperature
        seconds = []
        for _ in range(epochs):
            order = torch.randperm(len(split.index), device=device)
            started = now(device)
            for step in range(self.steps):
                chosen = order[step * self.batch : (step + 1) * self.batch]
                images = (inputs[index[chosen]].float() / 255 - mean) / std
                target = targets[chosen]
                with torch.autocast(device.type, kind, enabled=kind is not None):
                    logits = student(images)
                logits = logits.float()
                loss = F.cross_entropy(logits, target)
                if not alone:
                    with torch.no_grad(), torch.autocast(device.type, kind, enabled=kind is not None):
                        taught = network(images)
                    wanted = F.log_softmax(taught.float() / T, 1)
                    soft = F.kl_div(F.log_softmax(logits / T, 1), wanted, reduction="batchmean", log_target=True)
                    loss = alpha * loss + (1 - alpha) * T * T * soft
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            seconds.append(now(device) - started)
        self.teacher.networks[0].to(memory_format=torch.contiguous_format)
        return seconds

    def remove(self) -> None:
        """Remove what it wrote."""
        shutil.rmtree(self.folder)
