"""A model card from results alone: what a student is, how good, how robust, what was lost, how it was made.

The headings follow Mitchell et al. 2019, "Model Cards for Model Reporting" (arXiv 1810.03993), as far as a run knows
what belongs under them; the front matter is the Hub's (https://huggingface.co/docs/hub/model-cards).
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from kdexp import results
from kdexp.atomic import atomic_path
from kdexp.config.untrusted import inside, printable, without_folders
from kdexp.naming import counted
from kdexp.report import glossary
from kdexp.report.comparison import Comparison
from kdexp.report.loss_statement import BETTER, KEPT, WORSE
from kdexp.report.robustness import flat
from kdexp.report.robustness_text import answer
from kdexp.report.run_group import RunGroup
from kdexp.report.runs import Run, command_of, read_reports, read_run
from kdexp.report.statistics import CONFIDENCE, FEWEST_SEEDS, t_interval, wilson
from kdexp.results import Record

FILE, HUB_FILE = "MODEL_CARD.md", "README.md"
TO_FILL_IN = "**TO BE FILLED IN**"
_YOURS = {
    "Intended use": "for what, by whom, and for what not.",
    "License": "of the weights, and whether those of the teacher and of the data allow it.",
}
_NO_LICENSE = "to-be-filled-in"
_PIPELINES = {
    "kdexp.tasks.text.Text": "text-classification",
    "kdexp.tasks.segmentation.Segmentation": "image-segmentation",
    "kdexp.tasks.generation.Generation": "unconditional-image-generation",
}
_PLACES = ("output_dir=", "store_dir=", "data_dir=", "hydra.", "tracking", "trainer.accelerator=")
"""Of a run's overrides those that say where it was done, and with what."""
_RECIPE = (
    "teacher",
    "student",
    "loss",
    "feature_loss",
    "alpha",
    "temperature",
    "scheme.name",
    "trainer.max_steps",
    "trainer.max_epochs",
    "optimizer._target_",
    "optimizer.lr",
    "optimizer.weight_decay",
    "scheduler._target_",
    "dataset.batch_size",
    "augment",
    "label_smoothing",
    "seed",
)


@dataclass(frozen=True)
class FilledIn:
    """What somebody has filled in in a card.

    Attributes:
        license: lines of the front matter.
        sections: lines by heading.
    """

    license: Sequence[str] = ()
    sections: Mapping[str, Sequence[str]] = field(default_factory=dict)


def write(folder: Path, run: Path, export: Record | None = None, *, names: Sequence[str] = (FILE,)) -> Path:
    """Write the card of a run's student; what somebody filled in in one that is there stays.

    Args:
        folder: where.
        run: the run folder; of the runs beside it those of other seeds give intervals.
        export: the content of export.json, of a student that was exported.
        names: of the files, which are alike.

    Returns:
        The first of them.

    Raises:
        ValueError: the folder holds no completed run; one line.
    """
    said = card(run, export, read_reports([folder]).get(folder) if export else None, _filled_in(folder))
    for name in names:
        with atomic_path(folder / name) as temporary:
            temporary.write_text(said, encoding="utf-8")
    return folder / names[0]


def card(folder: Path, export: Record | None = None, report: Record | None = None, own: FilledIn = FilledIn()) -> str:
    """The card's Markdown, see `write`; `report` is the robustness report beside the export, else it is the run's."""
    run = read_run(folder)
    if not run.completed or run.metric(run.measure) is None:
        raise ValueError(f"run must be completed and measured on test, got {folder}")
    found = read_reports([folder]).get(folder) if report is None else report
    lines = [*_front_matter(run, own.license), "", *_head(run)]
    sections = {
        "Data": _data(run),
        "Recipe": _table(("setting", "value"), _recipe(run)),
        "Metrics": _metrics(run, _seeds(run)),
        "Exported file": _exported(export) if export else [],
        "Robustness": _robustness(found) if found else ["Not measured: `kdexp-eval run=RUN robustness=quick` does."],
        "What was kept and lost": _lost(run, found),
        **{heading: own.sections.get(heading, [f"{TO_FILL_IN}: {what}"]) for heading, what in _YOURS.items()},
        "Reproduce": _reproduce(run),
    }
    for heading, said in sections.items():
        if said := list(said):
            lines += ["", f"## {heading}", "", *said]
    return "\n".join(lines) + "\n"


def _line(text: object) -> str:
    """Somebody else's words without what moves a cursor, begins a heading or ends a cell."""
    return " ".join(printable(text).split()).replace("|", "/").replace("<", "&lt;")


def _table(heads: Sequence[str], rows: Iterator[Sequence[object]]) -> Iterator[str]:
    yield f"| {' | '.join(heads)} |"
    yield f"|{'---|' * len(heads)}"
    for row in rows:
        yield f"| {' | '.join(map(_line, row))} |"


