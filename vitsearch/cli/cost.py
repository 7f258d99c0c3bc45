"""``cost`` and ``eer``: what a model costs, without training anything."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vitsearch.cli.options import JsonFlag, print_json

if TYPE_CHECKING:
    from vitsearch.config import EerSpec

CandidateFile = Annotated[Path, typer.Argument(metavar="CANDIDATE.json", help="A candidate.", show_default=False)]
ReferenceFile = Annotated[
    Path | None,
    typer.Option("--reference", help="Reference model (YAML or JSON: params_m, flops_g, bits, size_mb)."),
]
Figure = Annotated[float | None, typer.Option(show_default=False)]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(cost)
    app.command()(eer)


def cost(candidate: CandidateFile, reference: ReferenceFile = None, json_output: JsonFlag = False) -> None:
    """Parameters, FLOPs (MACs), bits, size and EER of a candidate, in closed form."""
    from vitsearch.candidate import load_candidate
    from vitsearch.cost import cost_of

    found = load_candidate(candidate)
    figures = cost_of(found)
    eer_pct = figures.eer_pct(_spec(reference))
    if json_output:
        print_json({**figures.model_dump(mode="json"), "eer_pct": eer_pct, "hash": found.hash})
        return
    typer.echo(f"{found.summary()}  [{found.hash}]")
    typer.echo(f"parameters    {figures.num_params:,}\nFLOPs (MACs)  {figures.num_macs:,}\n"
               f"bits          {figures.bits:.3g} (weights {figures.weight_bits:.3g}, "
               f"activations {figures.activation_bits:.3g})\nsize          {figures.size_mb:.4g} MB\n"
               f"tokens        {' '.join(map(str, figures.tokens))}\nEER           {eer_pct:.3f} %")  # fmt: skip


def eer(
    candidate: Annotated[
        Path | None, typer.Argument(metavar="[CANDIDATE.json]", help="A candidate, instead of figures.")
    ] = None,
    params_m: Annotated[
        float | None, typer.Option(help="Parameters in millions.", min=0, show_default=False)
    ] = None,
    flops_g: Annotated[
        float | None, typer.Option(help="FLOPs (MACs) in billions.", min=0, show_default=False)
    ] = None,
    bits: Annotated[float | None, typer.Option(help="Mean bits.", min=0, show_default=False)] = None,
    size_mb: Annotated[float | None, typer.Option(help="Size in MB.", min=0, show_default=False)] = None,
    reference: ReferenceFile = None,
    json_output: JsonFlag = False,
) -> None:
    """Efficient Error Rate in percent of a reference (default ViT-B/16), over the figures given."""
    from vitsearch.config import EerSpec
    from vitsearch.cost import eer_pct
    from vitsearch.errors import InputError

    given = {
        "params": None if params_m is None else params_m * 1e6,
        "macs": None if flops_g is None else flops_g * 1e9,
        "bits": bits,
        "size": size_mb,
    }
    values = {name: value for name, value in given.items() if value is not None}
    if candidate is not None and values:
        raise InputError("needs either a candidate file or figures, not both", where="vitsearch eer",
                         remedy="leave out one of the two")  # fmt: skip
    if candidate is None and not values:
        raise InputError("needs either a candidate file or figures", where="vitsearch eer",
                         remedy="for example: vitsearch eer --params-m 24.1 --flops-g 4.5")  # fmt: skip
    spec = _spec(reference)
    if candidate is not None:
        from vitsearch.candidate import load_candidate
        from vitsearch.cost import cost_of

        values = cost_of(load_candidate(candidate)).eer_values()
    spec = EerSpec.model_validate({"metrics": tuple(values), "reference": spec.reference})
    found = eer_pct(values, spec)
    if not math.isfinite(found):
        raise InputError("needs figures that are finite, and so is what comes of them", where="vitsearch eer",
                         value=found, remedy="write smaller ones")  # fmt: skip
    if json_output:
        print_json({"eer_pct": found, "metrics": list(values), "reference": spec.reference.name})
    else:
        typer.echo(f"{found:.1f} %")


def _spec(reference: Path | None) -> EerSpec:
    from vitsearch.config import EerSpec, ReferenceSpec, load_yaml, parse

    if reference is None:
        return EerSpec()
    return EerSpec(reference=parse(ReferenceSpec, load_yaml(reference), where=str(reference)))
