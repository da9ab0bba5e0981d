"""Image sets by name."""

from studylib.data import packed, splits
from studylib.data.imageset import ImageSet
from studylib.errors import choose

EMBEDDED = ("digits", "glyphs", "glyphs_armenian", "glyphs_cyrillic", "glyphs_georgian", "glyphs_greek")

__all__ = ["ImageSet", "load"]


def load(spec: str) -> ImageSet:
    """The image set ``NAME[/PART][@LABELS]``.

    ``NAME`` is embedded or packed; ``PART`` takes some of its classes (``splits.yaml``); ``LABELS`` asks for other labels
    of the same images (``glyphs@face``, ``cifar100@coarse``).

    Raises:
        InputError: it is unknown, missing or damaged, or cannot be trained and tested on.
    """
    name, _, labels = spec.partition("@")
    name, _, part = name.partition("/")
    images = _whole(name)
    if part:
        known = splits.parts().get(name, {})
        images = images.only(known[choose(f"part of {name}", part, known)], f"{name}/{part}")
    if labels:
        images = images.relabelled(labels, spec)
    return images.checked()


def _whole(name: str) -> ImageSet:
    if name in EMBEDDED:
        from studylib.data import glyphs

        return glyphs.render(name)
    file = packed.find(name)
    if file is None:
        known = [*EMBEDDED, *packed.names()]
        choose("data", name, known)
    return packed.read(file)
