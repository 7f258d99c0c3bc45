"""What every sampler promises."""

from __future__ import annotations

import dataclasses
import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna import Study
from optuna.trial import FrozenTrial, TrialState

from vitsearch.config import METRICS, SAMPLERS, JobSpec, MetricName, parse
from vitsearch.errors import InputError
from vitsearch.messages import Profile, ProfileRequest
from vitsearch.pareto import non_dominated
from vitsearch.report import space_of
from vitsearch.report.figures import objective_values
from vitsearch.search import Asker
from vitsearch.search import asker as asker_module
from vitsearch.search.asker import Asked, Past, distribution
from vitsearch.search.samplers import build_sampler
from vitsearch.search.samplers.known_space import KnownSpace
from vitsearch.search.samplers.views import Generations, Latest, Seen
from vitsearch.testing import noop_profile
from vitsearch.testing.study import noop_data, noop_driver

ORDERED: tuple[MetricName, ...] = (
    "accuracy", "latency", "throughput", "memory", "eer", "size", "macs", "params", "bits", "energy",
)  # fmt: skip
EARLY = 10  # drawn at random by every sampler: the first generation, or what a model needs to start
GP_SELDOM = [pytest.param(name, marks=pytest.mark.slow) if name == "gp" else name for name in SAMPLERS]
TRIALS = {"gp": 24}  # in place of 100: an ask takes it half a second


def job_with(
    sampler: str, *, objectives: Sequence[MetricName] = ("accuracy", "eer"), trials: int = 40, **more: object
) -> JobSpec:
    return JobSpec.model_validate(
        {
            "name": "samplers",
            "dataset": {"kind": "digits"},
            "space": "vit_micro_8",
            "objectives": objectives,
            "search": {"sampler": sampler, "trials": trials, "population": EARLY},
            "tracking": {"enabled": False},
            "seed": 1,
            **more,
        }
    )


def play(asker: Asker, count: int) -> list[Past]:
    """Ask and tell; the first objective is noise, the second the depth, which is infeasible when odd."""
    past = []
    for _ in range(count):
        asked = asker.ask()
        noise = zlib.crc32(str(sorted(asked.draw.items())).encode()) % 80
        depth = int(asked.draw["architecture.depth"])
        values, violation = [0.1 + noise / 100, float(depth)], 1.0 if depth % 2 else -1.0
        asker.tell(asked.number, values, violation)
        past.append(Past(asked=asked, values=values, violation=violation))
    return past


def test_every_sampler_is_of_its_own_class() -> None:
    samplers = {name: type(built(name)._inner) for name in SAMPLERS}
    assert len(set(samplers.values())) == len(SAMPLERS), samplers


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_seed_and_population_arrive(sampler: str) -> None:
    space = space_of(job_with(sampler), noop_data())
    askers = [Asker(space, job_with(sampler, seed=seed)) for seed in (1, 1, 2)]
    first, same, other = ([asker.ask().draw for _ in range(2)] for asker in askers)
    assert first == same != other
    assert getattr(built(sampler)._inner, "_population_size", EARLY) == EARLY


def built(sampler: str) -> KnownSpace:
    job = job_with(sampler)
    axes = {axis.name: distribution(axis) for axis in space_of(job, noop_data()).dimensions}
    return build_sampler(job, seed=0, distributions=axes, front=lambda: ())


