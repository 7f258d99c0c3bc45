"""A tree-structured Parzen estimator over all axes at once (Ozaki et al., 2022, for several objectives)."""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler


def build_tpe(seed: int, population: int) -> BaseSampler:  # noqa: ARG001
    """See ``SamplerFactory``."""
    return TPESampler(seed=seed, multivariate=True, constant_liar=True)
