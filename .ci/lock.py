"""Print requirements.lock: what pyproject.toml asks for, and all that this needs, at the versions of this environment.

Usage: python .ci/lock.py requirements.lock (the old lock supplies the versions of what only other platforms install).
"""

import sys
import tomllib
from importlib import metadata
from itertools import product
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PLATFORMS = (("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64"))  # sys_platform, platform_machine
PYTHONS = ("3.11", "3.12", "3.13")
MARKERS = {
    frozenset(PLATFORMS): "",
    frozenset([("linux", "x86_64")]): 'sys_platform == "linux" and platform_machine == "x86_64"',
    frozenset(PLATFORMS) - {("linux", "x86_64")}: 'sys_platform != "linux" or platform_machine != "x86_64"',
    frozenset([("linux", "x86_64"), ("linux", "aarch64")]): 'sys_platform == "linux"',
    frozenset([("darwin", "arm64")]): 'sys_platform == "darwin"',
}
HEADER = "# Exact versions of everything that pyproject.toml asks for, tests included; written by `make lock`.\n"


def closure(wanted: list[str], platform: tuple[str, str], python: str) -> set[str]:
    """Names of all packages that ``wanted`` needs there, as far as the installed metadata tells."""
    system, machine = platform
    environment = {"sys_platform": system, "platform_system": system.capitalize(), "platform_machine": machine}
    environment |= {"os_name": "posix", "python_version": python, "python_full_version": f"{python}.0"}
    found, waiting = set(), [(Requirement(text), "") for text in wanted]
    while waiting:
        requirement, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate(environment | {"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        for extra in ("", *requirement.extras):
            if (name, extra) not in found:
                found.add((name, extra))
                waiting += [(Requirement(text), extra) for text in requires(name)]
    return {name for name, _ in found}


def requires(name: str) -> list[str]:
    """What the installed package ``name`` asks for; nothing if it is not installed."""
    try:
        return metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return []


def versions(lock: Path) -> dict[str, str]:
    """Versions in the old lock, overridden by those installed."""
    lines = [line.split(";")[0] for line in lock.read_text().splitlines() if "==" in line] if lock.exists() else []
    old = {canonicalize_name(name): version.strip() for name, version in (line.split("==") for line in lines)}
    installed = {canonicalize_name(item.metadata["Name"]): item.version.split("+")[0] for item in metadata.distributions()}
    return old | installed


def marker(places: set[tuple[tuple[str, str], str]]) -> str:
    """The environment marker for a package needed in ``places``, pairs of platform and Python."""
    parts = [MARKERS[frozenset(platform for platform, _ in places)]]
    if pythons := {python for _, python in places} ^ set(PYTHONS):
        parts += [f'python_version != "{python}"' for python in sorted(pythons)]
    given = " and ".join(part for part in parts if part)
    return f"; {given}" if given else ""


def main(lock: Path) -> int:
    project = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["test"]
    needed: dict[str, set[tuple[tuple[str, str], str]]] = {}
    for platform, python in product(PLATFORMS, PYTHONS):
        for name in closure(wanted, platform, python):
            needed.setdefault(name, set()).add((platform, python))
    known = versions(lock)
    if unknown := sorted(set(needed) - set(known)):
        print(f"write a line NAME==VERSION into {lock} for: {', '.join(unknown)}", file=sys.stderr)
        return 1
    lines = [f"{name}=={known[name]}{marker(needed[name])}" for name in sorted(needed)]
    print(HEADER + "\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
