from __future__ import annotations

import zlib

import pytest

from tests.unit.search.factory import DATA, make_job
from vitsearch.config import JobSpec
from vitsearch.report import space_of
from vitsearch.search import SAMPLERS, Asker
from vitsearch.search.asker import Past


def play(asker: Asker, count: int) -> list[Past]:
    past = []
    for _ in range(count):
        asked = asker.ask()
        values = [
            0.1 + (zlib.crc32(str(sorted(asked.draw.items())).encode()) % 80) / 100,
            float(asked.draw["architecture.depth"]),
        ]
        asker.tell(asked.number, values)
        past.append(Past(asked=asked, values=values))
    return past


def job_with(sampler: str) -> JobSpec:
    return make_job(search={"sampler": sampler, "trials": 40, "population": 8})


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_rebuilt_sampler_goes_on_without_repeating_its_draws(sampler: str) -> None:
    job = job_with(sampler)
    space = space_of(job, DATA)
    past = play(Asker(space, job), 18)

    rebuilt = Asker(space, job, past)
    more = play(rebuilt, 4)

    assert [one.asked.number for one in more] == [18, 19, 20, 21]
    assert not [m for m in more if m.asked.draw in [p.asked.draw for p in past[:4]]]
    trials = rebuilt.study.get_trials(deepcopy=False)
    assert [t.values for t in trials[:18]] == [p.values for p in past]


def test_generations_of_nsga2_survive_a_rebuild() -> None:
    job = job_with("nsga2")
    space = space_of(job, DATA)
    past = play(Asker(space, job), 20)

    rebuilt = Asker(space, job, past)

    key = next(k for k in rebuilt.study.get_trials(deepcopy=False)[0].system_attrs if "generation" in k.lower())
    generations = [t.system_attrs[key] for t in rebuilt.study.get_trials(deepcopy=False)]
    assert max(generations) >= 1
    assert generations == sorted(generations)


def test_a_trial_that_was_running_can_be_told_after_a_rebuild() -> None:
    job = job_with("nsga2")
    space = space_of(job, DATA)
    asker = Asker(space, job)
    asked = asker.ask()

    rebuilt = Asker(space, job, [Past(asked=asked, values=None)])
    rebuilt.tell(asked.number, [0.5, 3.0], violation=2.0)

    trial = rebuilt.study.get_trials(deepcopy=False)[0]
    assert trial.values == [0.5, 3.0]
    assert 2.0 in [v for k, v in trial.system_attrs.items() if k.startswith("constraints")]


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_every_sampler_draws_inside_the_space(sampler: str) -> None:
    job = job_with(sampler)
    space = space_of(job, DATA)
    for one in play(Asker(space, job), 16):
        assert all(axis.contains(one.asked.draw[axis.name]) for axis in space.dimensions)
        space.decode(one.asked.draw)
