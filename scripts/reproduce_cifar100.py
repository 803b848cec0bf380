"""The published numbers of the CIFAR-100 benchmark again: pair x method x seed, beside what the papers print.

    python scripts/reproduce_cifar100.py --out reproduced --pairs resnet56-resnet20 --seeds 0,1,2

The recipe is that of Tian et al. (ICLR 2020; RepDistiller), which mdistiller and others share: SGD, batches of 64, 240
epochs, a drop after 150, 180 and 210. The numbers are in scripts/published_cifar100.csv. It goes on where it was
interrupted: a finished cell is a small JSON in --out/finished, and a run goes on from its last epoch. `--dry` runs
nothing: it prints the settings of each cell, what a student costs and the table of the cells that are there.

Left out are cc and ft, which are the papers' formulas in kdexp and others in the benchmark, ab and fsp, which have 30
epochs more there, and what is trained with stronger augmentation (mlkd).

`--scale cpu` is a shortened schedule for two CPU cores, about two hours: a resnet8 and a teacher that is trained here.

Further arguments are settings of kdexp-train: teacher.weights=FILE (the published teachers, say) or
trainer.limit_train_batches=3, which only shows that it runs. Cells of other settings need another --out.
"""

import argparse
import csv
import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed, wait
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kdexp.atomic import atomic_path
from kdexp.config.compose import compose
from kdexp.experiment.networks import build_network
from kdexp.models.complexity import macs

PUBLISHED = Path(__file__).with_name("published_cifar100.csv")
NETWORKS = {path.stem for path in (Path(__file__).parents[1] / "conf" / "student").glob("*.yaml")}
EPOCHS = 240
TRAIN = 49_000
"""Samples: 1,000 of the 50,000 are val, where the papers have none."""
BATCH = 64
RECIPE = (
    "dataset=cifar100",
    "dataset.mean=[0.5071,0.4867,0.4408]",
    "dataset.std=[0.2675,0.2565,0.2761]",
    "dataset.val_fraction=0.02",
    "dataset.drop_last=false",
    f"dataset.batch_size={BATCH}",
    "scheduler=multistep",
    "optimizer@teacher.recipe.optimizer=sgd",
    "scheduler@teacher.recipe.scheduler=multistep",
    "augment.seed=0",  # also where no outputs are cached: all methods see the same images
    "trainer.gradient_stats_every_n_steps=0",
    "tracking=none",
)


@dataclass(frozen=True)
class Method:
    """A method at its published setting.

    Attributes:
        settings: that choose it.
        total: the published weights of cross entropy and soft term together. They sum to one in kdexp, so that the
            learning rate is multiplied by it, and the weight decay divided: with SGD the same training.
        warmup: the setting of its warm-up or ramp, and its epochs of 240.
    """

    settings: tuple[str, ...]
    total: float = 1.0
    warmup: tuple[str, int] | None = None


CACHE = "teacher.cache=per_epoch"
METHODS = {
    "control": Method(("alpha=1",)),
    "kd": Method(("loss=kd", CACHE)),
    "dkd": Method(("loss=dkd", CACHE), 2.0, ("loss.warmup_epochs", 20)),
    "kd_ls": Method(("loss=kd_ls", CACHE)),
    "ctkd": Method(("loss=ctkd", CACHE), 1.0, ("loss.ramp_epochs", 10)),
    "dist": Method(("loss=dist", CACHE), 2.0),
    "reviewkd": Method(("feature_loss=reviewkd", "alpha=1"), 1.0, ("feature_loss.reviewkd.warmup_epochs", 20)),
} | {
    name: Method((f"feature_loss={name}", "alpha=1"))
    for name in ("fitnet", "at", "sp", "vid", "rkd", "pkt", "nst", "crd")
}
OF_PAIRS = {
    "dkd": {
        "loss.nckd_weight=2": ("resnet56-resnet20", "resnet110-resnet20", "resnet110-resnet32"),
        "loss.nckd_weight=6": ("vgg13-vgg8", "vgg13-mobilenetv2_half", "wrn_40_2-wrn_16_2", "wrn_40_2-wrn_40_1"),
    },
    "reviewkd": {
        "feature_loss.reviewkd.weight=0.6": ("resnet56-resnet20",),
        "feature_loss.reviewkd.weight=5": ("wrn_40_2-wrn_16_2", "wrn_40_2-wrn_40_1", "resnet32x4-resnet8x4"),
    },
}
"""What the papers set otherwise for some pairs."""


