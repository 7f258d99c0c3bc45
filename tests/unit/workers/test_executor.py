"""What workers answer."""

from __future__ import annotations

import pytest

from vitsearch.errors import WorkerError
from workers.executor import _parse_outcome


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "other"}', '{"kind": "result", "trial": 1}', "\x00"])
def test_what_is_no_outcome_is_the_worker_s_fault(text: str):
    with pytest.raises(WorkerError, match="no outcome of a trial"):
        _parse_outcome(text)
