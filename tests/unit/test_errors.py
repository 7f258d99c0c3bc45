import pickle

import pytest

from vitsearch.errors import (
    InputError,
    MissingExtraError,
    StudyLockedError,
    TrialError,
    VitsearchError,
    first_line,
    hide_password,
    hide_passwords,
    holds_password,
)


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


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("postgresql+psycopg://u:geheim@h:5432/db", "postgresql+psycopg://***@h:5432/db"),
        ("postgresql://u:ge@/heim@h/db", "postgresql://***@h/db"),
        ("cannot reach 'https://token@h/x'", "cannot reach 'https://***@h/x'"),
        ("http://h:5000/#/experiments/1", "http://h:5000/#/experiments/1"),
        ("x://h/db?sslpassword=geheim&a=b", "x://h/db?sslpassword=***&a=b"),
        ("https://h/?access_token=geheim", "https://h/?access_token=***"),
        ("url: a://u:geheim@h\nuri: b://u:geheim@h", "url: a://***@h\nuri: b://***@h"),
        ("mail me@example.org", "mail me@example.org"),
        ('got "a://u:SEC\'RET@h/db", not it', 'got "a://***@h/db", not it'),
        ("x://h/db?password=a'b&c=d", "x://h/db?password=***&c=d"),
        ("['http://h/x', 'me@h'] \"http://h\": 'a@b'", "['http://h/x', 'me@h'] \"http://h\": 'a@b'"),
        (
            "s3://h/x?X-Amz-Credential=AK%2F1&X-Amz-Date=1&X-Amz-Security-Token=t&X-Amz-Signature=s",
            "s3://h/x?X-Amz-Credential=***&X-Amz-Date=1&X-Amz-Security-Token=***&X-Amz-Signature=***",
        ),
        ("see x://me@h/db?password=SEC@RET and y", "see x://*** and y"),
        ("https://h/x?sv=1&sig=a%2Bb", "https://h/x?sv=1&sig=***"),
        (
            "x://h?access-token=a&api-key=b&secret_access_key=c",
            "x://h?access-token=***&api-key=***&secret_access_key=***",
        ),
        ("x://h?passwd=a&AWSAccessKeyId=b", "x://h?passwd=***&AWSAccessKeyId=***"),
    ],
)
def test_passwords_are_hidden(text: str, hidden: str):
    assert hide_passwords(text) == hidden


@pytest.mark.parametrize("secret", ["SEC'RET", 'SEC"RET', "SEC RET", "SEC\nRET", "S', 'E@C/RET", "SEC@RET"])
def test_a_password_may_hold_anything_where_an_address_stands_alone(secret: str):
    for address in (f"postgresql://me:{secret}@h/db", f"postgresql://me@h/db?password={secret}"):
        assert holds_password(address)
        assert secret not in hide_password(address)
        told = str(InputError("is wrong", value=address))
        assert not [part for part in ("SEC", "RET") if part in told]
    assert not holds_password("postgresql://me@h/db?sslmode=require")
    assert not holds_password("postgresql://me:@/db?host=/run/postgresql"), "an empty one opens nothing"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n one: a://me:geheim@h\ntwo"), "one: a://***@h"),
        (EOFError(), "EOFError"),
    ],
)
def test_the_first_line_of_an_error(error: Exception, line: str):
    assert first_line(error) == line


def test_an_error_shows_no_password():
    assert "geheim" not in str(InputError("must be named fields", value="postgresql://u:geheim@h/db"))


def test_missing_extra_says_what_to_install():
    assert "pip install 'vitsearch[postgres]'" in str(MissingExtraError("PostgreSQL", "postgres"))


def test_values_too_large_to_be_written_out_are_named():
    nested: list[object] = ["x"] * 9
    for _ in range(9):
        nested = [nested] * 9  # as aliases of YAML make it
    assert str(InputError("is wrong", value=nested)) == "is wrong, but got a very large list"
    assert str(InputError("is wrong", value=10**5000)) == "is wrong, but got a very large int"
    assert str(InputError("is wrong", value={"a": [1, "x"]})) == "is wrong, but got {'a': [1, 'x']}"