def _filled_in(folder: Path) -> FilledIn:
    """What is no longer to be filled in in the card of a folder."""
    try:
        text = inside(folder, FILE).read_text(encoding="utf-8")
    except (FileNotFoundError, UnicodeDecodeError):
        return FilledIn()
    matter, _, rest = text.partition("\n---\n")
    license_lines = [line for line in matter.splitlines() if line.startswith("license")]
    parts = re.split(r"^## (.+)\n", rest, flags=re.MULTILINE)[1:]
    sections = {heading: said.strip().splitlines() for heading, said in zip(parts[::2], parts[1::2], strict=True)}
    theirs = {name: said for name, said in sections.items() if name in _YOURS and TO_FILL_IN not in "".join(said)}
    return FilledIn([] if _NO_LICENSE in matter else license_lines, theirs)


def _front_matter(run: Run, license_lines: Sequence[str]) -> Iterator[str]:
    """JSON is YAML: what comes from a file stays a value."""
    config = run.results["config"]
    shape, target = config["dataset"].get("input_shape") or [], str(config.get("task", {}).get("_target_"))
    usual = "image-classification" if len(shape) == 3 else "tabular-classification"
    metric, value = glossary.known(run.measure), run.metric(run.measure)
    dataset = _line(run.settings.get("dataset"))
    task = _PIPELINES.get(target, usual)
    result = {
        "task": {"type": task},
        "dataset": {"name": dataset, "type": dataset, "split": "test"},
        "metrics": [{"type": run.measure, "name": metric.name, "value": value}],
    }
    # The Hub shows these numbers without a word beside them.
    index = [] if "note" in run.results else [{"name": _line(run.settings.get("student")), "results": [result]}]
    values = {
        "library_name": "kdexp",
        "pipeline_tag": task,
        "tags": ["knowledge-distillation", "kdexp"],
        "model-index": index,
    }
    yield "---"
    yield from license_lines or ('license: "other"', f'license_name: "{_NO_LICENSE}"')
    yield from (f"{key}: {json.dumps(value)}" for key, value in values.items())
    yield "---"


def _head(run: Run) -> Iterator[str]:
    of, found = run.settings, run.results
    yield f"# {_line(of.get('student'))} on {_line(of.get('dataset'))}"
    yield ""
    if found.get("note"):
        yield f"**{_line(found['note'])}**"
        yield ""
    how = "trained alone" if run.is_control else f"distilled from the teacher {_line(of.get('teacher'))}"
    size = f"{found['model']['parameters']:,} parameters, {found['model']['macs']:,} MACs"
    yield f"A student of {size}, {how} by kdexp {_line(found.get('versions', {}).get('kdexp', ''))}."
    yield ""
    yield "```python"
    yield "import kdexp"
    yield ""
    yield 'student = kdexp.load("FOLDER")  # of the run, or this one where it has model.safetensors'
    yield "print(student.predict(x).labels)  # x: image files, PIL images, arrays, texts or rows"
    yield "```"


def _data(run: Run) -> Iterator[str]:
    dataset, samples = run.results["config"]["dataset"], run.results["samples"]
    counts = ", ".join(f"{count:,} {part}" for part, count in samples.items())
    rows = {
        "data set": run.settings.get("dataset"),
        "samples": counts,
        "classes": dataset.get("num_classes"),
        "names of the classes": ", ".join(map(str, dataset.get("classes") or [])) or "in config.json",
        "shape of a sample": dataset.get("input_shape"),
        "mean, std": f"{dataset.get('mean')}, {dataset.get('std')}",
        "SHA-256 of the content": run.results.get("data_content"),
    }
    return _table(("", ""), iter(rows.items()))


def _recipe(run: Run) -> Iterator[Sequence[object]]:
    known = {"augment": "augment.transforms"}
    counts_steps = run.settings.get("trainer.max_steps") is not None
    for name in _RECIPE:
        if counts_steps and name == "trainer.max_epochs":
            continue
        value = run.settings.get(name, run.settings.get(known.get(name, ""), None))
        if value is not None and not (run.is_control and name in ("teacher", "loss", "temperature", "feature_loss")):
            yield name, without_folders(value)
    epochs = run.results["epochs"]
    yield "epoch", f"{epochs['best']}, the best by {epochs.get('monitor', 'validation')}; from 0 to {epochs['last']}"


# Metrics


def _seeds(run: Run) -> RunGroup | None:
    """The runs beside a run that differ from it in nothing but their seed; None where there are none."""
    beside = [path.parent for path in sorted(run.folder.resolve().parent.glob(f"*/{results.FILE}"))]
    found = []
    for folder in beside:
        with suppress(ValueError):  # it is none, or somebody else's
            found.append(read_run(folder))
    found = [one for one in found if bool(one.settings.get("quick")) == bool(run.settings.get("quick"))]
    with suppress(ValueError):  # other runs lie there, which cannot be compared
        for group in Comparison([one for one in found if one.metric(one.measure) is not None]).groups:
            if len(group.runs) > 1 and run.folder.resolve() in [one.folder for one in group.runs]:
                return group
    return None


