"""Published values and claims as data, each with its public source (one YAML file per paper).

Only what was read in a public source, digitised from an author's figure, or computed from such inputs is here; what is
merely remembered of a paper is not shown as published.
"""

from functools import cache
from importlib import resources
from typing import Any

import yaml

from studylib.errors import choose, require

TAGS = {"SRC": "read in that source", "DIG": "digitised from a figure", "CALC": "computed from such values"}


@cache
def load(paper: str) -> dict[str, Any]:
    """Tables and claims of ``paper``.

    Raises:
        InputError: the paper is unknown, or a table has no source or an unknown tag.
    """
    folder = resources.files("studylib") / "papers"
    known = [file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")]
    content = yaml.safe_load((folder / f"{choose('paper', paper, known)}.yaml").read_text(encoding="utf-8"))
    for name, table in content["tables"].items():
        choose(f"{paper}.{name} tag", table.get("tag"), TAGS)
        require(f"{paper}.{name}", "source", table.get("source"), "every published value needs one")
    return content


def published(paper: str, table: str) -> Any:
    """Rows of one published table as a pandas DataFrame, with columns ``tag`` and ``source``."""
    import pandas

    tables = load(paper)["tables"]
    found = tables[choose("table", table, tables)]
    return pandas.DataFrame(found["rows"]).assign(tag=found["tag"], source=found["source"])
