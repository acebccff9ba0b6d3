"""Frozen, keyword-only dataclasses as settings: one definition gives the defaults, the flags and the JSON form.

Fields may be `str`, `int`, `float`, `bool`, `Path`, `Literal[...]`, tuples of these, and any of them `| None`.
A flag is the field's name with dashes; `none` on the command line means None. Standard library only.
"""

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")
Default = dataclasses.MISSING


def arg(default: Any = Default, help: str = "") -> Any:
    """A dataclass field whose `help` is shown beside its flag; without a default it must be given."""
    return dataclasses.field(default=default, metadata={"help": help})


def add_flags(parser: argparse.ArgumentParser | argparse._ArgumentGroup, cls: type) -> None:
    """One flag per field. Flags that were not given leave nothing in the namespace (see `from_flags`)."""
    hints = get_type_hints(cls)
    for field in dataclasses.fields(cls):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(
            flag, dest=field.name, default=argparse.SUPPRESS, help=_help(field), **_spec(hints[field.name])
        )


def from_flags(cls: type[T], namespace: argparse.Namespace, base: T | Mapping[str, Any] | None = None) -> T:
    """`base` (a config, or a preset with some of the fields), overridden by the flags that were given."""
    names = [field.name for field in dataclasses.fields(cls)]  # pyright: ignore[reportArgumentType]
    values = dict(base) if isinstance(base, Mapping) else {} if base is None else {n: getattr(base, n) for n in names}
    values |= {name: getattr(namespace, name) for name in names if hasattr(namespace, name)}
    return _build(cls, values, lambda name: "--" + name.replace("_", "-"))


def to_json(config: Any) -> str:
    return json.dumps(dataclasses.asdict(config), indent=2, default=str)


def from_json(cls: type[T], source: str | Mapping[str, Any]) -> T:
    """The inverse of `to_json`; ValueError for an unknown or missing key and for a value of another type."""
    values = json.loads(source) if isinstance(source, str) else source
    if not isinstance(values, Mapping):
        raise ValueError(f"{cls.__name__}: expected a JSON object, got {values!r}")
    hints = get_type_hints(cls)
    return _build(cls, {name: _convert(name, value, hints.get(name)) for name, value in values.items()}, str)


def _build(cls: type[T], values: Mapping[str, Any], spell: Callable[[str], str]) -> T:
    fields = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    if unknown := sorted(set(values) - set(fields)):
        raise ValueError(f"{cls.__name__} has no field {', '.join(unknown)}; its fields are {', '.join(fields)}")
    required = [n for n, f in fields.items() if f.default is Default and f.default_factory is Default]
    if missing := [spell(name) for name in required if name not in values]:
        raise ValueError(f"{cls.__name__} needs {', '.join(missing)}")
    return cls(**values)


def _optional(hint: Any) -> tuple[Any, bool]:
    """`X | None` -> (X, True); X -> (X, False)."""
    if get_origin(hint) not in (Union, UnionType):
        return hint, False
    inner = [option for option in get_args(hint) if option is not NoneType]
    if len(inner) != 1:
        raise TypeError(f"a setting has one type, or one type and None, not {hint}")
    return inner[0], len(inner) < len(get_args(hint))


def _help(field: dataclasses.Field) -> str:
    text = field.metadata.get("help", "")
    if field.default is Default:
        return f"{text} (required)"
    default = " ".join(map(str, field.default)) if isinstance(field.default, tuple) else field.default
    return f"{text} (default: {str(default).lower() if default is None else default})"


def _spec(hint: Any) -> dict[str, Any]:
    """What `add_argument` has to know about a type."""
    inner, optional = _optional(hint)
    if inner is bool and not optional:
        return {"action": argparse.BooleanOptionalAction}
    if get_origin(inner) is tuple:
        return _tuple_spec(get_args(inner), optional)
    choices = (*map(str, get_args(inner)), *(["none"] if optional else [])) if get_origin(inner) is Literal else None
    return {"type": _parser(inner, optional), "metavar": "{" + ",".join(choices) + "}" if choices else None}


def _tuple_spec(items: tuple[Any, ...], optional: bool) -> dict[str, Any]:
    class Store(argparse.Action):  # argparse collects a list; a frozen config wants a tuple
        def __call__(self, parser, namespace, values, option_string=None):
            assert isinstance(values, list)
            setattr(namespace, self.dest, None if optional and values == [None] else tuple(values))

    open_ended = Ellipsis in items or optional
    return {"type": _parser(items[0], optional), "nargs": "+" if open_ended else len(items), "action": Store}


def _parser(hint: Any, optional: bool) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        if optional and text.lower() == "none":
            return None
        if get_origin(hint) is Literal:
            choices = {str(choice): choice for choice in get_args(hint)}
            if text not in choices:
                raise argparse.ArgumentTypeError(f"expected one of {', '.join(choices)}, got {text!r}")
            return choices[text]
        try:
            return hint(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected {hint.__name__}, got {text!r}") from None

    return parse


def _convert(name: str, value: Any, hint: Any) -> Any:
    """A JSON value as the field's type; unknown fields (no hint) are left to `_build`."""
    inner, optional = _optional(hint)
    if hint is None or (optional and value is None):
        return value
    if get_origin(inner) is Literal and value in get_args(inner):
        return value
    if get_origin(inner) is tuple and isinstance(value, (list, tuple)):
        return _convert_tuple(name, value, get_args(inner))
    if inner is Path and isinstance(value, (str, Path)):
        return Path(value)
    if inner is float and type(value) in (int, float):
        return float(value)
    if isinstance(inner, type) and type(value) is inner:
        return value
    expected = " or ".join(map(repr, get_args(inner))) if get_origin(inner) is Literal else inner
    raise ValueError(f"{name}: expected {getattr(expected, '__name__', expected)}, got {value!r}")


def _convert_tuple(name: str, value: list[Any] | tuple[Any, ...], items: tuple[Any, ...]) -> tuple[Any, ...]:
    hints = items[:1] * len(value) if Ellipsis in items else items
    if len(hints) != len(value):
        raise ValueError(f"{name}: expected {len(hints)} values, got {len(value)}")
    return tuple(_convert(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(value, hints, strict=True)))
