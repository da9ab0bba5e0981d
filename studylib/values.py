"""Values from the command line, YAML or Python, read as the type that was declared for them."""

import math
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from studylib.errors import InputError

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


def assignments(pairs: Sequence[str], field: str = "-p") -> dict[str, str]:
    """``name=value`` pairs as a mapping of text; the types come later, from what is declared. ``field`` names their place.

    Raises:
        InputError: no ``=``, or the same name twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.strip():
            raise InputError(field, pair, "write name=value")
        if name.strip() in found:
            raise InputError(field, pair, f"{name.strip()} is given twice")
        found[name.strip()] = value.strip()
    return found
