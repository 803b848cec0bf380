"""``kdexp-eval``: evaluate a finished run again."""

import math
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import hydra
from omegaconf import DictConfig

from kdexp import results
from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line
from kdexp.config.untrusted import printable
from kdexp.experiment.finished_robustness import robustness
from kdexp.experiment.finished_run import TOLERANCE, run


def show(folder: Path, found: dict[str, float]) -> bool:
    """Print the metrics beside those in results.json; whether they are equal."""
    from kdexp.report.glossary import known as metric

    stored = results.read(folder, "run")["metrics"]["test"]["best"]
    # An older kdexp measured less.
    known = {name: (value, stored[name]) for name, value in found.items() if stored.get(name) is not None}
    if not known:
        raise ValueError(f"run must have metrics on test, got none in {folder}")
    width = max(map(len, known))
    for name, (value, before) in known.items():
        own, there = (f"{one:.0f}" if metric(name).digits == 0 else f"{one:.6f}" for one in (value, before))
        print(f"test/{name:<{width}} {own}   results.json {there}")
    worst = max(_difference(value, before) for value, before in known.values())
    print(f"largest difference {worst:.1e}: {'equal' if worst <= TOLERANCE else 'NOT equal'} within {TOLERANCE:.0e}")
    return bool(worst <= TOLERANCE)


def _difference(value: float, before: float) -> float:
    difference = abs(value - before)
    return math.inf if math.isnan(difference) else difference


def show_robustness(reports: Iterable[tuple[Path, results.Record]], *, of_run: bool) -> None:
    """Print the robustness of a run or of a sweep, and renew what says what was lost, the page too.

    Args:
        reports: see `kdexp.experiment.finished_robustness.robustness`; they are measured here.
        of_run: whether a single run was named.
    """
    from kdexp.report import artifacts, robustness_terminal
    from kdexp.report.comparison import of_sweep
    from kdexp.report.loss_statement_files import keep_again  # here: --help must not wait for figures

    for folder, found in reports:
        if "conditions" not in found:
            robustness_terminal.show_sweep(found, folder)
            for what, path in artifacts.write(of_sweep(folder), folder, source=[str(folder)]):
                print(f"{what:<14}{printable(path)}")
            continue
        keep_again(folder)
        if of_run:  # of a sweep what its runs say together comes first, and alone
            robustness_terminal.show(found, folder)


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="eval")
def _eval(config: DictConfig) -> None:
    try:
        if config.get("robustness"):
            show_robustness(robustness(config), of_run=config.run is not None)
            return
        is_equal = show(Path(str(config.run)), run(config))
    except (ValueError, OSError) as error:
        exits.leave(exits.WRONG_INPUT, one_line(error))
    if not is_equal:
        sys.exit(exits.FAILED)


def main() -> None:
    """The command."""
    # Hydra takes `sweep=` for its group of that name: conf/sweep, the presets of kdexp-train.
    sys.argv[1:] = [re.sub("^sweep=", "sweep_dir=", argument) for argument in sys.argv[1:]]
    program.program(_eval)


if __name__ == "__main__":
    main()
