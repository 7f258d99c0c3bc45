"""A candidate's network in its final form, ready for weights that were saved in that form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor

from vitsearch.candidate import BlockWidths, Candidate
from vitsearch.compress.quantize import insert_quantizers
from vitsearch.compress.quantize.mixed import remembered
from vitsearch.compress.tokens import build_reducers
from vitsearch.models import VisionTransformer


def assemble(candidate: Candidate, state: Mapping[str, Tensor] | None = None) -> VisionTransformer:
    """Pruned shape, token reducers and quantisers in place, in evaluation mode; weights not yet meaningful.

    Args:
        candidate: What to build.
        state: The weights that will be loaded. Under a budget of MACs they, and not the candidate, tell how many
            heads and hidden units each block has; so with its bits, where they are shared out by sensitivity.
    """
    widths = candidate.widths
    if candidate.sparsity.macs_ratio is not None and state is not None:
        widths = tuple(_seen(w, number, state) for number, w in enumerate(widths))
    model = VisionTransformer(candidate.pruned_architecture, widths=widths)
    model.set_reducers(build_reducers(candidate))
    return insert_quantizers(model, remembered(candidate.precision, state)).eval()


def _seen(widths: BlockWidths, number: int, state: Mapping[str, Tensor]) -> BlockWidths:
    """The sizes of one block as its weights have them; as they were where these are missing or misshapen."""
    sizes = {}
    for layer in ("attn.proj", "mlp.fc2"):
        names = (f"blocks.{number}.{layer}.weight", f"blocks.{number}.{layer}.layer.weight")
        weight = next((state[name] for name in names if name in state), None)
        if weight is None or weight.ndim != 2:
            return widths
        sizes[layer] = int(weight.shape[1])
    return replace(widths, heads=max(1, sizes["attn.proj"] // widths.v_dim), mlp_units=max(1, sizes["mlp.fc2"]))
