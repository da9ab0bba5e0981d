"""What can only be decided when a figure is laid out: which labels are too long, and where names of points have room."""

import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator
from matplotlib.transforms import Bbox

from studylib.report import style

SIDES = ((1, -1), (1, 1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1))  # of a point, the first that is free is taken
OVER = 1.05  # how much longer than its axes a label may be
APART = 7  # points between two points of a line that both have a name
NEAR, FAR = (3, 5), (9, 15, 24, 36)  # points between a marker and its name, without and with a line


def fit(figure: Figure) -> None:
    """Break labels that are longer than their axes into two lines, and turn names under an axis that would meet.

    The layout by constraints leaves no room for the ends of a long label, which would run into legends and neighbours.
    """
    figure.draw_without_rendering()
    for axes in figure.axes:
        room = axes.get_window_extent()
        if axes.xaxis.label.get_window_extent().width > OVER * room.width:
            axes.set_xlabel(in_two(axes.get_xlabel()))
        if axes.yaxis.label.get_window_extent().height > OVER * room.height:
            axes.set_ylabel(in_two(axes.get_ylabel()))
    under = [axes.get_xticklabels() for axes in figure.axes if isinstance(axes.xaxis.get_major_locator(), FixedLocator)]
    if any(_meet(names) for names in under):
        for name in itertools.chain.from_iterable(under):
            name.set(rotation=30, ha="right", rotation_mode="anchor")


def _meet(names: Sequence[Text]) -> bool:
    """Whether texts beside each other, if not turned yet, are nearer than the space between two words."""
    boxes = sorted((name.get_window_extent() for name in names if not name.get_rotation()), key=lambda box: box.x0)
    return any(left.x1 + 3 > right.x0 for left, right in itertools.pairwise(boxes))


def in_two(label: str) -> str:
    """``label`` in two lines: broken after a comma or colon or before a bracket, if it has one, or else near its middle."""
    spaces = [i for i, letter in enumerate(label) if letter == " "]
    if "\n" in label or not spaces:
        return label
    good = [i for i in spaces if label[i - 1] in ",:" or label[i + 1] == "("]
    place = min(good or spaces, key=lambda i: abs(2 * i - len(label)))
    return f"{label[:place]}\n{label[place + 1 :]}"


def name_points(axes: Axes, points: Iterable[tuple[float, float, str, Any]], *, every: bool = False) -> None:
    """Write a text beside each point (x, y, text, colour), where it hides no marker and no text written before.

    To be called when the figure is complete. A text that finds no such place is left out, and one whose point nearly hides one
    that has a text in its colour; with ``every`` it is written farther away and joined to its point by a line.
    """
    fit(axes.figure)
    axes.figure.draw_without_rendering()
    pixels, taken, done = axes.figure.dpi / 72, _markers(axes, caps=every), []
    for x, y, text, colour in points:
        here = axes.transData.transform((x, y))
        if not every and any(colour == other and math.dist(here, there) < APART * pixels for there, other in done):
            continue
        looks = {"fontsize": style.SMALL - 1, "color": colour, "ha": "center", "va": "center", "zorder": 4}
        looks["bbox"] = {"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 0.2}  # over lines
        text = style.verbatim(text)
        note = axes.annotate(text, (x, y), (0, 0), textcoords="offset points", **looks)
        found = _free(note.get_window_extent(), axes.get_window_extent(), taken, pixels, NEAR + FAR * every)
        note.remove()
        if found:
            far, move, box = found
            line = {"arrowstyle": "-", "linewidth": 0.4, "color": colour, "shrinkA": 0, "shrinkB": 2} if far in FAR else None
            note = axes.annotate(text, (x, y), move, textcoords="offset points", arrowprops=line, **looks)
            note.set_in_layout(False)
            taken.append(box.padded(pixels))
            done.append((here, colour))


def _markers(axes: Axes, *, caps: bool) -> list[Bbox]:
    """The places of the markers that are drawn, in pixels, with or without the caps of intervals."""
    boxes, without = [], {"None", "none", "", " "} | (set() if caps else {"|", "_"})
    for line in axes.lines:
        if line.get_marker() not in without:
            half = line.get_markersize() / 2 * axes.figure.dpi / 72
            boxes += [Bbox([place - half, place + half]) for place in axes.transData.transform(line.get_xydata())]
    return boxes


def _free(
    box: Bbox, inside: Bbox, taken: Sequence[Bbox], pixels: float, distances: Sequence[float]
) -> tuple[float, tuple[float, float], Bbox] | None:
    """(distance, move in points, place) of a text as large as ``box``, around its centre: the nearest that is free."""
    for far in distances:
        right, up = box.width / 2 + far * pixels, box.height / 2 + 0.6 * far * pixels
        for aside, above in SIDES:
            place = box.translated(aside * right, above * up)
            within = inside.x0 <= place.x0 and place.x1 <= inside.x1 and inside.y0 <= place.y0 and place.y1 <= inside.y1
            if within and not any(place.overlaps(other) for other in taken):
                return far, (aside * right / pixels, above * up / pixels), place
    return None
