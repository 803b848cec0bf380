"""The gain of every configuration over its control, as dots with intervals."""

from kdexp.report import glossary
from kdexp.report.colors import OTHER, SEED, WINNER
from kdexp.report.comparison import Comparison
from kdexp.report.plotly_figures.drawing import Plot, error_bars, wrapped
from kdexp.report.statistics import with_p

_MOST_ROWS = 40


def gains(comparison: Comparison) -> Plot | None:
    """Each configuration's gain over its control: mean and interval, and a dot a seed; the best on val on top."""
    shown = [group for group in comparison.ranked if group.gain][:_MOST_ROWS]
    if not shown:
        return None
    shown.reverse()
    names = [wrapped(comparison.marked(group)) for group in shown]
    lines = max(name.count("<br>") for name in names) + 1
    colors = [WINNER if group is comparison.winner else OTHER for group in shown]
    found = [group.gain for group in shown if group.gain]
    metric = glossary.known(comparison.measure)
    dots = [(name, metric.scale * value) for name, gain in zip(names, found, strict=True) for value in gain.differences]
    data = [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "one seed",
            "x": [value for _, value in dots],
            "y": [name for name, _ in dots],
            "marker": {"size": 16, "color": SEED, "symbol": "line-ns-open", "line": {"width": 2}},
            "hovertemplate": f"%{{y}}<br>%{{x:+.{metric.decimals}f}} {metric.differs_in}<extra>one seed</extra>",
        },
        {
            "type": "scatter",
            "mode": "markers",
            "name": "mean, 95 % t interval",
            "x": [metric.scale * gain.mean for gain in found],
            "y": names,
            "error_x": error_bars((gain.estimate for gain in found), metric),
            "marker": {"size": 9, "color": colors},
            "customdata": [[gain.n, with_p(gain.verdict, gain.p)] for gain in found],
            "hovertemplate": f"%{{y}}<br>%{{x:+.{metric.decimals}f}} {metric.differs_in}, "
            "n=%{customdata[0]}: %{customdata[1]}<extra></extra>",
        },
    ]
    layout = {
        "xaxis": {"title": {"text": metric.axis_of_gains("gain on test")}, "zeroline": True},
        "yaxis": {"type": "category", "automargin": True, "showgrid": False, "range": [-0.7, len(names) - 0.3]},
        "height": 130 + (12 + 14 * lines) * len(names),
    }
    return {"data": data, "layout": layout}
