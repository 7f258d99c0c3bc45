"""Parts of an address that stand elsewhere: ``${NAME}`` in the environment, ``${file:/FOLDER/FILE}`` in a file.

A job, and all that is made of it, keeps the placeholder; what it stands for is read where and when something
connects.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import quote

from vitsearch.errors import PLACEHOLDER, InputError

MAX_SECRET_BYTES = 65_536
_MARK = re.compile(r"\$\{([^}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|file:/[^\s\x00-\x1f'\"{}]+")


def is_placeholder(address: str) -> bool:
    """Whether a whole address stands elsewhere."""
    return bool(re.fullmatch(PLACEHOLDER, address))


def check_placeholders(address: str) -> None:
    """Refuse what begins like a placeholder and is none.

    Raises:
        ValueError: With what to write; it shows nothing but the placeholder.
    """
    for match in _MARK.finditer(address):
        if not match[0].endswith("}") or not _NAME.fullmatch(match[1]):
            raise ValueError(
                f"must have ${{NAME}} or ${{file:/FOLDER/FILE}} where it leaves something to the environment or a "
                f"file, but got {match[0][:60]!r}; write ${{ that belongs to a password as %24%7B"
            )


def sample_of(address: str) -> str:
    """The address with a figure, which may stand anywhere, in the place of each placeholder."""
    return _MARK.sub("1", address)


def filled_in(address: str, *, field: str) -> str:
    """The address to connect to.

    What stands for user, password or a part of the query is percent-encoded; so a password is written as it is.

    Args:
        address: As written, placeholders checked.
        field: Dotted name of the field that it is from, for messages.

    Raises:
        InputError: A variable is not set, or a file cannot be read; names both and never what they hold.
    """

    def value(match: re.Match[str]) -> str:
        found = _looked_up(match[1], field)
        before, after = (_MARK.sub("", text) for text in (address[: match.start()], address[match.end() :]))
        encoded = ("://" in before and "@" in after) or "?" in before
        return quote(found, safe="") if encoded else found

    return _MARK.sub(value, address)


def _looked_up(name: str, field: str) -> str:
    if name.startswith("file:"):
        return _first_line(Path(name.removeprefix("file:")), field)
    found = os.environ.get(name, "")
    if not found:
        state = "empty" if name in os.environ else "not set"
        raise InputError(
            f"needs the environment variable {name}, which is {state} where the search is driven", field=field,
            remedy=f"export {name} there, or name a file: ${{file:/FOLDER/FILE}}",
        )  # fmt: skip
    return found


def _first_line(path: Path, field: str) -> str:
    problem = "is empty"
    try:
        with path.open(encoding="utf-8") as file:
            line = file.readline(MAX_SECRET_BYTES).rstrip("\r\n")
    except OSError as error:
        line, problem = "", f"cannot be read ({error.strerror})"
    except UnicodeDecodeError:
        line, problem = "", "is not UTF-8 text"
    if not line:
        raise InputError(
            f"needs the first line of the file {path}, which {problem} where the search is driven", field=field,
            remedy="put it there, readable by the user that drives the search",
        )  # fmt: skip
    return line
