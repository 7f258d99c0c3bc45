from __future__ import annotations

import zlib

from tests.unit.search.factory import DATA, make_job
from vitsearch.config import JobSpec
from vitsearch.report import space_of
from vitsearch.search import Asker
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
