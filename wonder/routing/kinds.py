"""What is known about a value before it is read: its kind, its bounds, its fields."""

import dataclasses
import enum
import math
import types
import typing
from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, Required, Union
from weakref import WeakKeyDictionary

from pydantic import BaseModel

KindName = Literal["number", "text", "bool", "list", "map", "object", "any"]


@dataclass(frozen=True, slots=True)
class Kind:
    """The values an expression may have. Bounds hold for numbers, `members` for texts and numbers."""

    name: KindName
    low: float = -math.inf
    high: float = math.inf
    low_open: bool = False
    """Whether `low` itself is excluded."""
    high_open: bool = False
    whole: bool = False
    """Whether a number is always an integer."""
    members: tuple[str | int | float, ...] | None = None
    """All values there are, where they can be listed."""
    item: "Kind | None" = None
    """Of the entries of a list or the values of a map."""
    keys: tuple[str, ...] | None = None
    """All keys of a map, where they are known."""
    number_keys: bool = False
    """Whether the keys of a map may be numbers."""
    model: type | None = None
    """The class of an object."""

    @property
    def article(self) -> str:
        """The kind in an error: `a number`, `an object`."""
        if self.name == "object" and self.model:
            return f"a value of type {self.model.__name__}"
        return {"text": "a string", "bool": "a bool", "any": "a value", "object": "an object"}.get(
            self.name, f"a {self.name}"
        )

    @property
    def interval(self) -> str:
        """The bounds in mathematical notation."""
        # Adding 0.0 turns -0.0 into 0.0.
        left = "(" if self.low_open or self.low == -math.inf else "["
        right = ")" if self.high_open or self.high == math.inf else "]"
        return f"{left}{self.low + 0.0:g}, {self.high + 0.0:g}{right}"

    @property
    def constant(self) -> float | None:
        """The only number this can be, if there is only one."""
        return self.low if self.name == "number" and self.low == self.high else None


_FIELDS: "WeakKeyDictionary[type[Any], Mapping[str, Kind] | None]" = WeakKeyDictionary()

ANY = Kind("any")
BOOL = Kind("bool")
TEXT = Kind("text")
NUMBER = Kind("number")
COUNT = Kind("number", low=0, whole=True)


def one(value: int | float | str) -> Kind:
    """The kind of a literal."""
    if isinstance(value, str):
        return Kind("text", members=(value,))
    return Kind("number", low=value, high=value, whole=float(value).is_integer())


def union(kinds: Sequence[Kind]) -> Kind:
    """What can be said of a value that is one of these."""
    first = kinds[0]
    if all(kind == first for kind in kinds):
        return first
    if any(kind.name != first.name for kind in kinds):
        return ANY
    if first.name == "number":
        low, high = min(kind.low for kind in kinds), max(kind.high for kind in kinds)
        return Kind(
            "number",
            low=low,
            high=high,
            low_open=all(kind.low_open for kind in kinds if kind.low == low),
            high_open=all(kind.high_open for kind in kinds if kind.high == high),
            whole=all(kind.whole for kind in kinds),
        )
    if first.name == "text" and all(kind.members is not None for kind in kinds):
        return Kind("text", members=tuple(dict.fromkeys(m for kind in kinds for m in kind.members or ())))
    return Kind(first.name) if first.name in ("text", "bool", "list") else ANY


def of_type(annotation: Any, metadata: Sequence[Any] = ()) -> Kind:
    """The kind of a type annotation; what cannot be told is `any`, which nothing is refused on."""
    return _bounded(_plain(annotation), metadata)


def fields_of(model: type[Any]) -> Mapping[str, Kind] | None:
    """Field → kind of a pydantic model, a dataclass or a TypedDict; None for other classes."""
    if model not in _FIELDS:
        _FIELDS[model] = _read_fields(model)
    return _FIELDS[model]