@dataclass(frozen=True)
class Scale:
    """How long and on what.

    Attributes:
        settings: of the trainer.
        epochs: of a student.
        teacher_epochs: of a teacher.
        pairs: unless others are given.
        methods: likewise.
        beside: pair whose published numbers stand beside; None: the same.
        workers: runs at the same time.
    """

    settings: tuple[str, ...]
    epochs: int
    teacher_epochs: int
    pairs: tuple[str, ...]
    methods: tuple[str, ...]
    beside: str | None
    workers: int


with PUBLISHED.open() as _file:
    _ROWS = list(csv.DictReader(_file))
OF_BEST_EPOCH = {row["method"] for row in _ROWS if row["epoch"] == "best"}
"""Methods whose papers print the best epoch on test, which is about 0.3 points more than the last."""


def published() -> dict[str, dict[str, float]]:
    """Pair, as TEACHER-STUDENT -> method -> test accuracy in %; the teacher's under that name."""
    pairs = [column for column in _ROWS[0] if column not in ("method", "epoch")]
    return {pair.replace(" ", "-"): {row["method"]: float(row[pair]) for row in _ROWS if row[pair]} for pair in pairs}


SCALES = {
    "gpu": Scale(
        settings=("trainer=gpu", "trainer.compile=true"), epochs=EPOCHS, teacher_epochs=EPOCHS,
        pairs=tuple(published()), methods=tuple(METHODS), beside=None, workers=1,
    ),
    "cpu": Scale(
        settings=("trainer=cpu",), epochs=10, teacher_epochs=15, pairs=("resnet20-resnet8",),
        methods=("control", "kd", "dkd", "at", "crd"), beside="resnet56-resnet20", workers=os.cpu_count() or 1,
    ),
}  # fmt: skip


def settings_of(pair: str, name: str, seed: int, scale: Scale, given: Sequence[str] = ()) -> list[str]:
    """The settings of kdexp-train for one cell.

    Args:
        pair: TEACHER-STUDENT, options of conf/.
        name: of the method.
        seed: of the student; the teacher is the same for all.
        scale: how long.
        given: more settings, which overrule all.
    """
    teacher, student = pair.split("-")
    method = METHODS[name]

    def rate(network: str) -> float:
        return 0.01 if network.startswith(("mobilenet", "shufflenet")) else 0.05

    settings = [
        *RECIPE, *scale.settings, f"teacher={teacher}", f"student={student}", "optimizer=sgd",
        f"optimizer.lr={rate(student) * method.total:g}", f"optimizer.weight_decay={5e-4 / method.total:g}",
        f"teacher.recipe.optimizer.lr={rate(teacher):g}", f"trainer.max_epochs={scale.epochs}",
        f"teacher.recipe.max_epochs={scale.teacher_epochs}", *method.settings,
    ]  # fmt: skip
    settings += [setting for setting, pairs in OF_PAIRS.get(name, {}).items() if (scale.beside or pair) in pairs]
    if method.warmup:
        setting, epochs = method.warmup
        settings.append(f"{setting}={max(1, round(epochs * scale.epochs / EPOCHS))}")
    return [*settings, f"seed={seed}", *given]


@dataclass(frozen=True)
class Cell:
    """One run: what it is and where it is kept."""

    pair: str
    method: str
    seed: int
    out: Path

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.pair}_{self.method}_{self.seed}"

    @property
    def path(self) -> Path:
        """Of its JSON."""
        return self.out / "finished" / f"{self.name}.json"


def finished(cell: Cell, settings: Sequence[str]) -> bool:
    """Whether a cell is there.

    Raises:
        ValueError: it is, and has other settings.
    """
    if not cell.path.is_file():
        return False
    there = json.loads(cell.path.read_text())["settings"]
    if there != list(settings):
        other = ", ".join(sorted({*there} ^ {*settings}))
        raise ValueError(f"--out must hold cells of the same settings, got {cell.path} with others: {other}")
    return True


