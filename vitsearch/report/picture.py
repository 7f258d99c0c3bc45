"""The front as a PNG, drawn on a canvas of its own so that no global state of pyplot is touched."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vitsearch.report import palette
from vitsearch.report.axes import (
    Axis,
    Groups,
    axes_of,
    data_words,
    eer_words,
    is_log,
    plain,
    published,
    reference_words,
    si,
    simulated_bits,
    staircase,
)
from vitsearch.report.front import StudyReport
from vitsearch.report.tables import counts_words
from vitsearch.storage import TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

WIDTH_PX, HEIGHT_PX, DPI = 1200, 800, 100
# where a label may stand, in points from its marker towards the better end of both axes, the best place first
PLACES = [
    (-8, 6),
    (0, 10),
    (-11, -4),
    (8, 6),
    (11, -4),
    (0, -18),
    (-8, -15),
    (8, -15),
    (-8, 18),
    (14, 18),
    (14, -28),
]
KNEE_REACH = 1.5


def save_front_png(report: StudyReport, path: Path, *, landmarks: bool = False) -> None:
    """Draw the front, 1200 by 800 pixels.

    Two objectives are drawn as axes, a third as colour; with more than two, parallel coordinates follow.

    Args:
        report: The study.
        path: The file to write.
        landmarks: Also draw published ImageNet models, where the objectives are accuracy and EER.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH_PX / DPI, HEIGHT_PX / DPI), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    _write_frame(figure, report)
    several = len(report.job.objectives) > 2 and len(report.front) > 1
    ax = figure.add_axes((0.075, 0.44 if several else 0.155, 0.885, 0.4 if several else 0.685))
    if report.front or Groups.of(report).infeasible:
        _scatter(figure, ax, canvas, report, landmarks)
    if not report.front:
        _say_empty(ax, blank=not Groups.of(report).infeasible)
    if several:
        _parallel(figure.add_axes((0.075, 0.13, 0.885, 0.16)), report)
    figure.savefig(path, dpi=DPI, format="png", metadata={"Software": None})


def _write_frame(figure: Figure, report: StudyReport) -> None:
    def write(x: float, y: float, text: str, **style: Any) -> None:
        figure.text(x, y, text, parse_math=False, **style)  # people name folders and references as they like

    write(0.03, 0.948, f"Pareto front of {report.study.name}", size=19, weight="bold", color=palette.INK)
    write(0.03, 0.914, data_words(report), size=11.5, color=palette.SOFT)
    write(0.97, 0.952, counts_words(report), size=10.5, color=palette.SOFT, ha="right")
    foot = [eer_words(report.job), reference_words(report)]
    if any(simulated_bits(trial.candidate) for trial in report.front):
        foot.append("bits below 8 and 16-bit activations simulated: in size and EER, never in latency")
    text = "  ·  ".join(foot[:2]) + ("\n" + foot[2] if foot[2:] else "")
    write(0.03, 0.018, text, size=9, color=palette.SOFT, va="bottom", linespacing=1.4)


