"""The resolved configuration of many runs: what they share, and what each of them has that is its own."""

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pandas as pd

from studylib.config import RunConfig, to_dict


def settings(runs: Iterable[tuple[str, RunConfig]]) -> tuple[dict[str, str], pd.DataFrame]:
    """(every setting with the value that most of the runs have, a table of the settings in which each variant differs).

    ``runs``: (variant, configuration); those that differ only in their seed count once. Values and differences are written
    as ``studylib run -p settings=...`` takes them.
    """
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for variant, config in runs:
        values = {name: _text(value) for name, value in _flat(to_dict(config)) if name not in ("method", "seed")}
        rows.setdefault((variant, json.dumps(values)), {"method": config.method} | values)
    every = list(rows.values())
    names = [name for name in (every or [{}])[0] if name != "method"]
    shared = {name: Counter(row[name] for row in every).most_common(1)[0][0] for name in names}
    body = [
        {"Variant": variant, "Method": row["method"]}
        | {"Differs in": " ".join(f"{name}={value}" for name, value in row.items() if shared.get(name, value) != value)}
        for (variant, _), row in rows.items()
    ]
    return shared, pd.DataFrame(body, columns=["Variant", "Method", "Differs in"])


def _flat(nested: dict[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    for name, value in nested.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