def _read_fields(model: type[Any]) -> Mapping[str, Kind] | None:
    if issubclass(model, BaseModel):
        return {name: of_type(field.annotation, field.metadata) for name, field in model.model_fields.items()}
    if dataclasses.is_dataclass(model):
        hints = _hints(model)
        return {field.name: of_type(hints.get(field.name, Any)) for field in dataclasses.fields(model)}
    # Duck-typed: `typing` and `typing_extensions` each have a TypedDict of their own.
    if issubclass(model, dict) and hasattr(model, "__total__"):
        return {name: of_type(hint) for name, hint in _hints(model).items()}
    return None


def _hints(owner: type) -> dict[str, Any]:
    try:
        return typing.get_type_hints(owner, include_extras=True)
    except (NameError, TypeError):  # a name that is only known while type checking
        return dict.fromkeys(getattr(owner, "__annotations__", {}), Any)


def _plain(annotation: Any) -> Kind:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Required, NotRequired):
        return of_type(arguments[0])
    if origin is Annotated:
        return of_type(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        kinds = [of_type(argument) for argument in arguments if argument is not type(None)]
        return union(kinds) if kinds else ANY
    if origin is Literal:
        return _listed(arguments)
    if hasattr(annotation, "__supertype__"):
        return of_type(annotation.__supertype__)
    if type(annotation).__name__ == "TypeAliasType":
        return of_type(annotation.__value__)
    base = origin or annotation
    return _of_class(base, arguments) if isinstance(base, type) else ANY


def _of_class(cls: type, arguments: tuple[Any, ...]) -> Kind:
    if cls is object:
        return ANY
    if issubclass(cls, enum.Enum):
        return _listed(tuple(cls))
    for bases, kind in (
        ((bool,), BOOL),
        ((int,), Kind("number", whole=True)),
        ((float, Decimal), NUMBER),
        ((str,), TEXT),
    ):
        if issubclass(cls, bases):
            return kind
    if fields_of(cls) is not None:
        return Kind("object", model=cls)
    if issubclass(cls, Mapping):
        key = of_type(arguments[0]) if len(arguments) == 2 else ANY
        keys = tuple(str(member) for member in key.members) if key.name == "text" and key.members else None
        item = of_type(arguments[1]) if len(arguments) == 2 else ANY
        return Kind("map", item=item, keys=keys, number_keys=key.name != "text")
    if issubclass(cls, tuple) and arguments and arguments[-1] is not Ellipsis:
        return Kind("list", item=union([of_type(argument) for argument in arguments]))
    if issubclass(cls, Sequence | Set | Collection) and not issubclass(cls, bytes | bytearray):
        return Kind("list", item=of_type(arguments[0]) if arguments else ANY)
    return Kind("object", model=cls)


def _listed(values: tuple[Any, ...]) -> Kind:
    plain = [value.value if isinstance(value, enum.Enum) else value for value in values]
    plain = [value for value in plain if value is not None]
    if plain and all(isinstance(value, str) for value in plain):
        return Kind("text", members=tuple(plain))
    if plain and all(isinstance(value, bool) for value in plain):
        return BOOL
    if plain and all(isinstance(value, int | float) and not isinstance(value, bool) for value in plain):
        whole = all(isinstance(value, int) for value in plain)
        return Kind("number", min(plain), max(plain), whole=whole, members=tuple(plain))
    return ANY


def _bounded(kind: Kind, metadata: Sequence[Any]) -> Kind:
    """The kind with the bounds of `Field(ge=…, le=…)` and the like, which are duck-typed: `ge`, `gt`, `le`, `lt`."""
    if kind.name != "number":
        return kind
    for constraint in metadata:
        if inner := getattr(constraint, "metadata", None):
            kind = _bounded(kind, inner)
            continue
        for name, is_low, is_open in (("ge", 1, 0), ("gt", 1, 1), ("le", 0, 0), ("lt", 0, 1)):
            bound = getattr(constraint, name, None)
            if not isinstance(bound, int | float):
                continue
            if is_low and bound >= kind.low:
                kind = dataclasses.replace(kind, low=float(bound), low_open=bool(is_open))
            elif not is_low and bound <= kind.high:
                kind = dataclasses.replace(kind, high=float(bound), high_open=bool(is_open))
    return kind
