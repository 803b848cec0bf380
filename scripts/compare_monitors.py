"""Which validation metric should choose the best epoch? Rules compared on the same trainings: docs/best_epoch.md.

    python scripts/compare_monitors.py --out monitors.jsonl       # trains; continues where it was interrupted
    python scripts/compare_monitors.py --out monitors.jsonl --table

Every student is measured on val and on test after each epoch. A rule sees val alone; what it costs is the difference
between the test metric of the best epoch (by test: nobody can choose that well) and of the epoch that it chooses.
Needs Fashion-MNIST and PneumoniaMNIST in KDEXP_DATA_DIR.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Row = Mapping[str, float]

RARE = (
    "dataset=breast_cancer",
    "dataset.source._target_=compare_monitors.rare",
    "dataset.name=rare",
    "dataset.task=binary",
    "dataset.num_classes=2",
    "dataset.input_shape=[8]",
    "dataset.mean=[0.0]",
    "dataset.std=[1.0]",
    "augment=none",
    "augment@teacher.recipe.augment=none",
    "student=mlp",
    "teacher=mlp",
    "teacher.recipe.max_epochs=10",
    "teacher.recipe.optimizer.lr=0.01",
    "trainer.max_epochs=10",
)
FASHION = (
    "dataset=fashion_mnist",
    "dataset.train_fraction=0.02",
    "dataset.val_fraction=0.01",
    "augment=none",
    "student=mlp",
    "student.hidden=[32]",
    "teacher=cnn_large",
    "teacher.width=8",
    "augment@teacher.recipe.augment=none",
    "teacher.recipe.train_fraction=0.3",
    "teacher.recipe.max_epochs=8",
    "optimizer.lr=0.005",
    "trainer.max_epochs=40",
)
CIFAR = (
    "dataset=cifar100",
    "dataset.train_fraction=0.2",
    "dataset.val_fraction=0.05",
    "augment=none",
    "student=mlp",
    "student.hidden=[512,512]",
    "trainer.max_epochs=30",
)
PNEUMONIA = (
    "dataset=pneumonia_mnist",
    "dataset.train_fraction=0.25",
    "student=cnn_small",
    "teacher=cnn_large",
    "teacher.width=8",
    "teacher.recipe.max_epochs=8",
    "optimizer.lr=0.005",
    "trainer.max_epochs=30",
)
CANCER = (
    "dataset=breast_cancer",
    "dataset.task=binary",
    "student=mlp",
    "teacher=mlp_large",
    "teacher.recipe.max_epochs=20",
    "optimizer.lr=0.003",
    "trainer.max_epochs=40",
)
DIGITS = ("experiment=quickstart", "hydra.mode=RUN")

CASES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # name: settings, metrics on test
    "digits, 144 on val: control": ([*DIGITS, "alpha=1"], ["acc", "nll"]),
    "digits, 144 on val: distilled": ([*DIGITS, "alpha=0.1"], ["acc", "nll"]),
    "digits, 144 on val: the teacher's training": (
        [
            *DIGITS,
            "alpha=1",
            "student=cnn_large",
            "dataset.train_fraction=1",
            "trainer.max_epochs=30",
            "optimizer.lr=0.001",
        ],
        ["acc", "nll"],
    ),
    "2 % positives: control, lr 0.001": ([*RARE, "alpha=1", "optimizer.lr=0.001"], ["auc", "nll"]),
    "2 % positives: control, lr 0.01": ([*RARE, "alpha=1", "optimizer.lr=0.01"], ["auc", "nll"]),
    "2 % positives: distilled, lr 0.01": ([*RARE, "optimizer.lr=0.01"], ["auc", "nll"]),
    "2 % positives: control that overfits": (
        [*RARE, "alpha=1", "student.hidden=[512,512]", "optimizer.lr=0.003", "trainer.max_epochs=30"],
        ["auc", "nll"],
    ),
    "2 % positives, dataset.resample=balanced: control": (
        [*RARE, "alpha=1", "optimizer.lr=0.01", "dataset.resample=balanced"],
        ["auc", "nll"],
    ),
    "Fashion-MNIST, 600 on val: control": ([*FASHION, "alpha=1"], ["acc", "nll"]),
    "Fashion-MNIST, 600 on val: distilled": ([*FASHION], ["acc", "nll"]),
    "CIFAR-100, 2,500 on val: control that overfits": ([*CIFAR, "alpha=1"], ["acc", "nll"]),
    "breast cancer, 45 on val: control": ([*CANCER, "alpha=1"], ["acc", "auc"]),
    "breast cancer, 45 on val: distilled": ([*CANCER], ["acc", "auc"]),
    "PneumoniaMNIST: control": ([*PNEUMONIA, "alpha=1"], ["acc", "auc"]),
    "PneumoniaMNIST: distilled": ([*PNEUMONIA], ["acc", "auc"]),
}


def rare(train: int = 6000, test: int = 30000, rate: float = 0.02, seed: int = 0) -> Any:
    """Two overlapping clouds of points, one of them rare."""
    import torch

    from kdexp.contracts import Source

    generator = torch.Generator().manual_seed(seed)

    def part(count: int) -> tuple[Any, Any]:
        target = (torch.rand(count, generator=generator) < rate).long()
        return torch.randn(count, 8, generator=generator) + 0.6 * target[:, None], target

    return Source(*part(train), *part(test))


def train(settings: Sequence[str], seed: int) -> list[dict[str, float]]:
    """One training; what was measured after each of its epochs."""
    import pytorch_lightning as pl
    import torch
    from omegaconf import OmegaConf

    from kdexp import assemble
    from kdexp.config import compose, plain
    from kdexp.fit import ignore_known_warnings
    from kdexp.loop import Steps
    from kdexp.metrics import evaluate

    torch.set_num_threads(1)
    given = [
        *settings,
        f"seed={seed}",
        f"dataset.split_seed={seed}",
        "trainer.accelerator=cpu",
        "trainer.gradient_stats_every_n_steps=0",
    ]
    config = OmegaConf.create(plain(compose(given, output_dir="unused")))
    data = assemble.Data(config)
    frozen = assemble.teacher(config, data)
    module = assemble.distiller(config, assemble.student(config, frozen), frozen, data)
    rows: list[dict[str, float]] = []

    class Measure(pl.callbacks.Checkpoint):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            measured = [
                {
                    f"{split}/{name}": value
                    for name, value in evaluate(
                        module.student,
                        data.student.eval_batches(split, "cpu"),
                        assemble.metrics(config, data.student, split),
                    ).items()
                }
                for split in ("val", "test")
            ]
            rows.append(measured[0] | measured[1])

    ignore_known_warnings()
    trainer = pl.Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=config.trainer.max_epochs,
        callbacks=[Measure()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit_loop.epoch_loop = Steps(trainer)
    trainer.fit(module, datamodule=data.student)
    return rows


def collect(path: Path, seeds: int) -> None:
    """Train what is not in the file yet."""
    done = {(line["case"], line["seed"]) for line in read(path)}
    for seed in range(seeds):
        for case, (settings, _) in CASES.items():
            if (case, seed) not in done:
                print(f"seed {seed}: {case}", flush=True)
                line = json.dumps({"case": case, "seed": seed, "rows": train(settings, seed)})
                with path.open("a") as file:
                    file.write(line + "\n")


def read(path: Path) -> list[dict[str, Any]]:
    """What was trained so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def smoothed(rows: Sequence[Row], name: str, epochs: int = 3) -> list[float]:
    """The mean of each epoch and the two before it."""
    values = [row[name] for row in rows]
    return [statistics.fmean(values[max(place - epochs + 1, 0) : place + 1]) for place in range(len(values))]


