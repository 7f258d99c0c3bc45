"""Which trials a sampler looks at, where an ask would take longer the more there are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

from optuna import Study
from optuna.samplers import BaseGASampler
from optuna.trial import FrozenTrial, TrialState


class View(Protocol):
    """Chooses trials."""

    def choose(self, study: Study) -> list[FrozenTrial]:
        """Those to look at, by number."""
        ...


class Latest:
    """The front, the latest finished trials, and all that run.

    Args:
        count: Finished trials beside the front.
        front: Numbers of the trials on the front.
    """

    def __init__(self, count: int, front: Callable[[], Collection[int]]) -> None:
        self._count, self._front = count, front

    def choose(self, study: Study) -> list[FrozenTrial]:
        """See ``View``."""
        front, finished = self._front(), 0
        chosen: list[FrozenTrial] = []
        for trial in reversed(study.get_trials(deepcopy=False)):
            if trial.state.is_finished():
                finished += 1
                if finished > self._count and trial.number not in front:
                    continue
            chosen.append(trial)
        return chosen[::-1]


class Generations:
    """All that a genetic sampler would find among all trials: the latest generation, its parents, and what runs.

    Optuna walks through all trials three times for each ask. What has ended of generations before the latest
    counts no more, unless it was chosen as a parent, and is not looked at again.

    Args:
        sampler: Knows generations and parents.
    """

    def __init__(self, sampler: BaseGASampler) -> None:
        self._sampler = sampler
        self._num_seen = 0
        self._counting: list[int] = []
        self._latest = -1
        self._parents: frozenset[int] = frozenset()

    def choose(self, study: Study) -> list[FrozenTrial]:
        """See ``View``."""
        trials = study.get_trials(deepcopy=False)
        self._counting += range(self._num_seen, len(trials))
        self._num_seen = len(trials)
        ended = {
            number: self._sampler.get_trial_generation(study, trials[number])
            for number in self._counting
            if trials[number].state == TrialState.COMPLETE
        }
        latest = max(ended.values(), default=0)
        self._counting = [number for number in self._counting if ended.get(number, latest) == latest]
        # One after the other, each from those before: after a rebuild Optuna would call itself for all of them.
        for generation in range(max(1, self._latest + 1), latest + 1):
            parents = self._sampler.get_parent_population(study, generation)
            self._parents = frozenset(trial.number for trial in parents)
        self._latest = latest
        return [trials[number] for number in sorted(self._parents.union(self._counting))]


class Seen:
    """A study with fewer trials; everything else is the study's own.

    Args:
        study: The study.
        trials: Those that are left.
    """

    def __init__(self, study: Study, trials: Sequence[FrozenTrial]) -> None:
        self._whole, self._chosen = study, trials

    def __getattr__(self, name: str) -> Any:
        return getattr(self._whole, name)

    def _get_trials(
        self, deepcopy: bool = True, states: Collection[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache
        return [trial for trial in self._chosen if states is None or trial.state in states]
