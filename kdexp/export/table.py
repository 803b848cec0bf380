"""What became of a student, as a table in the terminal."""

from pathlib import Path

from rich.box import SIMPLE
from rich.table import Table

from kdexp.naming import counted
from kdexp.report import glossary
from kdexp.report.robustness_terminal import difference
from kdexp.results import Record
from kdexp.terminal import screen


def show(content: Record, out: Path) -> None:
    """Print export.json: a row for the network, one for each file, and where it is.

    Args:
        content: of export.json.
        out: its folder.
    """
    console, metric = screen(), glossary.known(content["measure"])
    level = f"{100 * content['interval']['confidence_level']:g} %"
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    batches = [one["batch"] for one in content["rows"][0]["latency"]]
    heads = ["bytes", "parameters", "MACs", *(f"ms, batch {count} (95 %)" for count in batches)]
    for head in (*heads, metric.column, f"file - network, {level} interval", "error (at most)"):
        table.add_column(head, justify="right")
    for row in content["rows"]:
        name = row["format"] if row["quantize"] == "none" else f"{row['format']} {row['quantize']}"
        times = [f"{one['median_ms']:.3g} ({one['p95_ms']:.3g})" for one in row["latency"]]
        counts = [f"{row[key]:,}" for key in ("bytes", "parameters", "macs")]
        measured = metric.number(row["metrics"][content["measure"]])
        parity = row.get("parity")
        off = "" if parity is None else f"{parity['error']:.2g} ({parity['tolerance']:g})"
        table.add_row(
            name, *counts, *times, measured, difference(metric, row["difference"]) if row["difference"] else "", off
        )
    console.print(table)
    if "note" in content:
        console.print(content["note"], highlight=False, soft_wrap=True)
    where, samples = f"{counted(content['threads'], 'thread')} of {content['processor']}", content["test_samples"]
    of_what = "the network's outputs"
    if content["quantize"] == "qat":
        of_what += ", in 8 bits those of the fine-tuned network"
    for line in (
        f"Median and 95th percentile of a call in milliseconds, {where}.",
        f"Error: the length of all differences of outputs, relative to that of {of_what}.",
        f"{metric.title} is measured on the files, on {samples} test samples; intervals: paired bootstrap.",
    ):
        console.print(line, highlight=False, soft_wrap=True)
    console.print(f"file          {out / content['file']}", soft_wrap=True)
    console.print(f"report        {out / 'export.json'}", soft_wrap=True)
