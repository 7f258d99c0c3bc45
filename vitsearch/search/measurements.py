"""Measurements of a study's models: asked for, found among earlier ones, kept for later ones."""

from __future__ import annotations

import hashlib
import json

from vitsearch.config import RUNTIMES, TargetSpec
from vitsearch.cost import cost_kind
from vitsearch.messages import MachineFacts, Profile, ProfileRequest, TrialResult
from vitsearch.profile.choice import executes, fastest_of, one_by_one, runtime_of
from vitsearch.search.executor import Executor
from vitsearch.search.places import Places
from vitsearch.search.study import Study

ANSWER_S = 15.0
METHOD = 3
"""Raised whenever figures are measured differently, so that old ones do not mix with new ones."""


class Measurements:
    """What a driver asks an executor to measure, less what is known.

    A figure is found again by everything it depends on: the candidate, the hardware, the runtime with its version,
    batch and threads; the weights and images only where tokens, widths or answers depend on them.

    Args:
        study: Whose models.
        executor: Measures.
        places: Where the models are.
    """

    def __init__(self, study: Study, executor: Executor, places: Places) -> None:
        self._study, self._executor, self._places = study, executor, places
        self._waited: set[str] = set()

    def begin(self, number: int, target: TargetSpec) -> Profile | None:
        """Ask for a measurement.

        Args:
            number: The trial.
            target: Where and how.

        Returns:
            The profile where all of it is known; otherwise the executor tells in a ``ProfileDone``.
        """
        candidate = self._study.trials[number].candidate
        known = self._known(number, target)
        names = {runtime_of(one) for one in known}
        if known and names >= {name for name in target.runtimes if executes(name, candidate)}:
            return fastest_of(known, {})
        self._executor.submit_profile(
            ProfileRequest(
                trial=number,
                artifact_dir=self._places.trial(number),
                candidate=candidate,
                target=target,
                known=known,
            )
        )
        return None

    def end(self, number: int, target: TargetSpec, profile: Profile) -> None:
        """Keep what was measured undisturbed."""
        self._study.store.keep_measurements(
            {
                self._key(number, target, one.conditions.machine, one.conditions.runtime): one
                for one in one_by_one(profile)
                if not (one.conditions.reused or one.conditions.contended or one.conditions.throttled)
                and one.conditions.machine
            }
        )

    def _known(self, number: int, target: TargetSpec) -> tuple[Profile, ...]:
        facts = self._executor.facts_of(target.name, 0.0 if target.name in self._waited else ANSWER_S)
        self._waited.add(target.name)
        if facts is None:
            return ()
        candidate = self._study.trials[number].candidate
        able = [name for name in target.runtimes if executes(name, candidate)]
        keys = [
            self._key(number, target, facts.fingerprint, f"{name} {version}")
            for name in able
            if (version := _version(facts, name))
        ]
        found = self._study.store.measurements(keys)
        counts_energy = target.device in facts.energy  # it may not have, when the figure was kept
        return tuple(
            _under(profile, target.name)
            for profile in found.values()
            if profile.energy_mj is not None or not counts_energy
        )

    def _key(self, number: int, target: TargetSpec, machine: str, runtime: str) -> str:
        trial = self._study.trials[number]
        depends_on_weights = (
            RUNTIMES[runtime.partition(" ")[0]].own_arithmetic or cost_kind(trial.candidate) != "exact"
        )
        weights = trial.outcome.weights_sha256 if isinstance(trial.outcome, TrialResult) else ""
        parts = [
            METHOD, trial.candidate.hash, machine, runtime, target.device, target.batch_size, target.threads,
            target.warmup, target.repeats,
            *([weights, self._study.data.fingerprint] if depends_on_weights else []),
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _version(facts: MachineFacts, runtime: str) -> str:
    found = facts.runtimes.get(RUNTIMES[runtime].library)
    return "" if found is None else found.version


def _under(profile: Profile, target: str) -> Profile:
    conditions = profile.conditions.model_copy(update={"target": target, "reused": True, "measured_by": ""})
    return profile.model_copy(update={"conditions": conditions})
