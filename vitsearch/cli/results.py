"""``pareto``, ``export`` and ``predict``: what a search found, and taking it along."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vitsearch.cli.options import Folder, JsonFlag, Study, StudyAddress, StudyDatabase, print_json
from vitsearch.cli.show import member_json

if TYPE_CHECKING:
    from vitsearch.report import StudyReport


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(pareto)
    app.command()(export)
    app.command()(predict)


def pareto(
    folder: Folder = None,
    png: Annotated[Path | None, typer.Option("--png", help="Write the front as a picture.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write the front as an interactive page.")] = None,
    csv: Annotated[Path | None, typer.Option("--csv", help="Write every trial as a table.")] = None,
    landmarks: Annotated[
        bool, typer.Option("--landmarks", help="Show published ImageNet models beside it.")
    ] = False,
    study: Study = None,
    address: StudyAddress = None,
    database: StudyDatabase = None,
    json_output: JsonFlag = False,
) -> None:
    """Show the Pareto front with its hypervolume and knee; also while the search runs."""
    from vitsearch.cli.finding import found_study
    from vitsearch.cli.front_table import print_front
    from vitsearch.errors import InputError
    from vitsearch.report import StudyReport

    if landmarks and png is None and html is None:
        raise InputError(
            "needs a picture to show them in", field="--landmarks", remedy="add --png FILE or --html FILE"
        )
    with found_study(folder, study, address, database) as found:
        report = StudyReport.load(found.store)
    if png is not None or html is not None:
        from vitsearch.report.plots import front_html, save_front_png

        if png is not None:
            with _writing("--png", png):
                save_front_png(report, png, landmarks=landmarks)
        if html is not None:
            with _writing("--html", html):
                html.write_text(front_html(report, landmarks=landmarks), encoding="utf-8")
    if csv is not None:
        from vitsearch.report.tables import trials_csv

        with _writing("--csv", csv):
            csv.write_text(trials_csv(report), encoding="utf-8")
    if json_output:
        print_json(front_json(report))
    elif png is None and html is None and csv is None:
        print_front(report)


def export(
    out: Annotated[Path, typer.Option("--out", help="New folder for the bundle.", show_default=False)],
    folder: Folder = None,
    select: Annotated[
        str, typer.Option("--select", help="knee, best-accuracy, best-eer or trial=N.", metavar="WHICH")
    ] = "knee",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an older bundle.")] = False,
    int8: Annotated[
        str | None,
        typer.Option(
            "--int8",
            help="Add model.int8.onnx, scored on itself, for a W8A8 model: dynamic or qdq.",
            metavar="KIND",
        ),
    ] = None,
    study: Study = None,
    address: StudyAddress = None,
    database: StudyDatabase = None,
    json_output: JsonFlag = False,
) -> None:
    """Write a front member as a bundle: weights, ONNX (checked), preprocessing, metrics, model card."""
    from vitsearch.cli.exporting import export_trial
    from vitsearch.cli.finding import found_study
    from vitsearch.export.folder import require_free

    if study is not None:
        require_free(out, overwrite=overwrite)  # before a copy is made
    with found_study(folder, study, address, database, weights=select) as found:
        bundle = export_trial(found, select, out, overwrite=overwrite, int8=int8)
    if json_output:
        print_json({"bundle": str(bundle.folder), "trial": bundle.metrics.trial,
                    "metrics": bundle.metrics.model_dump(mode="json")})  # fmt: skip
    else:
        typer.echo(f"{bundle.folder}: trial {bundle.metrics.trial}, {bundle.candidate.summary()}")
        typer.echo(f"try it: vitsearch predict {shlex.quote(str(bundle.folder))} IMAGE")


def predict(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Folder made by export.", show_default=False)],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.", show_default=False)],
    json_output: JsonFlag = False,
) -> None:
    """Classify images with an exported model."""
    from vitsearch.errors import InputError
    from vitsearch.export import load

    model = load(bundle)
    found, failed = [], []
    for path in images:
        try:
            found.append((path, model.predict(path)[0]))
        except InputError as error:
            failed.append(error)
    if json_output:
        print_json([{"image": str(p), "class": r.class_name, "label": r.label, "probability": r.probability,
                     "probabilities": dict(zip(model.preprocess.class_names, r.probabilities, strict=True))}
                    for p, r in found])  # fmt: skip
    else:
        for path, result in found:
            typer.echo(f"{path}: {result.class_name} ({100 * result.probability:.1f} %)")
    if failed:
        failed[0].more += failed[1:]
        raise failed[0]


@contextmanager
def _writing(option: str, path: Path) -> Iterator[None]:
    from vitsearch.errors import InputError

    try:
        yield
    except OSError as error:
        raise InputError(
            f"cannot be written ({error.strerror})", field=option, value=str(path), remedy="choose another file"
        ) from error


def front_json(report: StudyReport) -> dict[str, Any]:
    """The front for programs."""
    counts: dict[str, int] = {}
    for trial in report.trials:
        counts[trial.kind] = counts.get(trial.kind, 0) + 1
    return {
        "study": report.study.name,
        "objectives": list(report.job.objectives),
        "front": [member_json(trial) for trial in report.front],
        "knee": report.knee.number if report.knee else None,
        "hypervolume": report.hypervolume,
        "reference": dict(zip(report.job.objectives, report.reference, strict=True)),
        "trials": counts,
        "skipped_images": list(report.data.skipped),
    }
