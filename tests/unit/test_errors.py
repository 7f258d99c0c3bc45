import pickle

import pytest

from vitsearch.errors import InputError, MissingExtraError, StudyLockedError, TrialError, VitsearchError


def test_input_error_names_place_rule_value_and_remedy():
    error = InputError(
        "must be positive", where="job.yaml", field="search.trials", value=-1, remedy="use 1 or more"
    )
    assert str(error) == "job.yaml: search.trials: must be positive, but got -1; use 1 or more"
    assert isinstance(error, ValueError)
    assert error.exit_code == 2


def test_input_error_lists_the_further_ones():
    error = InputError("is wrong", field="a", more=[InputError("is wrong too", field="b")])
    assert str(error).splitlines() == ["a: is wrong", "b: is wrong too"]


def test_long_values_are_shortened():
    assert len(str(InputError("is too long", value="x" * 1000))) < 120


@pytest.mark.parametrize(
    "error",
    [
        InputError("must be positive", where="job.yaml", field="a", value=3, more=[InputError("too")]),
        MissingExtraError("PostgreSQL", "postgres"),
        StudyLockedError("another driver holds it"),
        TrialError("train", "worker_lost", "the worker went away", retryable=True),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_survive_the_way_to_another_process(error: VitsearchError):
    copy = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert type(copy) is type(error)
    assert str(copy) == str(error)
    assert {k: str(v) for k, v in vars(copy).items()} == {k: str(v) for k, v in vars(error).items()}


def test_missing_extra_says_what_to_install():
    assert "pip install 'vitsearch[postgres]'" in str(MissingExtraError("PostgreSQL", "postgres"))
