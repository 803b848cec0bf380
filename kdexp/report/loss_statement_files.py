"""loss_statement.md of a comparison, and of each run: with it what results.json keeps of the run's control."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from kdexp import results, run_folder
from kdexp.atomic import atomic_path
from kdexp.report.comparison import Comparison, method
from kdexp.report.loss_statement import LossStatement, agreement_of_control, of_comparison, of_run
from kdexp.report.loss_statement_text import as_json, headline, markdown
from kdexp.report.runs import Run, look_for_control, read_reports, read_run

FILE = "loss_statement.md"


def write_statement(comparison: Comparison, subject: str, folder: Path) -> list[Path]:
    """Write what is stated of the chosen configuration.

    Args:
        comparison: of runs.
        subject: see `markdown`.
        folder: where.

    Returns:
        Where it is; nothing where there is nothing to state, see `of_comparison`.
    """
    statement = of_comparison(comparison)
    if statement is None:
        if not (folder / results.FILE).is_file():  # that of an earlier comparison, not a run's own
            (folder / FILE).unlink(missing_ok=True)
        return []
    return [_write(statement, subject, folder)]


def _write(statement: LossStatement, subject: str, folder: Path) -> Path:
    with atomic_path(folder / FILE) as temporary:
        temporary.write_text(markdown(statement, subject), encoding="utf-8")
    return folder / FILE


def keep(run: Run, control: Run) -> str:
    """State what a run kept and lost in its own folder, and in its results.json: ``loss_statement``.

    Beside it, as ``control_agreement``, how far the control agrees with the run's teacher: that is kept with the run,
    since a control belongs to runs with many teachers.

    Args:
        run: distilled and completed.
        control: of the same seed.

    Returns:
        Where it stands and its headline.
    """
    agreement = agreement_of_control(run, control)
    choices: Mapping[str, str] = run.results.get("choices", {})
    subject = f"{choices.get('student', 'student')} on {choices.get('dataset', 'its data')}"
    label = " ".join([*method(run), f"seed={run.seed}"])
    statement = of_run(label, run, control, read_reports([run.folder]).get(run.folder, {}))
    path = _write(statement, subject, run.folder)
    with run_folder.alone(run.folder):
        saved = results.read(run.folder, "run")
        stated = {**saved, "control_agreement": agreement, "loss_statement": as_json(statement)}
        if stated != saved:
            results.write(run.folder, stated)
    return f"{path}: {headline(statement)}"


def keep_again(folder: Path) -> None:
    """The same for a finished run of which more was measured; nothing of one without a control beside or in its folder.

    Args:
        folder: of the run.
    """
    run = read_run(folder)
    if run.is_control or run.settings.get("quick") or not _is_tested(run):
        return
    controls = (look_for_control(run.results, place)[0] for place in (folder.parent, folder))
    if (control := next(filter(None, controls), None)) is not None:
        keep(run, control)


def keep_all(comparison: Comparison) -> None:
    """The same for every run of a comparison that has a control; trials of a search are not measured on test."""
    for group in comparison.distilled if not comparison.is_quick else ():
        for run in group.runs:
            control = group.controls.get(run.seed)
            if control is not None and _is_tested(run) and _is_tested(control):
                with suppress(ValueError, OSError):  # in use by another launch, or somebody else's
                    keep(run, control)


def _is_tested(run: Run) -> bool:
    return run.metric(run.measure) is not None
