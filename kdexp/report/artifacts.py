"""What a comparison leaves: a table for one's own tools, the page, pictures, the loss statement, the claims."""

import re
from collections.abc import Sequence
from pathlib import Path

from kdexp.atomic import atomic_path
from kdexp.report import article_claims
from kdexp.report.comparison import Comparison
from kdexp.report.condition_curves import condition_curves
from kdexp.report.loss_statement_files import write_statement
from kdexp.report.page import title, write_page
from kdexp.report.png_figures import condition, robustness
from kdexp.report.runs import write_csv
from kdexp.report.sections import images, masks
from kdexp.robustness.axes.corruptions import is_of_corruptions

TABLE, PAGE, CLAIMS = "compare.csv", "report.html", "claims.md"
_NAME_LENGTH = 120


def write(
    comparison: Comparison, out: Path, *, source: Sequence[str], unread: Sequence[str] = ()
) -> list[tuple[str, Path]]:
    """Write compare.csv and report.html, a PNG for each curve and of test examples, the loss statement and the claims.

    The last two where there is anything to tell.

    Args:
        comparison: what they show.
        out: the folder.
        source: where the runs were found and how they were chosen, in the user's words.
        unread: a line for each results.json that could not be read.

    Returns:
        For each file what it is, in a word or two, and where.
    """
    written = [("CSV", out / TABLE), ("report", out / PAGE)]
    write_csv(comparison.runs, out / TABLE, chosen=comparison.winner.runs if comparison.winner else ())
    write_page(comparison, out / PAGE, source=source, unread=unread)
    for curve in condition_curves(comparison):
        name = _picture("-".join(["curve", curve.axis.rpartition(".")[2], *curve.where.replace("=", "-").split()]))
        written.append(("plot", out / name))
        condition.condition(curve, out / name)
    reports = comparison.reports_of(comparison.winner or comparison.control)
    for axis in dict.fromkeys(row["axis"] for report in reports[:1] for row in report["conditions"]):
        if is_of_corruptions(axis):
            name = _picture(f"curve-{axis}")
            written.append(("plot", out / name))
            robustness.severities(reports, axis, out / name)
    for section in (*masks.sections(comparison), *images.sections(comparison)):
        if section.picture is not None:
            written.append((section.name, out / f"{section.name}.png"))
            with atomic_path(out / f"{section.name}.png") as temporary:
                temporary.write_bytes(section.picture.png)
    written += [("statement", path) for path in write_statement(comparison, title(comparison), out)]
    found = article_claims.article_claims(comparison)
    if found:
        written.append(("claims", out / CLAIMS))
        with atomic_path(out / CLAIMS) as temporary:
            temporary.write_text(
                article_claims.markdown(found, f"The source article's claims: {title(comparison)}"), encoding="utf-8"
            )
    return written


def _picture(name: str) -> str:
    """A file's name: what it is made of comes from results, where anything may stand."""
    return re.sub(r"[^\w.-]+", "-", name)[:_NAME_LENGTH] + ".png"
