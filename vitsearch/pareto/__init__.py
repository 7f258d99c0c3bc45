"""Fronts, hypervolume and knees; the only place where objective signs are flipped."""

from vitsearch.pareto.front import hypervolume, knee, non_dominated, ranks, reference_point

__all__ = ["hypervolume", "knee", "non_dominated", "ranks", "reference_point"]
