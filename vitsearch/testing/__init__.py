"""What benchmarks and conformance tests need, ours and those of others.

Here are random draws and trials that cost nothing; ``testing.study`` drives whole studies of them. The suites in
``testing.reducers``, ``testing.storage`` and ``testing.executors`` say what each reducer, store and executor
promises.
"""

from vitsearch.testing.noop import NoopTrainer, noop_profile, noop_result
from vitsearch.testing.random import random_candidates, random_draw

__all__ = ["NoopTrainer", "noop_profile", "noop_result", "random_candidates", "random_draw"]
