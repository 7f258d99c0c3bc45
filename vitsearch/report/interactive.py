"""The front as one HTML page that opens without a network."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from vitsearch.messages import TrialResult
from vitsearch.report import palette
from vitsearch.report.axes import (
    Axis,
    Groups,
    axes_of,
    axis_of,
    data_words,
    eer_words,
    is_log,
    published,
    reference_words,
    shown,
    simulated_bits,
    staircase,
)
from vitsearch.report.front import StudyReport
from vitsearch.report.tables import COLUMNS, SIMULATED_NOTE, counts_words, front_table, why
from vitsearch.storage import TrialRecord

# plotly.js would offer to upload the data to its maker's cloud
CONFIG = {"displaylogo": False, "responsive": True, "showSendToCloud": False, "plotlyServerURL": ""}
PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: {ink}; background: #fff; margin: 0 auto; max-width: 1400px;
       padding: 20px 24px 40px; }}
h1 {{ font-size: 24px; margin: 0; }} h2 {{ font-size: 17px; margin: 28px 0 4px; }}
p {{ margin: 2px 0; color: {soft}; }}
.scroll {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; margin-top: 8px; }}
th, td {{ padding: 5px 12px; text-align: right; border-bottom: 1px solid #e5e7eb; white-space: nowrap; }}
th:last-child, td:last-child {{ text-align: left; }} tr.knee td {{ background: #fff7ed; font-weight: 600; }}
</style></head><body>
<h1>{title}</h1><p>{data}</p><p>{counts} · {reference}</p><p>{eer}</p>
{figures}
{table}
</body></html>
"""


def front_html(report: StudyReport, *, landmarks: bool = False) -> str:
    """The front as an interactive page with plotly.js inside.

    Two objectives are drawn as axes, a third as colour; with more than two, parallel coordinates follow.

    Args:
        report: The study.
        landmarks: Also draw published ImageNet models, where the objectives are accuracy and EER.
    """
    figures = [_scatter(report, landmarks)]
    if len(report.job.objectives) > 2 and len(report.front) > 1:
        figures.append(_parallel(report))
    parts = [
        figure.to_html(
            full_html=False,
            include_plotlyjs=i == 0,
            div_id=f"figure{i}",
            config=CONFIG,
        )
        for i, figure in enumerate(figures)
    ]
    return PAGE.format(
        ink=palette.INK,
        soft=palette.SOFT,
        title=f"Pareto front of {escape(report.study.name)}",
        data=escape(data_words(report)),
        counts=escape(counts_words(report)),
        reference=escape(reference_words(report)),
        eer=escape(eer_words(report.job)),
        figures="\n<h2>All objectives of the front</h2>\n".join(parts),
        table=_table(report),
    )


def _scatter(report: StudyReport, landmarks: bool) -> Any:
    import plotly.graph_objects as go

    axes, groups = axes_of(report.job), Groups.of(report)
    y, x = axes[:2]
    marks = published(report) if landmarks else []
    if y.key == "eer_pct":
        marks = [(name, top1, eer) for name, eer, top1 in marks]
    figure = go.Figure()

    def dots(name: str, trials: Sequence[TrialRecord], marker: dict[str, Any], **more: Any) -> None:
        if trials:
            figure.add_scatter(
                x=[x.value(t) for t in trials], y=[y.value(t) for t in trials], name=name,
                mode="markers", marker=marker, text=[_hover(t, report) for t in trials],
                hovertemplate="%{text}<extra></extra>", **more,
            )  # fmt: skip

    if marks:
        figure.add_scatter(
            x=[m[1] for m in marks], y=[m[2] for m in marks], name="published, ImageNet-1k", mode="markers",
            marker={"symbol": "diamond", "size": 8, "color": palette.LANDMARK, "opacity": 0.45},
            text=[escape(m[0]) for m in marks],
            hovertemplate="%{text}<br>%{x:.3g}, %{y:.3g}<extra>published</extra>",
        )  # fmt: skip
    dots("dominated", groups.others, {"size": 8, "color": palette.FADED, "opacity": 0.6})
    cross = {"symbol": "x-thin", "size": 8, "line": {"width": 1.5, "color": palette.BAD}, "opacity": 0.6}
    dots("infeasible", groups.infeasible, cross)
    if len(axes) == 2 and groups.front:
        line = staircase([(x.value(t), y.value(t)) for t in groups.front], x.maximize)
        figure.add_scatter(
            x=[p[0] for p in line], y=[p[1] for p in line], mode="lines", hoverinfo="skip", showlegend=False,
            line={"color": palette.FRONT, "width": 2},
        )  # fmt: skip
    marker: dict[str, Any] = {"size": 11, "color": palette.FRONT, "line": {"width": 1.5, "color": "white"}}
    if len(axes) > 2:
        third = axes[2]
        marker |= {
            "color": [third.value(t) for t in groups.front], "colorscale": "Viridis", "showscale": True,
            "colorbar": {"title": {"text": third.label, "side": "right"}, "thickness": 14},
        }  # fmt: skip
    dots("Pareto front", groups.front, marker)
    if report.knee is not None:
        knee = report.knee
        ring = {"symbol": "circle-open", "size": 19, "color": palette.KNEE, "line": {"width": 2.5}}
        dots("knee", [knee], ring, hoverinfo="skip")
        figure.data[-1].hovertemplate = None
        log = is_log(_along(x, groups, [m[1] for m in marks]))
        figure.add_annotation(
            x=_position(x.value(knee), log), y=y.value(knee), text=f"knee · trial {knee.number}", showarrow=True,
            arrowcolor=palette.KNEE, font={"color": palette.KNEE, "size": 13}, ax=45, ay=38 if y.maximize else -38,
            bgcolor="rgba(255,255,255,0.85)",
        )  # fmt: skip
    if not groups.front:
        figure.add_annotation(
            text="The front is empty: no trial has succeeded within the constraints yet.", showarrow=False,
            xref="paper", yref="paper", x=0.5, y=0.5, font={"size": 17, "color": palette.SOFT},
        )  # fmt: skip
    _lay_out(figure, x, y, log=is_log(_along(x, groups, [m[1] for m in marks])))
    return figure


