"""Every method beside a control with the same care: the runs of docs/method_results.md, and the page.

    python scripts/method_table.py --out DIR                     # goes on where it ended, here or elsewhere
    python scripts/method_table.py --out DIR --hours 2           # begins no run later than that
    python scripts/method_table.py --plan                        # what there is, what is missing, how long it takes
    python scripts/method_table.py --out DIR --dataset digits

A dozen methods and a control are searched, 12 trials each, on val; what came best of each is run with six other seeds
and measured on test. All other methods are run at their published settings with three seeds. Each finished run is a
small file in docs/tables, which is all that is needed to go on; DIR has run folders, the teachers and logs. Needs
Fashion-MNIST in KDEXP_DATA_DIR, and pip install 'kdexp[search]'; about six hours of one core in all.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from table_cells import PROBLEMS, TABLES, TRIALS, Cell, Method, Problem, Record, finals, methods, point_of, trials
from table_figure import drawn
from table_page import FIGURE, PAGE, Row, page

from kdexp.report.png_figures.drawing import save

if TYPE_CHECKING:
    from kdexp.training.fit import Pruner

METRIC = "val/acc"
SUGGESTIONS_SEED = 0
SECONDS = {"fashion_mnist": 65.0, "digits": 12.0}  # of a run on one core, where none is there yet


@dataclass(frozen=True)
class Worker:
    """What a process needs to know.

    Attributes:
        out: folder of runs and teachers.
        tables: folder of finished cells.
        deadline: after which no run is begun.
    """

    out: Path
    tables: Path
    deadline: float

    def work(self, problem: Problem, method: Method) -> None:
        """All that is missing of a method: its search, then its last runs."""
        if time.time() > self.deadline:
            return
        if point_of(problem, method, self.tables) is None:
            self._search(problem, method)
        point = point_of(problem, method, self.tables)
        for cell in finals(problem, method) if point is not None else []:
            known = cell.read(self.tables)
            if known is None or known["point"] != point:
                if time.time() > self.deadline:
                    return
                self._run(cell, point)

    def _search(self, problem: Problem, method: Method) -> None:
        """The search of kdexp. What is there is told to a new study, which suggests by it what comes next."""
        from hydra.core.override_parser.overrides_parser import OverridesParser

        from hydra_plugins.kdexp.search import distribution_of
        from kdexp.sweeps.optuna_study import EpochPruner, Study

        parse = OverridesParser.create().parse_override
        space = {key: distribution_of(parse(f"{key}={values}")) for key, values in method.space.items()}
        with TemporaryDirectory(dir=self.out) as name:
            folder = Path(name)
            study = Study(folder, space, metric=METRIC, pruner="median", seed=SUGGESTIONS_SEED)
            with study.worker("table"):
                for cell in trials(problem, method):
                    (trial,) = study.ask(1, TRIALS, "table")
                    record = cell.read(self.tables)
                    if record is None or record["point"] != trial.point:
                        if time.time() > self.deadline:
                            return
                        record = self._run(cell, trial.point, EpochPruner(folder, trial.id))
                    rows = [{"epoch": epoch, METRIC: value} for epoch, value in enumerate(record["val_acc_by_epoch"])]
                    study.tell(trial, rows, record["val"])

    def _run(self, cell: Cell, point: Mapping[str, str], pruner: "Pruner | None" = None) -> Record:
        import torch

        from kdexp import results
        from kdexp.config.compose import compose, plain
        from kdexp.config.identity import Identity, code_version
        from kdexp.experiment.run import run
        from kdexp.report.runs import Run

        torch.set_num_threads(1)
        settings = cell.settings(point)
        config = compose(settings, output_dir="", store_dir=self.out / "store")
        place = self.out / cell.problem.name / cell.method.part / cell.method.name
        place.mkdir(parents=True, exist_ok=True)
        folder = place / f"{cell.name}-{Identity(plain(config)).fingerprint}"
        config.output_dir = str(folder)
        before = time.process_time()
        with folder.with_suffix(".log").open("w") as log, redirect_stdout(log):
            try:
                run(config, pruner=pruner)
            except Exception as error:
                if results.status_of(error) not in ("pruned", "diverged"):
                    raise
        done = Run(folder, found := results.read(folder, "out"), found["status"])
        measured = found["metrics"] if done.completed else {}
        record: dict[str, object] = {
            "settings": settings,
            "space": dict(cell.method.space),
            "point": dict(point),
            "status": done.status,
            "val": measured["val"]["best"] if measured else None,
            "test": measured.get("test"),
            "best_epoch": found["epochs"]["best"] if measured else None,
            "teacher_acc": ((found.get("teacher") or {}).get("test") or {}).get("acc"),
            "val_acc_by_epoch": [row[METRIC] for row in done.epochs] if cell.trial is not None else None,
            "seconds": round(time.process_time() - before, 1),
            "kdexp": code_version(),
            "torch": torch.__version__,
            "cpu": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        }
        cell.write(self.tables, record)
        value = f"val {100 * measured['val']['best']['acc']:.2f}" if measured else done.status
        name = f"{cell.problem.name} {cell.method.part} {cell.method.name} {cell.name}"
        print(f"{time.strftime('%H:%M:%S')} {name}: {value}, {record['seconds']} s", flush=True)
        return record


def plan(problems: Sequence[Problem], tables: Path) -> str:
    """What there is and what is missing, a method a line, and how long the rest takes on one core."""
    lines, left = [], 0.0
    for problem in problems:
        rows = [Row(problem, method, tables) for method in methods(problem)]
        usual = median([record["seconds"] for row in rows for record in row.records] or [SECONDS[problem.name]])
        for row in rows:
            own = [record["seconds"] for record in row.records]
            wanted = len(row.tried) + len(row.method.seeds)
            rest = (wanted - len(own)) * (median(own) if own else usual)
            left += rest
            there = f"{len(own):3} of {wanted:3}, {rest / 60:5.0f} min left"
            lines.append(f"{problem.name:14} {row.method.part:10} {row.method.name:18} {there}")
    return "\n".join([*lines, f"about {left / 3600:.1f} hours of one core are left"])


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--dataset", choices=PROBLEMS, help="one of the data sets alone")
    parser.add_argument("--hours", type=float, default=float("inf"), help="begin no run later than that; 0: the page")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="runs at the same time")
    parser.add_argument("--plan", action="store_true", help="say what is missing, and run nothing")
    arguments = parser.parse_args()
    problems = [PROBLEMS[arguments.dataset]] if arguments.dataset else list(PROBLEMS.values())
    if arguments.plan:
        print(plan(problems, TABLES))
        return
    if arguments.out is None:
        parser.error("--out must be given")
    out = arguments.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    worker = Worker(out, TABLES, time.time() + 3600 * arguments.hours)
    failed = 0
    with ProcessPoolExecutor(arguments.workers) as pool:
        rows = [(problem, method) for problem in problems for method in methods(problem)]
        futures = {pool.submit(worker.work, *row): row for row in rows}
        try:
            for future in as_completed(futures):
                if error := future.exception():
                    problem, method = futures[future]
                    failed += 1
                    print(f"failed: {problem.name} {method.part} {method.name}: {error}", flush=True)
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)
            raise
    PAGE.write_text(page(TABLES))
    save(drawn(TABLES), PAGE.parent / FIGURE)
    print(f"written: {PAGE}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
