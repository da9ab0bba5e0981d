"""A labelled image set in memory."""

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from studylib.data.cache import checksum
from studylib.data.splits import first, stratified_split
from studylib.errors import InputError, choose, require

TENTH = 0.1  # ours: share of the training images that settings are chosen on


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with one class each, divided into training and test rows."""

    name: str
    images: Tensor
    """(N, 3, H, W) uint8"""
    labels: Tensor
    """(N,) int64 in 0 ... C - 1"""
    classes: tuple[str, ...]
    split: Tensor
    """(N,) int64: 0 train, 1 test"""
    hidden: dict[str, tuple[Tensor, tuple[str, ...]]] = field(default_factory=dict)
    """other labels of the same rows, by name: (N,) int64 and what they stand for; -1 where a row has none"""
    flip: bool = True
    """whether a mirrored image is of the same class"""

    @property
    def num_classes(self) -> int:
        return len(self.classes)

    @property
    def size(self) -> int:
        """The shorter side of the images in pixels: what ``augmentation.size`` 0 stands for."""
        return min(self.images.shape[-2:])

    @property
    def train(self) -> "ImageSet":
        """The training rows."""
        return self.select((self.split == 0).nonzero()[:, 0])

    @property
    def test(self) -> "ImageSet":
        """The test rows."""
        return self.select((self.split == 1).nonzero()[:, 0])

    @cached_property
    def checksum(self) -> str:
        """SHA-256 of images, labels and split, hexadecimal."""
        return checksum((self.images, self.labels, self.split))

    def select(self, rows: Tensor) -> "ImageSet":
        """The given rows (a tensor of indices), in that order, with all classes."""
        hidden = {name: (labels[rows], names) for name, (labels, names) in self.hidden.items()}
        return dataclasses.replace(
            self, images=self.images[rows], labels=self.labels[rows], split=self.split[rows], hidden=hidden
        )

    def only(self, classes: list[str], name: str) -> "ImageSet":
        """The rows of ``classes``, relabelled in that order, as the set ``name``.

        Raises:
            InputError: a class is unknown.
        """
        number = torch.full((self.num_classes,), -1)
        for index, wanted in enumerate(classes):
            number[self.classes.index(choose("class", wanted, self.classes))] = index
        new = number[self.labels]
        chosen = dataclasses.replace(self, name=name, labels=new, classes=tuple(classes))
        return chosen.select((new >= 0).nonzero()[:, 0])

    def fewer(self, images: int | None) -> "ImageSet":
        """``images`` training images of each class, the first of a seeded order, and all test images; None for all."""
        if images is None:
            return self
        train, test = (self.split == 0).nonzero()[:, 0], (self.split == 1).nonzero()[:, 0]
        return self.select(torch.cat((train[first(self.labels[train], images)], test)).sort().values)

    def relabelled(self, labels: str, name: str) -> "ImageSet":
        """The rows that have the hidden label ``labels``, with it as their class; values that no row has are left out.

        The classes that were are now hidden, as ``class``.

        Raises:
            InputError: there is no such label.
        """
        require("data", name, self.hidden, f"{self.name} has no other labels")
        new, names = self.hidden[choose("labels", labels, self.hidden)]
        present = new[new >= 0].unique()
        number = torch.full((len(names) + 1,), -1)
        number[present] = torch.arange(len(present))
        hidden = {other: found for other, found in self.hidden.items() if other != labels}
        hidden["class"] = (self.labels, self.classes)
        classes = tuple(names[index] for index in present)
        chosen = dataclasses.replace(self, name=name, labels=number[new], classes=classes, hidden=hidden)
        return chosen.select((new >= 0).nonzero()[:, 0])

    def held_out(self, name: str) -> "ImageSet":
        """The training images alone, a tenth of each class (`stratified_split`) as test images, as the set ``name``."""
        train = self.train
        rows = stratified_split(train.labels, TENTH, 0)[1]
        split = train.split.index_fill(0, rows, 1)
        return dataclasses.replace(train, name=name, split=split)

    def checked(self) -> "ImageSet":
        """The set itself, if it can be trained and tested on.

        Raises:
            InputError: there is one class alone, two have one name, a part is empty, or a class has fewer than two training
                images (one to fit, one to choose settings).
        """
        if self.num_classes == 1:
            raise InputError("data", self.name, f"has the one class {self.classes[0]!r}; at least two are told apart")
        if twice := [name for name, count in Counter(self.classes).items() if count > 1]:
            raise InputError("data", self.name, f"two classes are called {twice[0]!r}; give each its own name")
        for number, part in enumerate(("train", "test")):
            if not (self.split == number).any():
                raise InputError("data", self.name, f"has no {part} images; mark some rows with split {number}")
        counts = torch.bincount(self.labels[self.split == 0], minlength=self.num_classes)
        if (counts < 2).any():
            which = int((counts < 2).nonzero()[0])
            raise InputError(
                "data",
                self.name,
                f"class {self.classes[which]!r} has {int(counts[which])} training image(s), at least 2 are needed "
                "(one to fit, one held out); add images or leave the class out",
            )
        return self