def _lay_out(figure: Any, x: Axis, y: Axis, *, log: bool) -> None:
    grid = {
        "gridcolor": "#eef0f3",
        "zeroline": False,
        "linecolor": "#cbd5e1",
        "ticks": "outside",
        "showline": True,
    }
    figure.update_layout(
        template="plotly_white", height=600, margin={"l": 70, "r": 30, "t": 50, "b": 60}, hovermode="closest",
        font={"family": "system-ui, sans-serif", "size": 14, "color": palette.INK},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        hoverlabel={"align": "left", "bgcolor": "white", "font": {"color": palette.INK}},
        xaxis={**grid, "title": {"text": x.label}, **({"type": "log", "dtick": "D2"} if log else {})},
        yaxis={**grid, "title": {"text": y.label}},
    )  # fmt: skip


def _parallel(report: StudyReport) -> Any:
    import plotly.graph_objects as go

    axes = axes_of(report.job)
    known = {axis.key for axis in axes}
    more = [axis_of(name, report.job) for name in ("eer", "params", "macs", "bits", "size")]
    axes += [axis for axis in more if axis.key not in known and all(axis.key in t.figures for t in report.front)]
    first = axes[0]
    figure = go.Figure(
        go.Parcoords(
            dimensions=[{"label": axis.label, "values": [axis.value(t) for t in report.front]} for axis in axes],
            line={"color": [first.value(t) for t in report.front], "colorscale": "Viridis", "showscale": False},
        )
    )
    figure.update_layout(
        template="plotly_white", height=380, margin={"l": 70, "r": 70, "t": 70, "b": 30},
        font={"family": "system-ui, sans-serif", "size": 13, "color": palette.INK},
    )  # fmt: skip
    return figure


def _along(axis: Axis, groups: Groups, marks: Sequence[float]) -> list[float]:
    """Everything that is drawn along an axis."""
    return [axis.value(t) for t in (*groups.front, *groups.others, *groups.infeasible)] + list(marks)


def _position(value: float, log: bool) -> float:
    """Where Plotly wants an annotation: on a logarithmic axis, at the exponent."""
    import math

    return math.log10(value) if log else value


def _hover(trial: TrialRecord, report: StudyReport) -> str:
    head = f"<b>trial {trial.number}</b> · {escape(trial.candidate.summary())}"
    lines = [f"{COLUMNS[key]}: {shown(key, trial.figures[key])}" for key in COLUMNS if key in trial.figures]
    if isinstance(trial.final, TrialResult):
        lines.append(f"test accuracy, retrained: {shown('accuracy', trial.final.accuracy)}")
    reason = why(trial, report.job)
    if reason:
        lines.append(f"<i>{escape(reason)}</i>")
    if simulated_bits(trial.candidate):
        lines.append("<i>bit-widths simulated</i>")
    return "<br>".join([head, *lines])


def _table(report: StudyReport) -> str:
    if not report.front:
        return ""
    heading, rows = front_table(report)
    top = "".join(f"<th>{escape(cell)}</th>" for cell in heading)
    body = "\n".join(
        ('<tr class="knee">' if "knee" in row[0] else "<tr>")
        + "".join(f"<td>{escape(cell)}</td>" for cell in row)
        + "</tr>"
        for row in rows
    )
    note = SIMULATED_NOTE.removeprefix("\\")
    simulated = any(simulated_bits(trial.candidate) for trial in report.front)
    foot = f"<p>{escape(note)}</p>" if simulated else ""
    return f'<h2>The front</h2><div class="scroll"><table><tr>{top}</tr>\n{body}</table></div>{foot}'
