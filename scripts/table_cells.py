"""The cells of the table of methods: what is run, and what is kept of it in docs/tables. See method_table.py."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kdexp.atomic import atomic_path
from kdexp.report.comparison import order_of_choice

ROOT = Path(__file__).parents[1]
TABLES = ROOT / "docs" / "tables"
TRIALS = 12
TRIAL_SEED = 0
FINAL_SEEDS = (1, 2, 3, 4, 5, 6)  # others than the trials'
PUBLISHED_SEEDS = (1, 2, 3)
PUBLISHED_EPOCHS = 240  # of the CIFAR-100 benchmark, to which warm-ups refer
NOT_HERE = ("vae", "pkd", "minilm")  # for generation, and for Transformers

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Problem:
    """A data set and a pair of networks.

    Attributes:
        name: of its folder in docs/tables.
        title: on the page.
        epochs: of the student.
        has_published: whether the methods that are not searched are run, too.
        settings: of every run.
    """

    name: str
    title: str
    epochs: int
    has_published: bool
    settings: tuple[str, ...]


@dataclass(frozen=True)
class Method:
    """A row of the table.

    Attributes:
        name: of the row, and of its folder.
        settings: that choose it.
        space: setting -> what is searched, in Hydra's words; empty: it is run at its published setting.
    """

    name: str
    settings: tuple[str, ...]
    space: Mapping[str, str]

    @property
    def part(self) -> str:
        return "tuned" if self.space else "published"

    @property
    def seeds(self) -> Sequence[int]:
        return FINAL_SEEDS if self.space else PUBLISHED_SEEDS


@dataclass(frozen=True)
class Cell:
    """One run.

    Attributes:
        problem: its data and networks.
        method: its method.
        trial: its number in the search; None: a run that is measured on test.
        seed: of the run.
    """

    problem: Problem
    method: Method
    trial: int | None
    seed: int

    @property
    def name(self) -> str:
        return f"seed_{self.seed}" if self.trial is None else f"trial_{self.trial:02}"

    def file(self, tables: Path) -> Path:
        return tables / self.problem.name / self.method.part / self.method.name / f"{self.name}.json"

    def settings(self, point: Mapping[str, str]) -> list[str]:
        """What kdexp-train is given, at a point of the method's space."""
        given = [f"{key}={value}" for key, value in point.items()]
        return [*self.problem.settings, *self.method.settings, *given, f"seed={self.seed}"]

    def read(self, tables: Path) -> Record | None:
        """What came of it; None of a run that is not there, had other settings, or was searched in another space."""
        file = self.file(tables)
        if not file.is_file():
            return None
        found: Record = json.loads(file.read_text())
        is_same = found["settings"] == self.settings(found["point"]) and found["space"] == self.method.space
        return found if is_same else None

    def write(self, tables: Path, record: Record) -> None:
        with atomic_path(self.file(tables)) as temporary:
            lines = (f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in record.items())
            temporary.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def trials(problem: Problem, method: Method) -> list[Cell]:
    return [Cell(problem, method, number, TRIAL_SEED) for number in range(TRIALS if method.space else 0)]


def finals(problem: Problem, method: Method) -> list[Cell]:
    return [Cell(problem, method, None, seed) for seed in method.seeds]


def best(records: Sequence[Record | None]) -> Record | None:
    """The trial that val chooses, by the rule of kdexp's search; None until the search is done."""
    if None in records:
        return None
    done = [record for record in records if record and record["status"] == "completed"]
    return min(done, key=lambda trial: order_of_choice(trial["val"]["acc"], trial["val"]["nll"]), default=None)


def point_of(problem: Problem, method: Method, tables: Path) -> Mapping[str, str] | None:
    """The settings of a method's last runs besides its own; None as long as they are searched."""
    if not method.space:
        return {}
    chosen = best([cell.read(tables) for cell in trials(problem, method)])
    return chosen and chosen["point"]


def final_records(problem: Problem, method: Method, tables: Path) -> dict[int, Record]:
    """Seed -> a run that was measured on test, at the point that was chosen."""
    point = point_of(problem, method, tables)
    found = {cell.seed: cell.read(tables) for cell in finals(problem, method)}
    return {seed: record for seed, record in found.items() if record and record["point"] == point}


def methods(problem: Problem) -> list[Method]:
    """Those that are searched, the control first; then the others, with a control of their own."""
    share = problem.epochs / PUBLISHED_EPOCHS
    searched = [
        Method(name, (*settings, *_warmups(name, share)), RECIPE | space) for name, (settings, space) in TUNED.items()
    ]
    if not problem.has_published:
        return searched
    published = [Method("control", ("alpha=1",), {})]
    for group in ("loss", "feature_loss"):
        names = sorted(path.stem for path in (ROOT / "conf" / group).glob("*.yaml"))
        for name in [name for name in names if name not in {*TUNED, *NOT_HERE}]:
            beside = BESIDE.get(name, ("alpha=1",) if group == "feature_loss" else ())
            published.append(Method(name, (f"{group}={name}", *beside, *_warmups(name, share)), {}))
    return searched + published


