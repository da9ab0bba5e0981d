"""Where things are: the only module that knows. Environment variables override.

| folder | default | variable |
|---|---|---|
| runs (checkpoints, metrics, executed notebooks, caches) | ``<repository>/runs`` | ``STUDYLIB_RUNS`` |
| packed image sets of the user | none | ``STUDYLIB_DATA`` (several: separated by ``:``) |
"""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
NOTEBOOKS = REPOSITORY / "notebooks"
PUBLISHED_FIGURES = REPOSITORY / "figures"


def runs() -> Path:
    """The folder that holds everything computed; git ignores it and it can be deleted at any time."""
    return Path(os.environ.get("STUDYLIB_RUNS") or REPOSITORY / "runs").expanduser().absolute()


def cache() -> Path:
    """Rebuildable intermediate files: rendered and unpacked data sets, extracted features."""
    return runs() / "cache"


def published_results(scale: str) -> Path:
    """The published results of a scale's runs (`studylib.evaluation.published`); ``STUDYLIB_PUBLISHED=off`` ignores them."""
    return PUBLISHED_FIGURES / scale / "results.csv.gz"


def figures() -> Path:
    """Figures of this machine's runs; ``studylib reproduce --publish`` copies them to the committed folder."""
    return runs() / "figures"


def data_folders() -> list[Path]:
    """Folders of packed image sets: those ``STUDYLIB_DATA`` names, then what ``studylib data fetch`` packed."""
    named = [Path(part).expanduser().absolute() for part in os.environ.get("STUDYLIB_DATA", "").split(os.pathsep) if part]
    return [*named, fetched_data()]


def fetched_data() -> Path:
    """Where ``studylib data fetch`` writes packed sets."""
    return runs() / "data"
