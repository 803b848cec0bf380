"""Every method on one data set with three seeds: docs/method_results.md, which docs/methods.md ends with.

    python scripts/method_table.py --out method_table

About half an hour on two CPU cores. It goes on where it was interrupted: runs that are complete in --out are not run
again.
Further arguments are settings of kdexp-train, for another data set or longer runs:

    python scripts/method_table.py --out cifar dataset=cifar100 teacher=resnet56 student=resnet20 trainer=gpu
"""

import argparse
import os
import platform
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import track

from kdexp import results
from kdexp.config.compose import compose, plain
from kdexp.config.identity import Identity

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "method_results.md"
SEEDS = (0, 1, 2)
SETTINGS = (
    "dataset=fashion_mnist",
    "dataset.train_fraction=0.05",
    "dataset.val_fraction=0.03",
    "augment=none",
    "teacher=cnn_large",
    "teacher.width=16",
    "augment@teacher.recipe.augment=none",
    "teacher.recipe.max_epochs=4",
    "teacher.recipe.batch_size=128",
    "teacher.recipe.optimizer.lr=0.002",
    "teacher.cache=unaugmented",
    "student=cnn",
    "student.width=8",
    "optimizer.lr=0.005",
    "trainer=cpu",
    "trainer.max_epochs=10",
    "trainer.gradient_stats_every_n_steps=0",
    "trainer.channels_last=false",  # as when the table was made: another memory format moves digits
    "tracking=none",
)
PUBLISHED_EPOCHS = 240  # of the CIFAR-100 benchmark, to which warm-ups refer

EPOCHS = ("warmup_epochs", "ramp_epochs")  # settings of terms that count epochs

# Feature distillation terms stand beside the cross entropy alone (alpha=1), but for those published with other terms.
BESIDE = {
    "cosine": ("alpha=0.2857", "temperature=2"),
    "semckd": ("alpha=0.5", "feature_loss.semckd.weight=200"),
    "simkd": (),  # its yaml says what counts
}


def methods() -> dict[str, tuple[str, ...]]:
    """Name in the table -> the settings that choose the method."""
    found: dict[str, tuple[str, ...]] = {"control": ("alpha=1",)}
    for path in sorted((ROOT / "conf" / "loss").glob("*.yaml")):
        found[path.stem] = (f"loss={path.stem}",)
    for path in sorted((ROOT / "conf" / "feature_loss").glob("*.yaml")):
        name = path.stem
        found[f"{name} (features)"] = (f"feature_loss={name}", *BESIDE.get(name, ("alpha=1",)))
    return found


def settings_of(choice: Sequence[str], given: Sequence[str], seed: int) -> list[str]:
    """The settings of one run: warm-ups are as long a part of it as they are of the published training."""
    base = [*SETTINGS, *given, *choice, f"seed={seed}"]
    config = compose(base, output_dir="unused")
    terms = {"loss": config.loss} | {f"feature_loss.{name}": term for name, term in config.feature_loss.items()}
    terms |= {f"{name}.loss": term.loss for name, term in terms.items() if "loss" in term}  # what a *_ls wraps
    share = config.trainer.max_epochs / PUBLISHED_EPOCHS
    lengths = [(f"{name}.{key}", term.get(key)) for name, term in terms.items() for key in EPOCHS]
    return base + [f"{setting}={max(round(share * length), 1)}" for setting, length in lengths if length]


def train(choice: Sequence[str], given: Sequence[str], seed: int, folder: Path) -> None:
    """One run, in a worker process, unless it is there already."""
    import torch

    from kdexp.experiment.run import run

    torch.set_num_threads(1)
    config = compose(settings_of(choice, given, seed), output_dir=folder)
    try:
        earlier = results.read(folder, "out")
    except ValueError:
        earlier = {}
    if earlier.get("status") == "completed" and earlier["fingerprint"] == Identity(plain(config)).fingerprint:
        return
    with folder.with_suffix(".log").open("w") as log, redirect_stdout(log):
        run(config)


def row(name: str, runs: Sequence[dict[str, Any]], controls: Sequence[dict[str, Any]]) -> str:
    """A line of the table: test accuracy of the best epoch by validation and of the last, and the gain by seed."""
    cells = [accuracies(runs, which) for which in ("best", "last")]
    gains = [b - a for a, b in zip(accuracies(controls, "best"), cells[0], strict=True)]
    gain = "" if name == "control" else spread(gains, "+.2f")
    return f"| {name} | {spread(cells[0])} | {spread(cells[1])} | {gain} |"


def accuracies(runs: Sequence[dict[str, Any]], which: str) -> list[float]:
    return [100 * run["metrics"]["test"][which]["acc"] for run in runs]


def spread(values: Sequence[float], form: str = ".2f") -> str:
    return f"{statistics.fmean(values):{form}} ± {statistics.stdev(values):.2f}"


def page(given: Sequence[str], runs: dict[str, list[dict[str, Any]]]) -> str:
    """The table with what it was made from."""
    controls = runs["control"]
    versions = ", ".join(f"{name} {controls[0]['versions'][name]}" for name in ("kdexp", "torch"))
    taught = runs["kd"][0]["teacher"]["test"]["acc"]
    shown = "\n".join(f"    {setting}" for setting in (*SETTINGS, *given))
    rows = "\n".join(row(name, found, controls) for name, found in runs.items())
    return f"""# One table of all methods

Made by `{" ".join(["python scripts/method_table.py --out DIR", *given])}` ({versions}, {platform.machine()} CPU) with

{shown}

Every method at its published setting, which was found on other data with other networks: the table shows that the
methods work and how far a setting carries, not which of them is best. Soft terms have the alpha and temperature of
their yaml; feature losses stand beside the cross entropy alone (alpha=1), but for cosine, semckd and simkd, which
their papers define with other terms. Warm-ups are shortened in proportion to the number of epochs. Test accuracy in %
of the epoch with the best validation accuracy and of the last epoch; mean ± standard deviation over seeds
{", ".join(map(str, SEEDS))}; the gain pairs runs of the same seed. The teacher has {100 * taught:.2f} %.

| method | best epoch by validation | last epoch | gain over the control |
| --- | --- | --- | --- |
{rows}"""


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at the same time")
    arguments, given = parser.parse_known_args()
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    chosen = methods()
    folders = {(name, seed): out / f"{name.replace(' ', '_')}_{seed}" for name in chosen for seed in SEEDS}
    with ProcessPoolExecutor(arguments.workers) as pool:
        jobs = {
            job: partial(pool.submit, train, chosen[job[0]], given, job[1], folder) for job, folder in folders.items()
        }
        jobs.pop(("kd", SEEDS[0]))().result()  # its teacher is everybody's, and would keep the others waiting
        futures = [start() for start in jobs.values()]
        for future in track(as_completed(futures), total=len(futures), description="runs"):
            future.result()
    runs = {name: [results.read(folders[name, seed], "out") for seed in SEEDS] for name in chosen}
    TABLE.write_text(page(given, runs) + "\n")
    print(f"written: {TABLE}; now python scripts/make_methods_page.py")


if __name__ == "__main__":
    main()