def _warmups(name: str, share: float) -> tuple[str, ...]:
    """A method's warm-ups, as long a part of the training as they are of the published one."""
    files = [file for group in ("loss", "feature_loss") if (file := ROOT / "conf" / group / f"{name}.yaml").is_file()]
    found = _lengths(files[0]) if files else ()
    return tuple(f"{setting}={max(round(share * length), 1)}" for setting, length in found)


@cache
def _lengths(file: Path) -> tuple[tuple[str, int], ...]:
    def of(node: Mapping[str, Any], name: str) -> Iterator[tuple[str, int]]:
        for key, value in node.items():
            if isinstance(value, dict):
                yield from of(value, f"{name}.{key}")
            elif key in ("warmup_epochs", "ramp_epochs"):
                yield f"{name}.{key}", value

    return tuple(of(yaml.safe_load(file.read_text()), file.parent.name))


PAIR = (
    "augment=none",
    "teacher=cnn_large",
    "augment@teacher.recipe.augment=none",
    "teacher.cache=unaugmented",
    "student=cnn",
    "trainer=cpu",
    "trainer.gradient_stats_every_n_steps=0",
    "tracking=none",
)
PROBLEMS = {
    "fashion_mnist": Problem(
        "fashion_mnist",
        "Fashion-MNIST, a twentieth of the training samples",
        100,  # of 45 steps
        True,
        (
            "dataset=fashion_mnist",
            "dataset.train_fraction=0.05",
            "dataset.val_fraction=0.03",
            *PAIR,
            "teacher.width=16",
            "teacher.recipe.max_epochs=24",
            "teacher.recipe.batch_size=128",
            "teacher.recipe.optimizer.lr=0.002",
            "student.width=8",
            "optimizer.lr=0.005",
            "trainer.max_steps=4500",
        ),
    ),
    "digits": Problem(
        "digits",
        "Digits, a tenth of the training samples",
        250,  # of 6 steps
        False,
        (
            "dataset=digits",
            "dataset.train_fraction=0.1",
            "dataset.val_fraction=0.3",
            "dataset.batch_size=16",
            *PAIR,
            "student.width=4",
            "optimizer.lr=0.005",
            "trainer.max_steps=1500",
        ),
    ),
}

# Feature distillation losses stand beside the cross entropy alone (alpha=1), but for those published with other terms.
BESIDE = {"cosine": ("alpha=0.2857", "temperature=2"), "semckd": ("alpha=0.5", "feature_loss.semckd.weight=200")}

# Searched for all, and for the control.
RECIPE = {"optimizer.lr": "tag(log, interval(0.0005,0.03))", "optimizer.weight_decay": "tag(log, interval(1e-5,0.1))"}


def _weight(name: str, low: float, high: float, alpha: str = "alpha=1") -> tuple[tuple[str, ...], dict[str, str]]:
    """A feature distillation loss of which the weight is searched."""
    return (f"feature_loss={name}", alpha), {f"feature_loss.{name}.weight": f"tag(log, interval({low},{high}))"}


TUNED: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {
    "control": (("alpha=1",), {}),
    "kd": (("loss=kd",), {"alpha": "interval(0.05,0.95)", "temperature": "tag(log, interval(1,8))"}),
    "dkd": (
        ("loss=dkd",),
        {"loss.nckd_weight": "tag(log, interval(0.5,8))", "temperature": "tag(log, interval(1,6))"},
    ),
    "nkd": (("loss=nkd",), {"loss.gamma": "tag(log, interval(0.5,4))", "temperature": "tag(log, interval(1,4))"}),
    "dist": (("loss=dist",), {"loss.weight": "tag(log, interval(0.25,4))", "temperature": "tag(log, interval(1,6))"}),
    "kd_ls": (("loss=kd_ls",), {"loss.weight": "tag(log, interval(1,20))", "temperature": "tag(log, interval(1.5,4))"}),
    "fitnet": _weight("fitnet", 1, 300),
    "at": _weight("at", 10, 3000),
    "sp": _weight("sp", 30, 10000),
    "rkd": _weight("rkd", 0.03, 3),
    "crd": (("feature_loss=crd",), {"feature_loss.crd.weight": "tag(log, interval(0.1,3))", "alpha": "1,0.5"}),
    "reviewkd": _weight("reviewkd", 0.1, 10),
    "simkd": (("feature_loss=simkd",), {}),
}