@pytest.mark.parametrize("sampler", GP_SELDOM)
def test_a_known_space_changes_no_draw(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Optuna finds out at every ask is what it is told; and a view that shows all shows all."""
    job = job_with(sampler)
    space = space_of(job, noop_data())
    told = [one.asked.draw for one in play(Asker(space, job), 18)]
    monkeypatch.setattr(
        asker_module, "build_sampler", lambda *args, **options: build_sampler(*args, **options)._inner
    )
    assert [one.asked.draw for one in play(Asker(space, job), 18)] == told


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_view_is_the_front_the_latest_and_all_that_run(sampler: str) -> None:
    job = job_with(sampler)
    space = space_of(job, noop_data())
    asker = Asker(space, job)
    past = play(asker, 30)
    running = [asker.ask().number for _ in range(3)]
    seen = Seen(asker.study, Latest(5, lambda: asker._front).choose(asker.study))
    numbers = {trial.number for trial in seen._get_trials(states=[TrialState.COMPLETE])}
    feasible = [one for one in past if one.violation <= 0 and one.values is not None]
    best = non_dominated([list(one.values) for one in feasible if one.values is not None], [True, False])
    front = {feasible[i].asked.number for i in best}
    assert asker._front.keys() == front
    assert numbers == {*range(25, 30), *front}
    assert [trial.number for trial in seen._get_trials(states=[TrialState.RUNNING])] == running
    assert seen.directions == asker.study.directions
    rebuilt = Asker(space, job, past)
    assert rebuilt._front == asker._front


def play_many(asker: Asker, count: int, workers: int) -> list[Asked]:
    """Ask as many at a time as there are workers, and tell them in another order."""
    running: list[Asked] = []
    all_asked = []
    for number in range(count):
        while len(running) < workers:
            running.append(asker.ask())
            all_asked.append(running[-1])
        ended = running.pop(zlib.crc32(str(number).encode()) % len(running))
        noise = zlib.crc32(str(sorted(ended.draw.items())).encode()) % 80
        depth = int(ended.draw["architecture.depth"])
        asker.tell(ended.number, [0.1 + noise / 100, float(depth)], 1.0 if depth % 2 else -1.0)
    return all_asked


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.has_population])
@pytest.mark.parametrize("workers", [1, 25])
def test_a_generation_and_its_parents_are_all_that_a_genetic_sampler_needs(
    sampler: str, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = job_with(sampler)
    space = space_of(job, noop_data())
    draws = [asked.draw for asked in play_many(Asker(space, job), 120, workers)]
    with monkeypatch.context() as patched:
        patched.setattr(
            asker_module, "build_sampler", lambda *args, **options: build_sampler(*args, **options)._inner
        )
        assert [asked.draw for asked in play_many(Asker(space, job), 120, workers)] == draws


@pytest.mark.parametrize("sampler", [name for name, kind in SAMPLERS.items() if kind.has_population])
def test_an_ask_of_a_genetic_sampler_looks_at_no_more_trials_after_many(
    sampler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[int] = []
    choose = Generations.choose

    def counted(self: Generations, study: Study) -> list[FrozenTrial]:
        found = choose(self, study)
        looked.append(len(found))
        return found

    monkeypatch.setattr(Generations, "choose", counted)
    job = job_with(sampler)
    space = space_of(job, noop_data())
    asker, workers = Asker(space, job), 5
    all_asked = play_many(asker, 200, workers)
    # a generation and those that ended while it was full, its parents, and what runs of this and earlier ones
    assert max(looked) <= 2 * (EARLY + 2 * workers)
    trials = asker.study.get_trials(deepcopy=False)
    past = [Past(asked=asked, values=trials[asked.number].values) for asked in all_asked]
    looked.clear()
    play_many(Asker(space, job, past), 20, workers)
    assert looked
    assert max(looked) <= 2 * (EARLY + 2 * workers), "rebuilt, too"


def test_a_study_of_many_generations_is_rebuilt() -> None:
    """Optuna finds the parents of a generation by way of all before, two calls deep for each."""
    job = job_with("nsga2", search={"sampler": "nsga2", "trials": 40, "population": 2})
    space = space_of(job, noop_data())
    asked = Asker(space, job).ask()
    ((key, generation),) = json.loads(asked.sampler_state).items()
    assert generation == 0
    past = [
        Past(
            asked=Asked(number=number, draw=asked.draw, sampler_state=json.dumps({key: number // 2})),
            values=[0.5, 1.0],
        )
        for number in range(1200)
    ]
    assert Asker(space, job, past).ask().number == 1200


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("gp", marks=pytest.mark.slow)])
def test_a_bounded_view_still_steers(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SAMPLERS, sampler, dataclasses.replace(SAMPLERS[sampler], view=12))
    job = job_with(sampler)
    past = play(Asker(space_of(job, noop_data()), job), 30)
    depths = [int(one.asked.draw["architecture.depth"]) for one in past]
    assert len(set(depths)) > 1
    assert all(space_of(job, noop_data()).decode(one.asked.draw) for one in past)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_draws_lie_inside_the_space(sampler: str) -> None:
    job = job_with(sampler)
    space = space_of(job, noop_data())
    for one in play(Asker(space, job), 16):
        assert all(axis.contains(one.asked.draw[axis.name]) for axis in space.dimensions)
        space.decode(one.asked.draw)


@pytest.mark.parametrize("sampler", GP_SELDOM)
def test_a_rebuilt_sampler_goes_on_without_repeating_its_draws(sampler: str) -> None:
    job = job_with(sampler)
    space = space_of(job, noop_data())
    past = play(Asker(space, job), 18)

    rebuilt = Asker(space, job, past)
    more = play(rebuilt, 4)

    assert [one.asked.number for one in more] == [18, 19, 20, 21]
    assert not [m for m in more if m.asked.draw in [p.asked.draw for p in past]]
    trials = rebuilt.study.get_trials(deepcopy=False)
    assert [t.values for t in trials[:18]] == [p.values for p in past]
    for trial, one in zip(trials, past, strict=False):
        assert json.loads(one.asked.sampler_state).items() <= trial.system_attrs.items()


@pytest.mark.parametrize("count", [2, 3, 5, 10])
@pytest.mark.parametrize("sampler", GP_SELDOM)
def test_any_number_of_objectives(sampler: str, count: int, tmp_path: Path) -> None:
    """Told in their natural directions; or refused before anything starts."""
    limit = SAMPLERS[sampler].max_objectives
    names = ORDERED[:count]
    if limit is not None and count > limit:
        data = job_with("random", objectives=names).model_dump() | {"search": {"sampler": sampler}}
        with pytest.raises(
            InputError, match=f"search: sampler {sampler} takes at most {limit} objectives, but got "
        ):
            parse(JobSpec, data, where="job.yaml")
        return
    assert set(ORDERED) == set(METRICS)
    job = job_with(sampler, objectives=names, trials=16)
    driver = noop_driver(tmp_path, job)
    driver.run()

    told = driver._asker.study
    up = {"accuracy", "throughput"}
    assert [direction.name for direction in told.directions] == [
        "MAXIMIZE" if name in up else "MINIMIZE" for name in names
    ]
    trials = [trial for trial in driver.study.trials.values() if trial.succeeded]
    assert len(trials) == 16
    for trial in trials:
        values = told.get_trials(deepcopy=False)[trial.number].values
        assert values == objective_values(trial.figures, job) == [trial.figures[METRICS[n].key] for n in names]
    assert driver.study.front


@pytest.mark.parametrize(
    "sampler",
    [
        pytest.param(name, marks=pytest.mark.slow if name == "gp" else ())
        for name, kind in SAMPLERS.items()
        if kind.learns
    ],
)
def test_it_learns_what_is_infeasible(sampler: str, tmp_path: Path) -> None:
    """A third of all depths is feasible, no objective pulls there, and only a measurement tells."""

    def shallow_is_slow(request: ProfileRequest) -> Profile:
        return noop_profile(request).model_copy(
            update={"latency_ms_p50": 7.0 - request.candidate.architecture.depth}
        )

    job = job_with(sampler, trials=TRIALS.get(sampler, 100), constraints=[{"metric": "latency", "max": 2.0}])
    driver = noop_driver(tmp_path, job, profile=shallow_is_slow)
    driver.run()

    feasible = [trial.candidate.architecture.depth >= 5 for trial in driver.study.trials.values()]
    late = feasible[-max(10, len(feasible) // 4) :]
    assert sum(feasible[:EARLY]) / EARLY < 0.5
    assert sum(late) / len(late) > 0.7
