"""Dimensions, conditions and repairs; draws become candidates."""

from vitsearch.space.dimension import Dimension
from vitsearch.space.presets import load_preset, preset_names, resolve_preset
from vitsearch.space.probe import recipes
from vitsearch.space.size import continuous_fields, num_configurations
from vitsearch.space.space import SPARSITY_RATIOS, Draw, SearchSpace

__all__ = [
    "SPARSITY_RATIOS",
    "Dimension",
    "Draw",
    "SearchSpace",
    "continuous_fields",
    "load_preset",
    "num_configurations",
    "preset_names",
    "recipes",
    "resolve_preset",
]
