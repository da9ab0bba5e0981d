"""Values from the command line, YAML or Python, read as the type that was declared for them."""

import dataclasses
import math
import shlex
import typing
from collections.abc import Sequence
from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Any

from studylib.errors import InputError, choose, require

NAMES = {str: "text", bool: "true or false", int: "a whole number", float: "a number"}


def read(field: str, value: Any, kind: type) -> Any:
    """``value`` as ``kind``: str, bool, int or float.

    Text is read as what it says ("1e-3" is a number, "false" is not true, "007" stays text where text is asked for);
    nothing is rounded or truncated: 3.0 is a whole number, 3.5 is not.

    Raises:
        InputError: it cannot be read as that type.
    """
    if kind is str and isinstance(value, str):
        return value
    if kind is bool and isinstance(value, bool | str) and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    if kind in (int, float) and isinstance(value, int | float | str) and not isinstance(value, bool):
        try:
            number = Decimal(value)
        except InvalidOperation:
            number = Decimal("nan")
        # A huge exponent is no whole number anyone means, and would take for ever to write out.
        if kind is int and number.is_finite() and number.adjusted() < 30 and number == int(number):
            return int(number)
        if kind is float and number.is_finite() and math.isfinite(float(value)):
            return float(value)
    raise InputError(field, value, f"must be {NAMES[kind]}")


def coerce(field: str, value: Any, kind: Any) -> Any:
    """``value`` as ``kind``: one of `read`'s types, ``tuple[float, float]``, ``tuple[str, ...]`` or a dictionary.

    Raises:
        InputError: it cannot be read as that type.
    """
    kinds = typing.get_args(kind)
    if not kinds:
        return read(field, value, kind)
    if typing.get_origin(kind) is dict:
        require(field, value, isinstance(value, dict), "must be names with values")
        return value
    parts = as_list(value)
    if kinds[-1] is Ellipsis:
        require(field, value, parts is not None, "must be a list, such as [a, b]")
        kinds = kinds[:1] * len(parts)
    fix = f"must be a list of {len(kinds)}, such as [0.25, 1.0]"
    require(field, value, parts is not None and len(parts) == len(kinds), fix)
    return tuple(read(field, part, kind) for part, kind in zip(parts, kinds, strict=True))


def as_list(value: Any) -> Sequence[Any] | None:
    """``value`` if it is a list, or what text says of one, ``[0.25, 1.0]`` or ``(0.25, 1.0)``; None if it is not."""
    if isinstance(value, str):
        import yaml

        with suppress(yaml.YAMLError):
            value = yaml.safe_load(value.replace("(", "[").replace(")", "]"))
    return value if isinstance(value, list | tuple) else None


def build(kind: type, settings: dict[str, Any], prefix: str = "") -> Any:
    """An instance of the dataclass ``kind`` from nested ``settings``; ``prefix`` precedes the names in errors.

    Raises:
        InputError: a name is unknown (the nearest valid one is given) or missing, or a value has the wrong type or range.
    """
    hints, values = typing.get_type_hints(kind), {}
    for name, value in settings.items():
        choose(f"setting of {prefix.rstrip('.: ') or 'a run'}", name, hints)
        if dataclasses.is_dataclass(hints[name]):
            require(prefix + name, value, isinstance(value, dict), "is a group of settings")
            values[name] = build(hints[name], value, f"{prefix}{name}.")
        else:
            values[name] = coerce(prefix + name, value, hints[name])
    for item in dataclasses.fields(kind):
        optional = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
        require(prefix + item.name, None, optional or item.name in values, "is missing; give it a value")
    return kind(**values)


def refuse_twice(field: str, value: str, text: str) -> None:
    """Raise an `InputError` if a mapping in the YAML ``text`` has a key twice: YAML takes the last."""
    import yaml

    nodes, seen = [yaml.compose(text, Loader=yaml.BaseLoader)], []
    while nodes:
        node = nodes.pop()
        if not isinstance(node, yaml.CollectionNode) or node in seen:
            continue
        seen.append(node)
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        keys = [key.value for key, _ in pairs]
        for name in keys:
            require(field, value, keys.count(name) == 1, f"has {name} twice")
        nodes += [inner for _, inner in pairs] or node.value


def words(field: str, text: str) -> list[str]:
    """What stands between the blanks of ``text``, as a shell reads it: quotes keep a blank.

    Raises:
        InputError: a quotation is not closed.
    """
    try:
        return shlex.split(text)
    except ValueError as error:
        raise InputError(
            field, text, f"{error}; write 'a b' for what has a blank, and \"a'b\" for what has a quotation mark"
        ) from error


def assignments(pairs: Sequence[str], field: str = "-p") -> dict[str, str]:
    """``name=value`` pairs as a mapping of text; the types come later, from what is declared. ``field`` names their place.

    Raises:
        InputError: no ``=``, or the same name twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        require(field, pair, equals and name.strip(), "write name=value")
        if name.strip() in found:
            raise InputError(field, pair, f"{name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found
