"""What a step of online distillation costs in kdexp, against a bare hand-written PyTorch loop doing the same work.

    python scripts/bench_step.py [--student resnet20] [--teacher resnet56] [--batch 64] [--steps 20] [--rounds 5]

Both train the same networks on the same uint8 images in memory with the same normalisation, loss and optimizer. Rounds
of the two are taken in turn, so that a busy machine slows both; printed are the medians, their ratio, and the ratio's
spread over the rounds.
"""

import argparse
import logging
import platform
import statistics
import tempfile
import time
import warnings

import pytorch_lightning as pl
import torch
from torch.nn import functional as F

from kdexp import assemble
from kdexp.config import compose


class Clock(pl.Callback):
    """Seconds of each step after the first few, from the start of one to the start of the next."""

    def __init__(self, skip: int) -> None:
        self.skip, self.starts = skip, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.starts.append(time.perf_counter())

    def mean(self) -> float:
        starts = self.starts[self.skip :]
        return (starts[-1] - starts[0]) / (len(starts) - 1)


def kdexp_step(config, data: assemble.Data, teacher, steps: int) -> float:
    module = assemble.distiller(config, assemble.student(config), teacher, data)
    clock = Clock(skip=3)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers and intervals
        trainer = pl.Trainer(
            default_root_dir=folder, accelerator="cpu", max_epochs=1, limit_train_batches=steps + 3,
            limit_val_batches=0, logger=False, enable_checkpointing=False, enable_progress_bar=False,
            enable_model_summary=False, callbacks=[clock], use_distributed_sampler=False,
        )  # fmt: skip
        trainer.fit(module, datamodule=data.student)
    return clock.mean()


def bare_step(config, data: assemble.Data, teacher, steps: int) -> float:
    student, network = assemble.student(config), teacher.networks[0]
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    split = data.student.splits.train
    mean = torch.tensor(list(config.dataset.mean)).view(1, -1, 1, 1)
    std = torch.tensor(list(config.dataset.std)).view(1, -1, 1, 1)
    size, alpha, T = config.dataset.batch_size, config.alpha, config.temperature
    order = split.index[torch.randperm(len(split.index))]
    starts = []
    for step in range(steps + 3):
        starts.append(time.perf_counter())
        chosen = order[step * size : (step + 1) * size]
        images = (split.inputs[chosen].float() / 255 - mean) / std
        target = split.target[torch.arange(step * size, (step + 1) * size)]
        logits = student(images)
        with torch.no_grad():
            wanted = F.log_softmax(network(images) / T, 1)
        soft = T * T * F.kl_div(F.log_softmax(logits / T, 1), wanted, reduction="batchmean", log_target=True)
        loss = alpha * F.cross_entropy(logits, target) + (1 - alpha) * soft
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    starts = starts[3:]
    return (starts[-1] - starts[0]) / (len(starts) - 1)


def main() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--student", default="resnet20")
    parser.add_argument("--teacher", default="resnet56")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    samples = int((arguments.steps + 4) * arguments.batch / 0.9) + arguments.batch
    with tempfile.TemporaryDirectory() as folder:
        config = compose(
            [
                "experiment=smoke", "augment=none", "optimizer=sgd", "scheduler=constant", "tracking=none",
                f"student={arguments.student}", f"teacher={arguments.teacher}", "dataset.input_shape=[3,32,32]",
                "dataset.num_classes=100", "dataset.mean=[0.5,0.5,0.5]", "dataset.std=[0.25,0.25,0.25]",
                f"dataset.batch_size={arguments.batch}", f"dataset.source.train_samples={samples}",
                "trainer.gradient_stats_every_n_steps=0",
            ],
            output_dir=folder, store_dir=folder,
        )  # fmt: skip
        data = assemble.Data(config)
        torch.manual_seed(0)
        frozen = assemble.Teacher([assemble.network(config.teacher, "teacher", config.dataset)])
        ours, bare = [], []
        for _ in range(arguments.rounds):
            bare.append(bare_step(config, data, frozen, arguments.steps))
            ours.append(kdexp_step(config, data, frozen, arguments.steps))
    ratios = [a / b for a, b in zip(ours, bare, strict=True)]
    print(
        f"{arguments.teacher} -> {arguments.student}, batch {arguments.batch}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}, {platform.machine()}, {arguments.rounds} rounds of {arguments.steps} steps"
    )
    print(f"bare loop {1e3 * statistics.median(bare):.1f} ms/step   kdexp {1e3 * statistics.median(ours):.1f} ms/step")
    print(f"ratio {statistics.median(ratios):.3f}  (rounds: {' '.join(f'{r:.3f}' for r in sorted(ratios))})")


if __name__ == "__main__":
    main()
