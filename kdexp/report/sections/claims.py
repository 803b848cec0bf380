"""Do the source article's claims hold?"""

from collections.abc import Iterator
from dataclasses import dataclass

from kdexp.report.article_claims import METHOD, Evidence, article_claims, sentence, significance
from kdexp.report.comparison import Comparison
from kdexp.report.elements import INTERVAL, Column, Section, gain_interval, gain_mean, number, tabulate


@dataclass(frozen=True)
class _Row:
    claim: str
    evidence: Evidence


_SHARE = "acc"  # they are of shares alone
_COLUMNS = [
    Column[_Row]("claim", lambda row: row.claim, "word"),
    Column[_Row]("metric", lambda row: f"{row.evidence.what}{' (decides)' if row.evidence.decides else ''}", "word"),
    Column[_Row]("control", lambda row: number(row.evidence.control, _SHARE)),
    Column[_Row]("student", lambda row: number(row.evidence.student, _SHARE)),
    Column[_Row]("gain", lambda row: gain_mean(row.evidence.gain, _SHARE)),
    Column[_Row](INTERVAL, lambda row: gain_interval(row.evidence.gain, _SHARE)),
    Column[_Row]("verdict", lambda row: significance(row.evidence.gain), "word"),
]


def sections(comparison: Comparison) -> Iterator[Section]:
    """The claims that these runs say anything of."""
    found = article_claims(comparison)
    if found:
        lead = "\n".join([METHOD, *(" ".join([sentence(claim), *claim.remarks]) for claim in found)])
        rows = [_Row(claim.name, evidence) for claim in found for evidence in claim.evidence]
        table = tabulate(_COLUMNS, rows)
        yield Section("claims", "Do the source article's claims hold?", lead, table=table, wide=True)
