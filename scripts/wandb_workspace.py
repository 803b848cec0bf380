"""Build the W&B workspace of a sweep: its runs grouped over seeds, beside their control.

    python scripts/wandb_workspace.py multirun/digits_alpha-3fa9c1            # saved on the server; prints its address
    python scripts/wandb_workspace.py multirun/digits_alpha-3fa9c1 --dry-run  # only built and described

Needs `pip install 'kdexp[wandb-workspaces]'`. Everything is read from the sweep's results.json files; send its offline
runs first (scripts/wandb_sync.sh). W&B has no heat map of two settings: a scatter plot of alpha and temperature with
what the runs are compared by as colour stands for it. The table, with statistics over seeds, is kdexp-compare's.
"""

import argparse
from pathlib import Path

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as ws

from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.runs import Run, find

LOW_TO_HIGH = [panels.GradientPoint(color="#00224e", offset=0), panels.GradientPoint(color="#e6cd3c", offset=100)]


def workspace(comparison: Comparison) -> ws.Workspace:
    """The workspace of the runs of a comparison.

    Raises:
        ValueError: no run of it was tracked with W&B.
    """
    tracked = [run for run in comparison.completed if run.results.get("tracking", {}).get("tool") == "wandb"]
    if not tracked:
        raise ValueError("the sweep must have completed runs that were tracked with W&B (tracking=wandb), got none")
    settings = tracked[0].results["config"]["tracking"]
    group = tracked[0].results["tracking"]["group"]
    axes = [f"config:{column(axis, tracked)}.value" for axis in comparison.axes]
    val, test, gain = names(comparison.measure)
    last = f"test_last/{comparison.measure}"
    return ws.Workspace(
        entity=settings["entity"] or "",
        project=settings["project"],
        name=f"kdexp {group}",
        sections=[
            ws.Section(name="Which setting", is_open=True, panels=which(comparison, tracked)),
            ws.Section(name="Against the control", is_open=True, panels=against_control(comparison.measure)),
            ws.Section(name="Training", is_open=True, panels=training(comparison.measure)),
            ws.Section(name="ROC and confusion", is_open=True, panels=curves()),
        ],
        settings=ws.WorkspaceSettings(x_axis="epoch", max_runs=200),
        runset_settings=ws.RunsetSettings(
            filters=ws.And(ws.Metric("Group") == group),
            groupby=[ws.Config(column(axis, tracked)) for axis in comparison.axes],
            order=[ws.Ordering(ws.Summary(val), ascending=False)],
            pinned_columns=[*axes, *(f"summary:{name}" for name in (val, test, last, gain))],
            baseline_run=next((run.results["wandb_id"] for run in tracked if run.is_control), None),
        ),
    )


def names(measure: str) -> tuple[str, str, str]:
    """The names under which the tracker logs it of every run: on val, on test, and its gain."""
    return f"val/{measure}.max", f"test/{measure}", f"gain/{measure}"


def which(comparison: Comparison, tracked: list[Run]) -> list:
    """Parallel coordinates of what was swept, and the plane of alpha and temperature."""
    axes = [(axis, panels.Config(column(axis, tracked))) for axis in comparison.axes]
    head, (val, test, gain) = glossary.known(comparison.measure).column, names(comparison.measure)
    measures = [(f"val {head}", val), (f"test {head}", test), ("gain on test", gain)]
    columns = [panels.ParallelCoordinatesPlotColumn(config, display_name=axis) for axis, config in axes]
    columns += [panels.ParallelCoordinatesPlotColumn(panels.SummaryMetric(m), display_name=n) for n, m in measures]
    planes = [
        panels.ScatterPlot(
            title=f"{name} over alpha and temperature",
            x=panels.Config("alpha"),
            y=panels.Config("temperature"),
            z=panels.SummaryMetric(metric),
            log_y=True,
            gradient=LOW_TO_HIGH,
        )
        for name, metric in measures
    ]
    return [
        panels.ParallelCoordinatesPlot(
            title="From the settings to what came out", columns=columns, gradient=LOW_TO_HIGH
        ),
        *planes,
        panels.ParameterImportancePlot(with_respect_to=val),
    ]


def against_control(measure: str) -> list:
    """Control and distilled students on test, the gain seed by seed, and the runs' differences."""
    _, test, gain = names(measure)
    return [
        panels.BarPlot(
            title=f"test {glossary.known(measure).column}, control and distilled",
            metrics=[panels.SummaryMetric(test)],
            groupby=panels.Config("is_control"),
            groupby_rangefunc="stddev",
        ),
        panels.BarPlot(
            title="gain over the control on test",
            metrics=[panels.SummaryMetric(gain)],
            groupby=panels.Config("alpha"),
            groupby_rangefunc="stddev",
        ),
        panels.BarPlot(title="teacher", metrics=[panels.SummaryMetric(f"teacher/{test}")], max_bars_to_show=1),
        panels.RunComparer(diff_only="split"),
    ]


def training(measure: str) -> list:
    """Learning curves as means over the group."""
    shown = (f"val/{measure}", "val/loss", "train/loss", "val/agreement")
    return [panels.LinePlot(title=name, x="epoch", y=[name], groupby_rangefunc="stddev") for name in shown]


def curves() -> list:
    """The tables that each run logs at its end."""
    return [
        panels.CustomChart(
            query={"summaryTable": {"tableKey": "test/roc_table"}},
            chart_name="wandb/area-under-curve/v0",
            chart_fields={"x": "fpr", "y": "tpr", "class": "class"},
            chart_strings={"title": "ROC (test)"},
        ),
        panels.CustomChart(
            query={"summaryTable": {"tableKey": "test/confusion_matrix_table"}},
            chart_name="wandb/confusion_matrix/v1",
            chart_fields={"Actual": "Actual", "Predicted": "Predicted", "nPredictions": "nPredictions"},
            chart_strings={"title": "Confusion matrix (test)"},
        ),
    ]


def column(axis: str, tracked: list[Run]) -> str:
    """The key of a setting in W&B's config: a group's chosen option stands under GROUP_name."""
    return f"{axis}_name" if axis in tracked[0].results["choices"] else axis


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the sweep")
    parser.add_argument("--dry-run", action="store_true", help="build it and say what is in it, without a server")
    given = parser.parse_args()
    try:
        built = workspace(Comparison(find([given.folder])[0]))
    except ValueError as error:
        parser.error(str(error))
    if not given.dry_run:
        print(built.save().url)
        return
    print(f"{built.name} in {built.project}")
    for section in built.sections:
        print(f"{section.name}: {', '.join(type(panel).__name__ for panel in section.panels)}")


if __name__ == "__main__":
    main()