def argmax(scores: Sequence[Any]) -> int:
    """The first of the highest."""
    return max(range(len(scores)), key=lambda place: scores[place])


RULES: dict[str, Callable[[Sequence[Row]], int]] = {
    "last epoch": lambda rows: len(rows) - 1,
    "acc, the first of equals": lambda rows: argmax([row["val/acc"] for row in rows]),
    "acc, ties by nll": lambda rows: argmax([(row["val/acc"], -row["val/nll"]) for row in rows]),
    "f1, ties by nll": lambda rows: argmax([(row["val/f1"], -row["val/nll"]) for row in rows]),
    "recall (mean over classes), ties by nll": lambda rows: argmax(
        [(row["val/recall"], -row["val/nll"]) for row in rows]
    ),
    "auc, ties by nll": lambda rows: argmax([(row["val/auc"], -row["val/nll"]) for row in rows]),
    "nll": lambda rows: argmax([-row["val/nll"] for row in rows]),
    "mean of 3 epochs, acc": lambda rows: argmax(
        [(score, -row["val/nll"]) for score, row in zip(smoothed(rows, "val/acc"), rows, strict=True)]
    ),
    "mean of 3 epochs, auc": lambda rows: argmax(
        [(score, -row["val/nll"]) for score, row in zip(smoothed(rows, "val/auc"), rows, strict=True)]
    ),
    "mean of 3 epochs, nll": lambda rows: argmax([-score for score in smoothed(rows, "val/nll")]),
}


def table(path: Path) -> None:
    """Print for each case what each rule's epochs are worth on test."""
    lines = read(path)
    for case, (_, metrics) in CASES.items():
        runs = [line["rows"] for line in lines if line["case"] == case]
        if not runs:
            continue
        heads = " | ".join(f"test {name} | lost" for name in metrics)
        print(f"\n**{case}** ({len(runs)} seeds)\n\n| rule | epoch | {heads} |")
        print("|" + "---|" * (2 + 2 * len(metrics)))
        for rule, choose in RULES.items():
            chosen = [choose(rows) for rows in runs]
            cells = []
            for name in metrics:
                sign = -1 if name == "nll" else 1
                found = [rows[epoch][f"test/{name}"] for rows, epoch in zip(runs, chosen, strict=True)]
                best = [sign * max(sign * row[f"test/{name}"] for row in rows) for rows in runs]
                lost = [sign * (b - f) for b, f in zip(best, found, strict=True)]
                unit = 1 if name == "nll" else 100
                cells.append(
                    f"{unit * statistics.fmean(found):.2f} ± {unit * deviation(found):.2f} "
                    f"| {unit * statistics.fmean(lost):.2f} (worst {unit * max(lost):.2f})"
                )
            print(f"| {rule} | {statistics.fmean(chosen):.0f} | " + " | ".join(cells) + " |")


def deviation(values: Sequence[float]) -> float:
    """Of a sample; 0 of a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.out)
        return
    os.environ["KDEXP_TRUST"] = "compare_monitors"
    sys.path.insert(0, str(Path(__file__).parent))
    collect(arguments.out, arguments.seeds)


if __name__ == "__main__":
    main()
