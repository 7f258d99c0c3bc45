"""What crosses between processes."""

from vitsearch.messages import TrialFailure


def test_a_failure_keeps_no_password():
    said = "FileNotFoundError: ftp://me:geheim@h/studies/00001"
    kept = TrialFailure(trial=1, stage="worker", failure="unexpected", message=said)
    assert kept.message == "FileNotFoundError: ftp://***@h/studies/00001"
    assert TrialFailure.model_validate_json(kept.model_dump_json()) == kept
