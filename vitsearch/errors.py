"""Everything vitsearch raises on purpose, in one tree.

::

    VitsearchError                 exit code 1
    ├── InputError                 exit code 2; what a person wrote cannot be used (also a ValueError)
    ├── MissingExtraError          exit code 2; an optional dependency is not installed
    ├── StudyError                 the stored study cannot be used as asked
    │   └── StudyLockedError       another driver owns the study
    ├── ExportError                a bundle could not be made or read
    ├── MeasurementError           a model could not be measured on a target
    ├── TrialError                 one candidate failed; becomes a ``TrialFailure``, never a crash
    └── WorkerError                the process that ran a trial is at fault and must be replaced
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping


class VitsearchError(Exception):
    """Base of the tree; ``exit_code`` is what the command line returns."""

    exit_code = 1


@dataclasses.dataclass(eq=False)
class InputError(VitsearchError, ValueError):
    """One thing a person wrote breaks one rule.

    Attributes:
        rule: What must hold, as a sentence fragment: ``must be a positive integer``.
        where: File or option the value came from.
        field: Dotted path inside it, such as ``search.trials``.
        value: The offending value.
        remedy: What to do about it.
    """

    rule: str
    where: str = ""
    field: str = ""
    value: object = None
    remedy: str = ""
    more: list[InputError] = dataclasses.field(default_factory=list)

    exit_code = 2

    def __str__(self) -> str:
        place = ": ".join(part for part in (self.where, self.field) if part)
        got = "" if self.value is None else f", but got {_short(self.value)}"
        remedy = f"; {self.remedy}" if self.remedy else ""
        lines = [f"{place}: {self.rule}{got}{remedy}" if place else f"{self.rule}{got}{remedy}"]
        return "\n".join([*lines, *map(str, self.more)])


class MissingExtraError(VitsearchError):
    """An optional dependency is needed; the message names the extra to install."""

    exit_code = 2

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(feature, extra)  # the arguments themselves, so that a copy in another process can be made
        self.feature = feature
        self.extra = extra

    def __str__(self) -> str:
        return f"{self.feature} needs an extra; install it with: pip install 'vitsearch[{self.extra}]'"


class StudyError(VitsearchError):
    """The stored study cannot be used as asked."""


class StudyLockedError(StudyError):
    """Another driver holds the study's lease."""


class ExportError(VitsearchError):
    """A bundle could not be made or read."""


class MeasurementError(VitsearchError):
    """No runtime of a target could measure a model.

    Args:
        target: Name of the target.
        failed: What each runtime said.
    """

    def __init__(self, target: str, failed: Mapping[str, str]) -> None:
        super().__init__(target, failed)  # the arguments themselves, so that a copy in another process can be made
        self.target, self.failed = target, failed

    def __str__(self) -> str:
        return "; ".join(f"{name} on {self.target}: {reason}" for name, reason in self.failed.items())


class TrialError(VitsearchError):
    """One candidate failed at a named stage.

    Attributes:
        stage: ``data``, ``build``, ``train``, ``compress``, ``evaluate`` or ``profile``.
        kind: A short stable word such as ``nan_loss``, ``out_of_memory``, ``corrupt_image``.
        retryable: Whether a second attempt can end differently.
    """

    def __init__(self, stage: str, kind: str, message: str, *, retryable: bool = False) -> None:
        super().__init__(stage, kind, message)
        self.stage = stage
        self.kind = kind
        self.message = message
        self.retryable = retryable

    def __str__(self) -> str:
        return self.message


class WorkerError(VitsearchError):
    """The process that runs a trial can compute nothing any more; the candidate is innocent."""


PLACEHOLDER = r"\$\{[^\s'\"{}]+\}"
"""Names where a part of an address stands; see ``vitsearch.config.placeholders``."""
# in a sentence or a file an address ends at a blank, or at a quote behind which no address could go on
_ADDRESS = r"(?:[^\s'\"]|['\"](?![\s,:;)\]}]|$))"
_HIDDEN_FIELDS = (
    r"(?:[\w.-]*(?:password|passwd|pwd|token|secret|signature|credentials?|(?:secret|api|access|account)[_-]?key)"
    r"(?:[_-]?id)?|sig|pass)"
)
_ELSEWHERE = rf"(?:[\w.%~-]*:)?{PLACEHOLDER}|{PLACEHOLDER}:{PLACEHOLDER}|\*{{3}}"


def holds_password(address: str) -> bool:
    """Whether an address has a password in it, rather than a user's name, an empty one or a placeholder alone."""
    user_and_more = re.match(r"[^:/]*://(?=(.*)@)[^@/]*:", address, re.DOTALL)
    secrets = [user_and_more[1]] if user_and_more is not None and user_and_more[1].partition(":")[2] else []
    secrets += [match[2] for match in re.finditer(_in_query("."), address, re.DOTALL)]
    return any(not re.fullmatch(_ELSEWHERE, secret) for secret in secrets)


def hide_passwords(text: str) -> str:
    """The text with the secrets of any address in it replaced by ``***``; a placeholder is none and stays."""
    return _hidden(text, _ADDRESS)


def hide_password(address: str) -> str:
    """The same of an address that stands alone, in whose secrets may be blanks and quotes."""
    return _hidden(address, ".", begin=":/+")  # a slash short it is a mistake, and shown as one


def first_line(error: BaseException) -> str:
    """The first line of what an error says, without passwords; its kind where it says nothing."""
    return hide_passwords(next(iter(str(error).strip().splitlines()), type(error).__name__))


def _hidden(text: str, character: str, begin: str = "://") -> str:
    def hidden(secret: str) -> str:
        return secret if re.fullmatch(_ELSEWHERE, secret) else "***"

    def shown(match: re.Match[str]) -> str:
        if re.search(in_query, match[2], re.DOTALL):  # the last @ is a query's: nobody knows where its secret ends
            return f"{match[1]}***"
        return f"{match[1]}{hidden(match[2])}@{match[3]}"

    in_query = _in_query(character)
    # greedy up to the last @: SQLAlchemy takes passwords with a bare @ or / in them
    text = re.sub(f"({begin})({character}*)@({character}*)", shown, text, flags=re.DOTALL)
    return re.sub(in_query, lambda match: match[1] + hidden(match[2]), text, flags=re.DOTALL)


def _in_query(character: str) -> str:
    return rf"(?i)([?&]{_HIDDEN_FIELDS}=)((?:(?!&){character})+)"


def _short(value: object, limit: int = 80) -> str:
    if isinstance(value, str) and re.match(r"[\w.+-]+:/", value):
        value = hide_password(value)  # before the quotes are in it
    text = hide_passwords(repr(value)) if _is_small(value) else f"a very large {type(value).__name__}"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _is_small(value: object, most: int = 10_000) -> bool:
    """Whether a value can be written out: ten lines of YAML with aliases make billions of values."""
    left, count = [value], 0
    while left and count < most:
        one, count = left.pop(), count + 1
        if isinstance(one, int) and one.bit_length() > 1000:  # Python refuses to write out thousands of digits
            return False
        if isinstance(one, dict):
            left += [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | set | frozenset):
            left += one
    return not left