def train(cell: Cell, settings: Sequence[str]) -> None:
    """Run one cell, in a worker process, and keep what came out."""
    from kdexp.experiment.run import run

    torch.set_num_threads(1)
    folder = cell.out / "runs" / cell.name
    folder.mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".log").open("a") as log, redirect_stdout(log):
        record = run(compose(settings, output_dir=folder))
    test = record["metrics"]["test"]
    content = {
        "pair": cell.pair, "method": cell.method, "seed": cell.seed, "settings": list(settings),
        "last": 100 * test["last"]["acc"], "best": 100 * test["best"]["acc"],
        "teacher": 100 * record["teacher"]["test"]["acc"] if "teacher" in record else None,
        "seconds": record["cost"]["seconds"], "versions": record["versions"],
    }  # fmt: skip
    with atomic_path(cell.path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def table(pair: str, cells: Sequence[dict], beside: dict[str, float], best: set[str] = frozenset()) -> str:
    """A pair's table as Markdown: test accuracy of the last epoch and the published one, in %.

    Args:
        pair: TEACHER-STUDENT.
        cells: its finished cells, of any methods and seeds.
        beside: method -> published accuracy.
        best: methods whose published number is of the best epoch on test.
    """
    by_method: dict[str, dict[int, float]] = {}
    taught = {cell["teacher"] for cell in cells if cell["teacher"] is not None}
    for cell in cells:
        by_method.setdefault(cell["method"], {})[cell["seed"]] = cell["last"]
    controls = by_method.get("control", {})
    lines = [
        f"### {pair}", "",
        "| method | seeds | kdexp | published | difference | gain over the control | published gain |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    if taught:
        lines.append(_row("teacher", spread(taught), beside.get("teacher"), statistics.fmean(taught), "", 1))
    for name in METHODS:
        if name not in by_method:
            continue
        found = by_method[name]
        paired = [value - controls[seed] for seed, value in found.items() if seed in controls]
        gain = spread(paired, "+.2f") if paired and name != "control" else ""
        shown = None
        if name in beside and "control" in beside and name != "control":
            shown = beside[name] - beside["control"]
        said = f"{name} *" if name in best else name
        mean = statistics.fmean(found.values())
        lines.append(_row(said, spread(found.values()), beside.get(name), mean, gain, len(found), shown))
    return "\n".join(lines)


def _row(
    name: str, ours: str, theirs: float | None, mean: float, gain: str, seeds: int, their_gain: float | None = None
) -> str:
    numbers = ["", ""] if theirs is None else [f"{theirs:.2f}", f"{mean - theirs:+.2f}"]
    cells = [name, str(seeds), ours, *numbers, gain, "" if their_gain is None else f"{their_gain:+.2f}"]
    return f"| {' | '.join(cells)} |"


def spread(values: Iterable[float], form: str = ".2f") -> str:
    """Mean and standard deviation; of one value that alone."""
    values = list(values)
    mean = f"{statistics.fmean(values):{form}}"
    return f"{mean} ± {statistics.stdev(values):.2f}" if len(values) > 1 else mean


class CountOperators(TorchDispatchMode):
    """Counts the operators that compute something: about as many kernels are started on a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        """One more, but for views."""
        self.count += not any(part in str(func) for part in ("view", "detach", "t.default", "expand", "empty"))
        return func(*args, **(kwargs or {}))


PEAK, SHARE, LAUNCH = 989e12, 0.05, 6e-6
"""An H100's dense bf16 FLOP/s by its data sheet; the share of it that small convolutions are taken to reach; seconds
that a kernel takes to start."""


def estimate(pair: str, epochs: int) -> str:
    """What a student's steps cost on an H100: an estimate from its FLOPs and from its number of operators.

    Args:
        pair: TEACHER-STUDENT.
        epochs: of the student.
    """
    config = compose([*RECIPE, f"student={pair.split('-')[1]}"], output_dir="unused")
    student = build_network(config.student, "student", config.dataset, config.task, pretrained=False)
    steps = epochs * -(-TRAIN // BATCH)
    flops = 3 * 2 * macs(student, (3, 32, 32)) * BATCH  # forward once, backward twice
    shapes = student.to("meta").train()
    with CountOperators() as operators:
        shapes(torch.empty(BATCH, 3, 32, 32, device="meta")).sum().backward()
    of_flops, of_launches = flops / (SHARE * PEAK), LAUNCH * operators.count
    most = max(of_flops, of_launches)
    return (
        f"{pair}: {flops / 1e9:.1f} GFLOP a step, {steps:,} steps, {flops * steps / 1e15:.1f} PFLOP. Estimate for an"
        f" H100, cached teacher outputs: {1e3 * of_flops:.2f} ms a step at {SHARE:.0%} of {PEAK / 1e12:.0f} TFLOP/s,"
        f" {1e3 * of_launches:.2f} ms to start the {operators.count} kernels of forward and backward pass: about"
        f" {most * steps / 60:.1f} minutes a run; ten minutes are {600e3 / steps:.2f} ms a step"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the cells and runs")
    parser.add_argument("--scale", choices=list(SCALES), default="gpu")
    parser.add_argument("--pairs", type=listed, help="TEACHER-STUDENT,...; by default all that are published")
    parser.add_argument("--methods", type=listed, help=f"of {', '.join(METHODS)}; by default all")
    parser.add_argument("--seeds", type=numbers_of, default=[0, 1, 2], help="0,1,2 by default")
    parser.add_argument("--dry", action="store_true", help="run nothing: print settings, costs and what is there")
    arguments, given = parser.parse_known_args()
    scale, out = SCALES[arguments.scale], arguments.out.absolute()
    numbers = published()
    if unknown := set(arguments.methods or ()) - METHODS.keys():
        parser.error(f"--methods must be of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}")
    pairs, methods = arguments.pairs or scale.pairs, arguments.methods or scale.methods
    if unknown := [pair for pair in pairs if pair.count("-") != 1 or {*pair.split("-")} - NETWORKS]:
        parser.error(f"--pairs must be TEACHER-STUDENT, options of conf/student, got {', '.join(unknown)}")
    cells = [
        Cell(pair, method, seed, out)
        for pair in pairs
        for seed in arguments.seeds
        for method in methods
        if scale.beside or method in numbers.get(pair, {method})
    ]
    settings = {cell: settings_of(cell.pair, cell.method, cell.seed, scale, given) for cell in cells}
    try:
        left = [cell for cell in cells if not finished(cell, settings[cell])]
        for cell in left[:1]:  # what is mistyped is in all of them
            compose(settings[cell], output_dir=out)
    except ValueError as error:
        parser.error(str(error))
    for pair in pairs if scale.beside is None else ():
        print(estimate(pair, scale.epochs))
    if arguments.dry:
        for cell in left:
            compose(settings[cell], output_dir=out)
            print(f"{cell.name}: kdexp-train {shlex.join(settings[cell])}")
    failed = 0
    if not arguments.dry:
        out.mkdir(parents=True, exist_ok=True)
        try:
            failed = run_all(left, settings, scale.workers)
        except KeyboardInterrupt:
            print("interrupted; the same command goes on", file=sys.stderr)
            sys.exit(130)
    for pair in pairs:
        there = [json.loads(cell.path.read_text()) for cell in cells if cell.pair == pair and cell.path.is_file()]
        if there:
            print("\n" + table(pair, there, numbers.get(scale.beside or pair, {}), OF_BEST_EPOCH))
    if scale.beside:
        print(f"\nPublished: {scale.beside}, {EPOCHS} epochs. Pair and schedule differ: compare signs at most.")
    print("\n* published: the best epoch on test, about 0.3 points above the last, which kdexp's numbers are of.")
    sys.exit(1 if failed else 0)


def numbers_of(text: str) -> list[int]:
    """Whole numbers that commas separate."""
    return [int(word) for word in listed(text)]


def listed(text: str) -> list[str]:
    """What commas separate."""
    return text.split(",")


def run_all(cells: Sequence[Cell], settings: dict[Cell, list[str]], workers: int) -> int:
    """Run cells, some at the same time: of each pair one that trains the teacher first, and beside it the controls.

    Returns:
        How many failed.
    """
    taught = {cell.pair: cell for cell in reversed(cells) if cell.method != "control"}.values()
    pool = ProcessPoolExecutor(workers)
    try:
        jobs = {pool.submit(train, cell, settings[cell]): cell for cell in taught}
        early = list(jobs)
        jobs |= {pool.submit(train, cell, settings[cell]): cell for cell in cells if cell.method == "control"}
        wait(early)  # the others would wait for their teacher
        begun = list(jobs.values())
        jobs |= {pool.submit(train, cell, settings[cell]): cell for cell in cells if cell not in begun}
        for job in as_completed(jobs):
            print(f"{jobs[job].name}: {job.exception() or 'done'}", flush=True)
        return sum(job.exception() is not None for job in jobs)
    finally:
        pool.shutdown(cancel_futures=True)


if __name__ == "__main__":
    main()
