"""Good and bad images in one call."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vitsearch.cli.results import predict
from vitsearch.errors import InputError


def test_what_worked_is_printed_before_the_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def classified(path: Path) -> list[Any]:
        if "bad" in path.name:
            raise InputError("the file does not exist", where=str(path))
        return [SimpleNamespace(class_name="cat", probability=0.75)]

    monkeypatch.setattr("vitsearch.export.load", lambda _: SimpleNamespace(predict=classified))
    with pytest.raises(InputError) as caught:
        predict(tmp_path, [Path(name) for name in ("bad1.png", "good.png", "bad2.png")])
    assert capsys.readouterr().out == "good.png: cat (75.0 %)\n"
    assert str(caught.value).splitlines() == [
        "bad1.png: the file does not exist", "bad2.png: the file does not exist"
    ]  # fmt: skip
