"""What benchmarks and conformance tests need, ours and those of others.

Here are random draws, trials that cost nothing and fronts by plain comparison; ``testing.study`` drives whole
studies of such trials. The suites in ``testing.reducers``, ``testing.storage`` and ``testing.executors`` say what
each reducer, store and executor promises.
"""

from vitsearch.testing.front import front_by_comparison, front_of_results
from vitsearch.testing.noop import NoopTrainer, noop_profile, noop_result
from vitsearch.testing.random import random_candidates, random_draw

__all__ = [
    "NoopTrainer",
    "front_by_comparison",
    "front_of_results",
    "noop_profile",
    "noop_result",
    "random_candidates",
    "random_draw",
]
