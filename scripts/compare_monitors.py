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
    "dataset.kind=binary",
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
    "dataset.kind=binary",
    "student=mlp",
    "teacher=mlp_large",
    "teacher.recipe.max_epochs=20",
    "optimizer.lr=0.003",
    "trainer.max_epochs=40",
)
DIGITS = (
    "dataset=digits",
    "dataset.train_fraction=0.1",
    "dataset.drop_last=false",
    "teacher=cnn_large",
    "student=mlp",
    "optimizer.lr=0.01",
    "trainer.accelerator=cpu",
    "trainer.max_epochs=100",
)

CASES: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    # name: settings, metrics on test
    "digits, 144 on val: control": ([*DIGITS, "alpha=1"], ["acc"]),
    "digits, 144 on val: distilled": ([*DIGITS, "alpha=0.1"], ["acc"]),
    "digits, 144 on val: the teacher's training": (
        [
            *DIGITS,
            "alpha=1",
            "student=cnn_large",
            "dataset.train_fraction=1",
            "trainer.max_epochs=30",
            "optimizer.lr=0.001",
        ],
        ["acc"],
    ),
    "2 % positives: control, lr 0.001": ([*RARE, "alpha=1", "optimizer.lr=0.001"], ["auc"]),
    "2 % positives: control, lr 0.01": ([*RARE, "alpha=1", "optimizer.lr=0.01"], ["auc"]),
    "2 % positives: distilled, lr 0.01": ([*RARE, "optimizer.lr=0.01"], ["auc"]),
    "2 % positives: control that overfits": (
        [*RARE, "alpha=1", "student.hidden=[512,512]", "optimizer.lr=0.003", "trainer.max_epochs=30"],
        ["auc"],
    ),
    "2 % positives, dataset.class_sampling=balanced: control": (
        [*RARE, "alpha=1", "optimizer.lr=0.01", "dataset.class_sampling=balanced"],
        ["auc"],
    ),
    "Fashion-MNIST, 600 on val: control": ([*FASHION, "alpha=1"], ["acc"]),
    "Fashion-MNIST, 600 on val: distilled": ([*FASHION], ["acc"]),
    "2 % positives, dataset.class_sampling=balanced: control, lr 0.001": (
        [*RARE, "alpha=1", "optimizer.lr=0.001", "dataset.class_sampling=balanced"],
        ["auc"],
    ),
    "2 % positives, 6 of them on val: control, lr 0.01": (
        [*RARE, "alpha=1", "optimizer.lr=0.01", "+dataset.source.train=3000"],
        ["auc"],
    ),
    "CIFAR-100, 2,500 on val: control that overfits": ([*CIFAR, "alpha=1"], ["acc"]),
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

    from kdexp.config.compose import compose, plain
    from kdexp.experiment.experiment import Experiment
    from kdexp.experiment.new_metrics import new_metrics
    from kdexp.metrics.evaluate import evaluate
    from kdexp.training.fit import ignore_known_warnings
    from kdexp.training.lightning_internals import use_fast_epoch_loop

    torch.set_num_threads(1)
    given = [
        *settings,
        f"seed={seed}",
        f"dataset.split_seed={seed}",
        "trainer.accelerator=cpu",
        "trainer.gradient_stats_every_n_steps=0",
    ]
    config = OmegaConf.create(plain(compose(given, output_dir="unused")))
    experiment = Experiment(config)
    data, module = experiment.data, experiment.distiller
    rows: list[dict[str, float]] = []

    class Measure(pl.callbacks.Checkpoint):
        def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
            measured = [
                {
                    f"{split}/{name}": value
                    for name, value in evaluate(
                        module.student,
                        data.student.eval_batches(split, "cpu"),
                        new_metrics(data, split),
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
    use_fast_epoch_loop(trainer)
    trainer.fit(module, datamodule=data.student)
    return rows


def collect(path: Path, seeds: int, only: str) -> None:
    """Train what is not in the file yet, of the cases with a text in their name."""
    done = {(line["case"], line["seed"]) for line in read(path)}
    for seed in range(seeds):
        for case, (settings, _) in CASES.items():
            if only in case and (case, seed) not in done:
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


def by(name: str, *, smooth: bool = False) -> Callable[[Sequence[Row]], int]:
    """A rule: the epoch with the best value of a metric, or mean of three; the lower NLL decides a tie."""
    sign = -1 if name == "val/nll" else 1

    def choose(rows: Sequence[Row]) -> int:
        values = smoothed(rows, name) if smooth else [row[name] for row in rows]
        return argmax([(sign * value, -row["val/nll"]) for value, row in zip(values, rows, strict=True)])

    return choose


RULES: dict[str, Callable[[Sequence[Row]], int]] = {
    "last epoch": lambda rows: len(rows) - 1,
    "acc, first of equals": lambda rows: argmax([row["val/acc"] for row in rows]),
    **{name: by(f"val/{name}") for name in ("acc", "auc", "nll", "f1")},
    **{f"{name}, mean of 3": by(f"val/{name}", smooth=True) for name in ("acc", "auc", "nll")},
}


def table(path: Path) -> None:
    """Print what each rule loses of a test metric, in points: the mean over seeds, and the worst."""
    lines = read(path)
    print(f"| | seeds | on test | {' | '.join(RULES)} |\n{'|---' * (3 + len(RULES))}|")
    for case, (_, metrics) in CASES.items():
        runs = [line["rows"] for line in lines if line["case"] == case]
        for metric in metrics if runs else ():
            name, cells = f"test/{metric}", []
            for choose in RULES.values():
                lost = [100 * (max(row[name] for row in rows) - rows[choose(rows)][name]) for rows in runs]
                cells.append(f"{statistics.fmean(lost):.1f} ({max(lost):.1f})")
            print(f"| {case} | {len(runs)} | {metric} | {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--only", default="", help="cases with this in their name")
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        table(arguments.out)
        return
    os.environ["KDEXP_TRUST"] = "compare_monitors"
    sys.path.insert(0, str(Path(__file__).parent))
    collect(arguments.out, arguments.seeds, arguments.only)


if __name__ == "__main__":
    main()