def _scatter(figure: Figure, ax: Axes, canvas: FigureCanvasAgg, report: StudyReport, landmarks: bool) -> None:
    axes, groups = axes_of(report.job), Groups.of(report)
    y, x = axes[:2]

    def at(trials: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
        return [x.value(t) for t in trials], [y.value(t) for t in trials]

    marks = published(report) if landmarks else []
    mark_x, mark_y = [m[1] for m in marks], [m[2] for m in marks]
    if y.key == "eer_pct":
        mark_x, mark_y = mark_y, mark_x
    if marks:
        ax.scatter(mark_x, mark_y, marker="D", s=42, color=palette.LANDMARK, alpha=0.35, linewidths=0,
                   label="published, ImageNet-1k")  # fmt: skip
    if groups.others:
        ax.scatter(*at(groups.others), s=36, color=palette.FADED, alpha=0.5, linewidths=0, label="dominated")
    if groups.infeasible:
        ax.scatter(*at(groups.infeasible), s=34, marker="x", color=palette.BAD, alpha=0.5, linewidths=1.3,
                   label="infeasible")  # fmt: skip
    _set_scales(ax, x, y, [*mark_x, *at([*groups.front, *groups.others, *groups.infeasible])[0]])
    if groups.front:
        _draw_front(figure, ax, report, at, axes)
        ax.margins(0.06, 0.09)
        ax.autoscale_view()
        _keep_percent(ax, y)
        _label(ax, canvas, report, at)
    ax.legend(loc="lower left", bbox_to_anchor=(-0.005, 1.0), ncols=5, frameon=False, fontsize=11,
              handletextpad=0.3, columnspacing=1.4, borderpad=0.2)  # fmt: skip


def _keep_percent(ax: Axes, y: Axis) -> None:
    """No tick above an accuracy of 100 %."""
    if y.key == "accuracy":
        low, high = ax.get_ylim()
        ax.set_ylim(low, high)
        ax.set_yticks([tick for tick in ax.get_yticks() if low <= tick <= min(high, 100)])


def _draw_front(figure: Figure, ax: Axes, report: StudyReport, at: Any, axes: list[Axis]) -> None:
    xs, ys = at(report.front)
    if len(axes) == 2:
        line = staircase(list(zip(xs, ys, strict=True)), axes[1].maximize)
        ax.plot([p[0] for p in line], [p[1] for p in line], color=palette.FRONT, lw=2, zorder=3)
        for lw, alpha in ((9, 0.05), (16, 0.03)):  # a soft edge, so that the front leads the eye
            ax.plot([p[0] for p in line], [p[1] for p in line], color=palette.FRONT, lw=lw, alpha=alpha, zorder=2)
        ax.scatter(xs, ys, s=90, color=palette.FRONT, ec="white", lw=1.3, zorder=4, label="Pareto front")
    else:
        dots = ax.scatter(xs, ys, s=100, c=[axes[2].value(t) for t in report.front], cmap="viridis", ec="white",
                          lw=1.3, zorder=4)  # fmt: skip
        ax.scatter([], [], s=100, color=palette.FRONT, label="Pareto front, coloured by the third objective")
        bar = figure.colorbar(dots, ax=ax, pad=0.015, fraction=0.035, aspect=28)
        bar.set_label(axes[2].label, color=palette.INK, size=11)
        bar.outline.set_visible(False)
        bar.ax.yaxis.set_major_formatter(_ticks(axes[2]))
    if report.knee is not None:
        knee_x, knee_y = at([report.knee])
        ax.scatter(knee_x, knee_y, s=290, facecolors="none", ec=palette.KNEE, lw=2.2, zorder=5, label="knee")


def _label(ax: Axes, canvas: FigureCanvasAgg, report: StudyReport, at: Any) -> None:
    """Write trial numbers beside front members, the knee first, where nothing else stands; drop the rest."""
    from matplotlib.patheffects import withStroke

    y, x = axes_of(report.job)[:2]
    canvas.draw()  # type: ignore[no-untyped-call]  # matplotlib leaves both without annotations
    renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
    members = sorted(report.front, key=lambda t: report.knee is None or t.number != report.knee.number)
    frame = ax.get_window_extent(renderer)
    taken = _obstacles(ax, report, at)
    for trial, px, py in zip(members, *at(members), strict=True):
        knee = report.knee is not None and trial.number == report.knee.number
        reach = KNEE_REACH if knee else 1.0
        for dx, dy in PLACES:
            right, up = (-dx if x.maximize else dx) * reach, (dy if y.maximize else -dy - 8) * reach
            text = ax.annotate(
                f"knee · trial {trial.number}" if knee else str(trial.number), (px, py),
                textcoords="offset points", xytext=(right, up),
                ha="center" if dx == 0 else ("left" if right > 0 else "right"),
                size=12.5 if knee else 10.5, color=palette.KNEE if knee else palette.INK,
                weight="bold" if knee else "normal", zorder=6,
                path_effects=[withStroke(linewidth=3, foreground="white")],
            )  # fmt: skip
            box = text.get_window_extent(renderer)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 + 6
            if inside and not any(box.overlaps(other) for other in taken):
                taken.append(box.padded(1.5))
                break
            text.remove()


def _obstacles(ax: Axes, report: StudyReport, at: Any) -> list[Bbox]:
    """Where labels cannot stand: the front's markers, the knee's ring and the staircase, in pixels."""
    from matplotlib.transforms import Bbox

    xs, ys = at(report.front)
    boxes = []
    for trial, (px, py) in zip(report.front, ax.transData.transform(list(zip(xs, ys, strict=True))), strict=True):
        half = 12 if report.knee is not None and trial.number == report.knee.number else 6
        boxes.append(Bbox.from_extents(px - half, py - half, px + half, py + half))
    if len(report.job.objectives) == 2:
        maximize_x = axes_of(report.job)[1].maximize
        line = ax.transData.transform(staircase(list(zip(xs, ys, strict=True)), maximize_x))
        boxes += [
            Bbox.from_extents(min(a[0], b[0]) - 1, min(a[1], b[1]) - 1, max(a[0], b[0]) + 1, max(a[1], b[1]) + 1)
            for a, b in pairwise(line)
        ]
    return boxes


def _set_scales(ax: Axes, x: Axis, y: Axis, along_x: list[float]) -> None:
    ax.set_xlabel(x.label, size=13, color=palette.INK, labelpad=6)
    ax.set_ylabel(y.label, size=13, color=palette.INK, labelpad=6)
    if is_log(along_x):
        from matplotlib.ticker import LogLocator, NullFormatter

        ax.set_xscale("log")
        ax.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_minor_formatter(NullFormatter())
    ax.xaxis.set_major_formatter(_ticks(x))
    ax.yaxis.set_major_formatter(_ticks(y))
    ax.grid(color="#eef0f3", lw=1)
    ax.set_axisbelow(True)
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color("#cbd5e1")
    ax.tick_params(colors=palette.SOFT, labelsize=11)


def _ticks(axis: Axis) -> Any:
    from matplotlib.ticker import FuncFormatter

    write = si if axis.key in {"num_params", "num_macs"} else plain
    return FuncFormatter(lambda value, _: write(value))


def _parallel(ax: Axes, report: StudyReport) -> None:
    """Each objective as an upright axis with its better end on top, each front member as a line."""
    axes = axes_of(report.job)
    members = sorted(report.front, key=lambda t: report.knee is not None and t.number == report.knee.number)
    bounds = []
    for axis in axes:
        values = [axis.value(t) for t in members]
        bounds.append((min(values), max(values)) if axis.maximize else (max(values), min(values)))
    for trial in members:
        knee = report.knee is not None and trial.number == report.knee.number
        heights = [
            (axis.value(trial) - worst) / (best - worst) if best != worst else 0.5
            for axis, (worst, best) in zip(axes, bounds, strict=True)
        ]
        ax.plot(heights, color=palette.KNEE if knee else palette.FRONT, alpha=1 if knee else 0.35,
                lw=2.4 if knee else 1.3, marker="o", ms=4)  # fmt: skip
    for i, (axis, (worst, best)) in enumerate(zip(axes, bounds, strict=True)):
        ax.axvline(i, color="#cbd5e1", lw=1, zorder=0)
        write = si if axis.key in {"num_params", "num_macs"} else plain
        ax.text(i, 1.09, f"{axis.title}  {write(best)}", ha="center", va="bottom", size=11, color=palette.INK)
        ax.text(i, -0.09, write(worst), ha="center", va="top", size=10, color=palette.SOFT)
    ax.set(xlim=(-0.25, len(axes) - 0.75), ylim=(-0.05, 1.05))
    ax.set_axis_off()


def _say_empty(ax: Axes, *, blank: bool) -> None:
    ax.text(
        0.5, 0.5, "The front is empty:\nno trial has succeeded within the constraints yet.",
        ha="center", va="center", transform=ax.transAxes, size=17, color=palette.SOFT, linespacing=1.6,
    )  # fmt: skip
    if blank:
        ax.set_axis_off()
