"""pyproject.toml, requirements.lock and environment.yml say the same, and everything the package needs is in it."""

import platform
import runpy
import subprocess
import sys
import tomllib
from importlib import metadata, resources

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from studylib import __version__, paths

ROOT = paths.REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WANTED = [Requirement(text) for text in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]]
LINES = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
LOCKED = {canonicalize_name(requirement.name): requirement for requirement in map(Requirement, LINES)}


def version(requirement: Requirement) -> str:
    """The one version that a line of the lock allows."""
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return specifier.version


def test_lock_is_exact_versions_only_without_hosts_or_paths():
    assert len(LOCKED) == len(LINES) > len(WANTED)
    assert all(version(requirement) and requirement.url is None and not requirement.extras for requirement in LOCKED.values())
    assert not [line for line in LINES if line.startswith("-") or "/" in line or "@" in line or "+" in line]


@pytest.mark.parametrize("wanted", WANTED, ids=str)
def test_lock_satisfies_pyproject(wanted):
    locked = LOCKED[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(version(locked))
    assert str(locked.marker) == str(wanted.marker)


def test_lock_is_what_this_environment_has_and_needs():
    """The script behind ``make lock`` names nothing that the lock lacks; installed are the locked versions."""
    closure = runpy.run_path(str(ROOT / ".ci" / "lock.py"))["closure"]
    here = (sys.platform, platform.machine())
    needed = closure([str(requirement) for requirement in WANTED], here, f"{sys.version_info[0]}.{sys.version_info[1]}")
    assert not needed - set(LOCKED)
    for name in needed:
        assert LOCKED[name].marker is None or LOCKED[name].marker.evaluate()
        assert metadata.version(name).split("+")[0] == version(LOCKED[name]), name


@pytest.mark.slow
def test_make_lock_names_the_same_packages_again():
    command = [sys.executable, ".ci/lock.py", "requirements.lock"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert {line.split("==")[0] for line in done.stdout.splitlines()[1:]} == {line.split("==")[0] for line in LINES}


def test_conda_brings_python_and_pip_and_the_lock_brings_the_rest():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, wheels = environment["dependencies"]
    assert SpecifierSet(python.removeprefix("python ")) == SpecifierSet(PROJECT["requires-python"])
    assert pip == "pip"
    assert wheels == {"pip": ["-r requirements.lock", "-e ."]}


def test_supported_pythons_are_the_same_everywhere():
    pythons = runpy.run_path(str(ROOT / ".ci" / "lock.py"))["PYTHONS"]
    supported = SpecifierSet(PROJECT["requires-python"])
    assert pythons == tuple(f"3.{minor}" for minor in range(30) if supported.contains(f"3.{minor}"))
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (ROOT / "Makefile").read_text()


def test_every_yaml_and_readme_is_package_data():
    files = [file for kind in ("yaml", "md") for file in (ROOT / "studylib").rglob(f"*.{kind}")]
    found = {file.relative_to(ROOT / "studylib").as_posix() for file in files}
    assert {"scales/quick.yaml", "data/splits.yaml", "papers/README.md"} <= found
    assert all((resources.files("studylib") / name).is_file() for name in found)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert settings["package-data"] == {"studylib": ["**/*.yaml", "**/*.md", "**/*.jinja"]}
    others = {file.suffix for file in (ROOT / "studylib").rglob("*") if file.is_file() and "__pycache__" not in file.parts}
    assert others == {".py", ".yaml", ".md", ".jinja"}


def test_every_folder_of_the_package_is_packaged():
    from setuptools import find_namespace_packages, find_packages

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]["find"]
    packages = set(find_packages(str(ROOT), include=settings["include"]))
    namespaces = set(find_namespace_packages(str(ROOT), include=settings["include"]))
    with_modules = {name for name in namespaces if list((ROOT / name.replace(".", "/")).glob("*.py"))}
    assert with_modules - packages == set(), "a folder with modules lacks __init__.py"


def test_versions_and_citation_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == __version__ == PROJECT["version"]
    assert citation["license"] == PROJECT["license"] == "MIT"
    cited = {identifier["value"] for reference in citation["references"] for identifier in reference["identifiers"]}
    assert cited == {"arXiv:2110.06014", "arXiv:2112.00496", "arXiv:2206.15369"}
