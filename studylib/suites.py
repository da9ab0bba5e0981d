"""Named lists of transfer sets, and what to do about those that are not there."""

from functools import cache
from importlib import resources

import yaml

from studylib.data import find, is_here
from studylib.errors import InputError, choose


@cache
def suites() -> dict[str, list[str]]:
    """Data sets of every suite, ``suites.yaml``."""
    return yaml.safe_load((resources.files("studylib") / "suites.yaml").read_text(encoding="utf-8"))


def suite(name: str) -> list[str]:
    """Data sets of the suite ``name``."""
    return suites()[choose("suite", name, suites())]


def missing(names: list[str]) -> dict[str, str]:
    """Those of ``names`` that are not there -> how to get them.

    Raises:
        InputError: one is there and cannot be used, as it is damaged or has no such part or labels.
    """
    found = {}
    for name in names:
        try:
            find(name)
        except InputError as error:
            if is_here(name):
                raise
            found[name] = str(error)
    return found


# Sets for which t-ReX takes SGD on normalised features: CoG levels and iNaturalist (papers/README.md 3.3); ours are like them.
LARGE = ("imagenet", "cog_", "inat", "tiny_cog")


def large(name: str) -> bool:
    """Whether t-ReX's protocol for large sets belongs to the data set ``name``, and not that for small ones."""
    return name.startswith(LARGE)
