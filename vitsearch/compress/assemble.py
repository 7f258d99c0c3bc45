"""A candidate's network in its final form, ready for weights that were saved in that form."""

from __future__ import annotations

from vitsearch.candidate import Candidate
from vitsearch.compress.quantize import insert_quantizers
from vitsearch.compress.tokens import build_reducers
from vitsearch.models import VisionTransformer, build_pruned


def assemble(candidate: Candidate) -> VisionTransformer:
    """Pruned shape, token reducers and quantisers in place, in evaluation mode; weights not yet meaningful."""
    model = build_pruned(candidate)
    model.set_reducers(build_reducers(candidate))
    return insert_quantizers(model, candidate.precision).eval()
