"""Fields that hold a name of a table, and the code behind the name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeVar

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, InitErrorDetails, PydanticKnownError, core_schema

CodeT = TypeVar("CodeT")


@dataclass(frozen=True, eq=False)
class KeyOf:
    """Marks a string that must be a name in a table; the table is read at each check.

    Attributes:
        table: The table.
        others: Names that count besides.
    """

    table: Mapping[str, object]
    others: tuple[str, ...] = ()

    @property
    def names(self) -> list[str]:
        """Every admissible name."""
        return [*self.others, *self.table]

    @property
    def expected(self) -> str:
        """The names in words: ``'a', 'b' or 'c'``."""
        *most, last = (repr(one) for one in self.names)
        return f"{', '.join(most)} or {last}" if most else last

    def check(self, name: str) -> str:
        """The name, if it is admissible; otherwise pydantic's error of a ``Literal``."""
        if name in self.names:
            return name
        raise PydanticKnownError("literal_error", {"expected": self.expected})

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {**handler(schema), "enum": self.names}


@dataclass(frozen=True, eq=False)
class RecordOf:
    """Marks a record whose type stands in a table under the name that one of its fields holds.

    What ``Field(discriminator=...)`` does for a union, without a list of members beside the table. Goes with
    ``SerializeAsAny``, or only the fields of the common base are written.

    Attributes:
        table: The types by name.
        field: The field that names the type.
    """

    table: Mapping[str, type[BaseModel]]
    field: str

    def parse(self, value: Any) -> Any:
        """Named fields as the record they describe; anything else as it is."""
        if not isinstance(value, dict):
            return value
        if self.field not in value:
            raise self._error("missing", value)
        name = value[self.field]
        if not isinstance(name, str) or name not in self.table:
            raise self._error("literal_error", name, expected=KeyOf(self.table).expected)
        return self.table[name].model_validate(value)

    def _error(self, kind: str, value: Any, **context: str) -> ValidationError:
        detail = InitErrorDetails(type=kind, loc=(self.field,), input=value, ctx=context)
        return ValidationError.from_exception_data(self.field, [detail])

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self.parse, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"oneOf": [handler(record.__pydantic_core_schema__) for record in self.table.values()]}


class Imported(Mapping[str, CodeT]):
    """A table's code by name, imported when it is first asked for.

    Args:
        table: The table; names added to it later are found too.
        path: Where an entry's code is, as ``module:function``.
    """

    def __init__(self, table: Mapping[str, Any], path: Callable[[Any], str] = str) -> None:
        self._table, self._path = table, path

    def __getitem__(self, name: str) -> CodeT:
        module, _, attribute = self._path(self._table[name]).partition(":")
        code: CodeT = getattr(import_module(module), attribute)
        return code

    def __iter__(self) -> Iterator[str]:
        return iter(self._table)

    def __len__(self) -> int:
        return len(self._table)
