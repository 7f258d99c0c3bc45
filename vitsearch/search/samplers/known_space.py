"""What a sampler need not find out by itself: the axes, which never change, and which trials are worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from vitsearch.search.samplers.views import Seen, View


class KnownSpace(BaseSampler):
    """A sampler of Optuna's over axes that all trials share.

    Optuna compares the axes of all trials since the oldest that still runs at every ask, which with a thousand
    workers takes longer than the ask itself. And a sampler whose every ask takes longer the more it has seen looks
    at a bounded view.

    Args:
        inner: The sampler.
        distributions: Every axis.
        view: The trials that it looks at; None for all.
    """

    def __init__(
        self, inner: BaseSampler, distributions: Mapping[str, BaseDistribution], view: View | None
    ) -> None:
        self._inner, self._view = inner, view
        self._axes = {name: distributions[name] for name in sorted(distributions)}
        self._has_seen_one = False

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """All axes that leave a choice, once a trial has ended; a sampler that draws each by itself has none."""
        if not self._has_seen_one:
            found = self._inner.infer_relative_search_space(study, trial)
            self._has_seen_one = bool(found)
            return found
        return {name: axis for name, axis in self._axes.items() if not axis.single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """By the inner sampler, on its view."""
        return self._inner.sample_relative(self._seen(study), trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """By the inner sampler, on its view."""
        return self._inner.sample_independent(self._seen(study), trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Passed on."""
        self._inner.before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None
    ) -> None:
        """Passed on."""
        self._inner.after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Passed on."""
        self._inner.reseed_rng()

    def _seen(self, study: Study) -> Study:
        return study if self._view is None else Seen(study, self._view.choose(study))  # type: ignore[return-value]
