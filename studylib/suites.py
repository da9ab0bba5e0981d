"""Named lists of transfer sets, and what to do about those that are not there."""

from functools import cache
from importlib import resources

import yaml

from studylib.data import load
from studylib.errors import InputError, choose


@cache
def suites() -> dict[str, list[str]]:
    """Data sets of every suite, ``suites.yaml``."""
    return yaml.safe_load((resources.files("studylib") / "suites.yaml").read_text())


def suite(name: str) -> list[str]:
    """Data sets of the suite ``name``."""
    return suites()[choose("suite", name, suites())]


def missing(names: list[str]) -> dict[str, str]:
    """Those of ``names`` that cannot be loaded -> why, and how to get them."""
    found = {}
    for name in names:
        try:
            load(name)
        except InputError as error:
            found[name] = str(error)
    return found
