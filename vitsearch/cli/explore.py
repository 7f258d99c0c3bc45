"""``spaces`` and ``doctor``: what there is to search, and what works here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from vitsearch.cli.options import JsonFlag, print_json


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(spaces)
    app.command()(doctor)


def spaces(
    name: Annotated[str | None, typer.Argument(help="A preset to show.", show_default=False)] = None,
    json_output: JsonFlag = False,
) -> None:
    """List the search spaces, or show one with its size and EER range."""
    from vitsearch.space import load_preset, preset_names

    if name is None:
        listed = {preset: load_preset(preset).description for preset in preset_names()}
        if json_output:
            print_json(listed)
        else:
            for preset, description in listed.items():
                typer.echo(f"{preset:<14} {description}")
        return
    view = _describe(name)
    if json_output:
        print_json(view)
        return
    typer.echo(f"{name}: {view['description']}")
    for field, value in view["fixed"].items():
        typer.echo(f"  {field} = {value}")
    for field, text in view["dimensions"].items():
        typer.echo(f"  {field}: {text}")
    low, high = view["eer_pct"]
    beside = f" times a continuum of {', '.join(view['continuous'])}" if view["continuous"] else ""
    typer.echo(
        f"{view['configurations']:.4g} configurations{beside}; EER {low:.2f} % to {high:.2f} % "
        f"(3 channels, 10 classes)\n  least: {view['cheapest']}\n  most: {view['costliest']}"
    )


def _describe(name: str) -> dict[str, Any]:
    from vitsearch.report.extremes import eer_range
    from vitsearch.space import SearchSpace, continuous_fields, load_preset, num_configurations

    spec = load_preset(name)
    space = SearchSpace(spec, in_chans=3, num_classes=10)
    ends = eer_range(space)
    dimensions = {}
    for field, one in spec.dimensions.items():
        text = f"one of {list(one.choices)}" if one.choices else f"{one.low} to {one.high}"
        text += f" step {one.step}" if one.step else ""
        text += " (log)" if one.log else ""
        text += " per block" if one.per_block else ""
        text += f", when {one.when}" if one.when else ""
        dimensions[field] = text
    return {
        "name": name, "description": spec.description, "fixed": dict(spec.fixed), "dimensions": dimensions,
        "configurations": num_configurations(space), "continuous": continuous_fields(space),
        "eer_pct": [ends.low_pct, ends.high_pct], "cheapest": ends.cheapest.summary(),
        "costliest": ends.costliest.summary(),
    }  # fmt: skip


def doctor(json_output: JsonFlag = False) -> None:
    """Try on this machine what a search needs, and say what works."""
    from vitsearch.cli.checks import run_checks

    checks = []
    for check in run_checks():
        checks.append(check)
        if not json_output:  # at once: all of them take some seconds
            word = "ok  " if check.ok else "MISS" if check.optional else "FAIL"
            remedy = f"; {check.remedy}" if check.remedy else ""
            typer.echo(f"{word}  {check.name}: {check.detail}{remedy}")
    if json_output:
        print_json([{"check": c.name, "ok": c.ok, "detail": c.detail, "remedy": c.remedy} for c in checks])
    if any(not check.ok and not check.optional for check in checks):
        raise typer.Exit(1)
