"""The addresses of a job, or of a part of it: databases, servers, data, networks; and the secrets in them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, TypeVar

from vitsearch.config.base import Place, Spec
from vitsearch.errors import InputError, hide_password, holds_password

SpecT = TypeVar("SpecT", bound=Spec)
_USER_INFO = re.compile(r"[^:/]*://(?=[^@/]*[:@])(.*)@", re.DOTALL)
_LIKE_AN_ADDRESS = re.compile(r"(^|/)[A-Za-z][A-Za-z0-9+.-]+:/")


def addresses_in(spec: Spec) -> dict[str, str]:
    """Every address by the dotted name of its field; paths are none."""
    return {name: value for name, value in _leaves(spec.model_dump()) if _is_address(value)}


def fields_with_password(spec: Spec) -> list[str]:
    """The fields in whose addresses a password is written out."""
    return [field for field, address in addresses_in(spec).items() if holds_password(address)]


def without_passwords(spec: SpecT) -> SpecT:
    """The same with ``***`` in the place of each secret."""
    if all(hide_password(address) == address for address in addresses_in(spec).values()):
        return spec
    return type(spec).model_validate(_changed(spec.model_dump()))


def name_of(place: Place) -> str:
    """What people call a file or an address: its last part, without query, fragment, user and password."""
    if isinstance(place, Path):
        return place.name
    plain = hide_password(place)  # first: a password may hold what would look like a query or a path
    for mark in "?#":
        plain = plain.partition(mark)[0]
    return plain.rstrip("/").rpartition("/")[2].rpartition("@")[2]


def check_address_text(address: str, *, field: str) -> None:
    """Refuse characters behind which the rest of a password would no longer be told from other text.

    Raises:
        InputError: A blank, a quote or a control character is in user, password or query; does not show them.
    """
    user_info = _USER_INFO.match(address)
    query = address[user_info.end() if user_info else 0 :].partition("?")[2]
    if re.search(r"[\s'\"\x00-\x1f\x7f]", (user_info[1] if user_info else "") + query):
        raise InputError(
            "must have no blanks, quotes or control characters in user, password and query", field=field,
            remedy="percent-encode them: %20 for a blank, %27 and %22 for quotes",
        )  # fmt: skip


def check_addresses(spec: Spec, *, where: str, fields: Container[str] | None = None) -> None:
    """The same of every address of a job, and of what became a path because it is no whole address.

    Args:
        spec: The job.
        where: Its file, for messages.
        fields: The only ones to look at.

    Raises:
        InputError: The message names file and field, and shows no value.
    """
    for field, value in _leaves(spec.model_dump()):
        if fields is not None and field not in fields:
            continue
        if isinstance(value, Path) and _LIKE_AN_ADDRESS.search(value.as_posix()):
            raise InputError("must be a path, or an address like https://HOST/FILE without blanks", where=where,
                             field=field, remedy="write it with ://, and %20 for a blank")  # fmt: skip
        if _is_address(value):
            try:
                check_address_text(value, field=field)
            except InputError as error:
                error.where = where
                raise


def _is_address(value: object) -> bool:
    return isinstance(value, str) and "://" in value


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict | list | tuple):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _leaves(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _changed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _changed(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(inner) for inner in value]
    return hide_password(value) if _is_address(value) else value
