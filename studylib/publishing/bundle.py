"""A page with all that it links to in one folder, which can be copied or served on its own."""

import os
import shutil
from pathlib import Path
from urllib.parse import quote

from studylib import files


class Bundle:
    """A folder with a page and the files it links to, each at its place relative to ``root``.

    Args:
        folder: of the page; everything in it belongs to the bundle.
        root: a folder above all files that are linked.
    """

    def __init__(self, folder: Path, root: Path):
        self.folder, self.root, self.linked = folder, root, {}

    def link(self, file: Path) -> str:
        """The address of ``file`` for the page, which `write` puts there."""
        place = file.relative_to(self.root)
        self.linked[self.folder / place] = file
        return quote(place.as_posix())

    def write(self, name: str, text: str) -> Path:
        """Path of the page ``name``, written after the files that it links to; then others are removed from the folder.

        Files are hard links where the file system has them, and otherwise copies; what has not changed stays as it is.
        """
        for target, source in self.linked.items():
            _place(source, target)
        page = self.folder / name
        files.write_text(page, text)
        for path in sorted(self.folder.rglob("*"), reverse=True):  # what is in a folder comes before it
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path != page and path not in self.linked:
                path.unlink()
        return page


def _place(source: Path, target: Path) -> None:
    if target.exists() and files.stamp(target) == files.stamp(source):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