def _metrics(run: Run, seeds: RunGroup | None) -> Iterator[str]:
    teacher = (run.teacher or {}).get("test", {})
    heads = ["test", "student", f"{CONFIDENCE:.0%} interval"]
    heads += [f"mean of {len(seeds.runs)} seeds", f"{CONFIDENCE:.0%} t interval"] if seeds else []
    rows: list[list[str]] = []
    for name in (run.measure, *glossary.beside(run.measure), "nll", "ece"):
        value, metric = run.metric(name), glossary.known(name)
        if value is None or name in [row[0] for row in rows]:
            continue
        samples = run.results["samples"].get("test")
        ends = wilson(value, samples) if name == "acc" and samples else None
        cells = [name, metric.in_unit(metric.number(value)), _ends(metric, ends)]
        if seeds:
            values = seeds.values(name)
            ends = t_interval(values) if len(values) >= FEWEST_SEEDS else None
            cells += [metric.in_unit(metric.number(sum(values) / len(values))) if values else "-", _ends(metric, ends)]
        rows.append([*cells, metric.in_unit(metric.number(teacher.get(name))) if teacher else "-"])
    yield from _table([*heads, "teacher"], iter([[glossary.known(row[0]).name, *row[1:]] for row in rows]))
    yield ""
    yield "The interval of one run is Wilson's over the test samples, of accuracy alone; the other metrics have none."
    if seeds is None:
        yield "There is one seed: nothing here says how much another seed would differ."
    elif len(seeds.runs) < FEWEST_SEEDS:
        yield f"A t interval over seeds needs {FEWEST_SEEDS} of them."
    yield "The best epoch was chosen on validation data, never on test."


def _ends(metric: glossary.Metric, ends: Sequence[float] | None) -> str:
    return "-" if ends is None else " to ".join(metric.number(end) for end in ends)


def _exported(export: Record) -> Iterator[str]:
    measure = str(export.get("measure", "acc"))
    metric = glossary.known(measure)
    rows = (
        (
            row.get("format"),
            row.get("quantize"),
            f"{row.get('bytes', 0):,}",
            metric.in_unit(metric.number(row.get("metrics", {}).get(measure))),
            "; ".join(f"batch {one['batch']}: {one['median_ms']:.3g} ms" for one in _latencies(row)),
        )
        for row in export.get("rows", [])
    )
    yield from _table(("format", "quantize", "bytes", f"test {metric.name}", "median latency"), rows)
    yield ""
    where = f"{counted(export.get('threads', 1), 'thread')} of {_line(export.get('processor'))}"
    yield f"Measured on the file itself, by {where}."
    if "note" in export:
        yield ""
        yield f"**{_line(export['note'])}**"


def _latencies(row: Record) -> list[Record]:
    return [one for one in row.get("latency", []) if {"batch", "median_ms"} <= set(one)]


# Robustness and losses


def _robustness(report: Record) -> Iterator[str]:
    roles = list(report["models"])

    def rows() -> Iterator[Sequence[object]]:
        for axis, name, entry in flat(report["metrics"]):
            metric = glossary.known(name)
            values = {role: entry[role] for role in roles if entry.get(role) is not None}
            cells = {role: metric.in_unit(metric.number(value)) for role, value in values.items()}
            yield glossary.label(axis, name), *(cells.get(role, "-") for role in roles)

    yield _line(answer(report))
    yield ""
    yield from _table(("", *roles), rows())
    for note in report.get("notes", []):
        yield f"- {_line(without_folders(note))}"


def _lost(run: Run, report: Record | None) -> Iterator[str]:
    statement = run.results.get("loss_statement")
    if not isinstance(statement, Mapping):
        if report and {"student", "control"} <= report["models"].keys():
            yield (
                "The run has no statement: when it ended there was no control (the same student, trained alone). Since "
                "then one was measured: its column, and the answer in a sentence, stand under Robustness."
            )
        else:
            yield "Not stated: there was no control (the same student, trained alone) to compare with."
        return
    yield f"Against its control (the same student, trained alone): {_line(statement.get('headline'))}."
    said = [
        (glossary.known(name).name, line.get("student"), line.get("control"), line.get("verdict"))
        for name, line in statement.get("lines", {}).items()
        if line.get("verdict") in (BETTER, KEPT, WORSE)
    ]
    if said:
        yield ""
        yield from _table(("", "student", "control", "verdict"), iter(said))
    if missing := statement.get("not_measured"):
        yield ""
        yield f"Not measured: {_line(', '.join(map(str, missing)))}."


def _reproduce(run: Run) -> Iterator[str]:
    versions = ", ".join(f"{name} {version}" for name, version in run.results.get("versions", {}).items())
    if run.command:
        own = [str(without_folders(one)) for one in run.results["overrides"] if not one.startswith(_PLACES)]
        yield f"    {_line(command_of(own))}"
        yield ""
    yield f"Fingerprint {_line(run.results.get('fingerprint'))}; {_line(versions)}."
