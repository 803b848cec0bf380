"""``kdexp-export``: a finished run's student as a file, measured as it is."""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from kdexp.cli import program
from kdexp.config import exits
from kdexp.config.compose import HYDRA_VERSION_BASE, one_line, plain
from kdexp.config.require import Values, require
from kdexp.experiment.finished_run import FinishedRun, Machine
from kdexp.export import settings as export_settings
from kdexp.export.finding import run_at
from kdexp.export.settings import check_out
from kdexp.progress_log import importing


def export(values: Values) -> None:
    """Export a run's student, and show what became of it.

    Args:
        values: conf/export.yaml, as plain values.

    Raises:
        ValueError: a setting breaks a rule, the run cannot be exported so, or the file is not the network; one line.
        FileNotFoundError: weights or data are gone.
    """
    settings = export_settings.of(values)
    require(values["run"] not in (None, ""), "run", "must be the folder of a finished run", "nothing")
    require(values["control"] in ("train", "find", "skip"), "control", "must be train, find or skip", values["control"])
    require(type(values["dry_run"]) is bool, "dry_run", "must be true or false", values["dry_run"])
    folder, wanted = run_at(Path(str(values["run"])), "run"), values.get("robustness")
    with importing():  # here: --help must not wait for torch
        from kdexp.export import hub, robustness, table
        from kdexp.export.exporting import Exporter
    push = values["push"]
    if push is not None:
        hub.check(str(push), dry_run=values["dry_run"])
    machine = Machine(values["accelerator"], values["data_dir"], values["store_dir"])
    axes, notes = robustness.without_gradients(wanted) if wanted else ({}, [])
    finished = FinishedRun(folder, machine, robustness=axes) if wanted else FinishedRun(folder, machine)
    out = Path(str(values["out"] or finished.folder / "export" / f"{settings.format}-{settings.quantize}"))
    if values["out"] is not None:
        check_out(out)
    with finished.building():
        finished.warn_of_other_data()
        exporter = Exporter(finished, finished.student().eval(), settings)
    measured = robustness.evaluator(finished, notes) if wanted else None
    content, network = exporter.export(out)
    table.show(content, out)
    if measured is not None:
        hub.publish(out, folder, content, None, dry_run=True)  # the card: measuring takes long, and may be stopped
        robustness.report(finished, measured, values["control"], network, str(content["sha256"]), out)
    for line in hub.publish(out, folder, content, push, dry_run=values["dry_run"]):
        print(line)


@hydra.main(version_base=HYDRA_VERSION_BASE, config_path="pkg://kdexp.conf", config_name="export")
def _export(config: DictConfig) -> None:
    try:
        export(plain(config))
    except (ValueError, OSError) as error:
        exits.leave(exits.WRONG_INPUT, one_line(error))


def main() -> None:
    """The command."""
    program.program(_export)


if __name__ == "__main__":
    main()
