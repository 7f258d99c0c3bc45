"""What benchmarks and conformance tests of third parties need: draws, candidates, and trials that cost nothing."""

from vitsearch.testing.noop import noop_result
from vitsearch.testing.random import random_candidates, random_draw

__all__ = ["noop_result", "random_candidates", "random_draw"]
