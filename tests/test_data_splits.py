"""Stratified splits against a slow count, parts of classes, and the operations of an image set."""

import dataclasses
from importlib import resources

import pytest
import torch
import yaml

from studylib.data import ImageSet, checksum, load, splits
from studylib.data.splits import stratified_split
from studylib.errors import InputError


@pytest.mark.parametrize("fraction", [0.001, 0.2, 0.3, 0.5, 0.999])
@pytest.mark.parametrize("counts", [[1, 2, 3], [3, 2, 1, 10], [0, 2], [37, 1, 1, 5, 4], [100, 7]])
def test_split_is_that_of_a_slow_count(counts, fraction):
    labels = torch.cat([torch.full((count,), label) for label, count in enumerate(counts)])
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    fit, held = stratified_split(labels, fraction, seed=3)
    assert sorted(fit.tolist() + held.tolist()) == list(range(len(labels)))
    assert fit.tolist() == sorted(fit.tolist())
    assert held.tolist() == sorted(held.tolist())
    for label, count in enumerate(counts):
        expected = round(fraction * count)
        if count >= 2 and expected == 0:
            expected = 1
        if count >= 1 and expected == count:
            expected = count - 1
        assert sum(int(labels[row]) == label for row in held.tolist()) == expected


def test_split_depends_on_the_seed_alone():
    labels = torch.arange(5).repeat(20)
    first, again, other = (stratified_split(labels, 0.2, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    torch.rand(1)
    assert torch.equal(first, stratified_split(labels, 0.2, 0)[1])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction):
    with pytest.raises(InputError, match="fraction=.*between 0 and 1"):
        stratified_split(torch.tensor([0, 0, 1, 1]), fraction, 0)


@pytest.mark.parametrize("labels", [[], [0], [0, 1, 2]])
def test_nothing_to_hold_out_is_refused(labels):
    with pytest.raises(InputError, match="no class has two images"):
        stratified_split(torch.tensor(labels, dtype=torch.int64), 0.5, 0)


def test_parts_are_those_of_the_study():
    cifar, tiny = ({name: part.classes for name, part in splits.parts()[of].items()} for of in ("cifar100", "tiny_cog"))
    assert [len(cifar[part]) for part in ("natural", "artefact", "seen", "coarse8", "fine60")] == [70, 30, 48, 40, 60]
    assert all(len(cifar[f"level{level}"]) == 13 for level in range(1, 5))
    assert all(len(tiny[f"coarse{level}"]) == 16 for level in range(1, 6))
    assert [len(tiny[f"natural{level}"]) for level in range(1, 4)] == [16, 16, 48]
    assert len({*cifar["natural"], *cifar["artefact"]}) == len({*cifar["coarse8"], *cifar["fine60"]}) == 100
    graded = ("seen", "level1", "level2", "level3", "level4")
    assert {name for part in graded for name in cifar[part]} == {*cifar["natural"], *cifar["artefact"]}
    for ranked in ("coarse", "natural"):
        assert len({name for part, names in tiny.items() if part.startswith(ranked) for name in names}) == 80
    for parts in splits.parts().values():
        assert all(len(set(part.classes)) == len(part.classes) for part in parts.values())
    assert [part.images for part in splits.parts()["cifar100"].values()].count(None) == 7


def test_the_coarse_classes_of_a_part_are_whole():
    coarse = yaml.safe_load((resources.files("studylib") / "data" / "coarse.yaml").read_text())["cifar100"]
    part = set(splits.parts()["cifar100"]["coarse8"].classes)
    assert [len(part & set(fine)) for fine in coarse.values()].count(5) == 8
    assert [len(part & set(fine)) for fine in coarse.values()].count(0) == 12


@pytest.fixture
def images() -> ImageSet:
    pixels = torch.arange(8, dtype=torch.uint8)[:, None, None, None].expand(8, 3, 2, 2).contiguous()
    labels, split = torch.tensor([0, 1, 2, 0, 1, 2, 2, 0]), torch.tensor([0, 0, 0, 0, 0, 0, 1, 1])
    hidden = {"kind": (torch.tensor([-1, 3, 1, 1, 3, -1, 1, 3]), ("p", "q", "r", "s")), "none": (torch.full((8,), -1), ())}
    return ImageSet("x", pixels, labels, ("a", "b", "c"), split, hidden)


def test_fewer_training_images_are_the_first_of_a_fixed_order():
    labels = torch.tensor([0] * 5 + [1] * 3 + [0, 0, 2])
    split = torch.tensor([0] * 8 + [0, 1, 1])
    images = ImageSet("x", torch.zeros(11, 3, 2, 2, dtype=torch.uint8), labels, ("a", "b", "c"), split)
    rows = [splits.first(labels, count) for count in (1, 2, 9)]
    assert [torch.bincount(labels[chosen]).tolist() for chosen in rows] == [[1, 1, 1], [2, 2, 1], [7, 3, 1]]
    assert set(rows[0].tolist()) < set(rows[1].tolist()) < set(rows[2].tolist()) == set(range(11))
    few = images.fewer(2)
    assert torch.bincount(few.train.labels).tolist() == [2, 2] and few.test.labels.tolist() == [0, 2]
    assert images.fewer(None) is images
    assert torch.equal(images.fewer(9).labels, images.labels)


def test_parts_of_an_image_set(images):
    assert images.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert images.test.labels.tolist() == [2, 0]
    assert images.test.hidden["kind"][0].tolist() == [1, 3]
    assert images.test.num_classes == 3
    chosen = images.only(["c", "a"], "x/y")
    assert (chosen.name, chosen.classes) == ("x/y", ("c", "a"))
    assert chosen.labels.tolist() == [1, 0, 1, 0, 0, 1]
    assert chosen.images[:, 0, 0, 0].tolist() == [0, 2, 3, 5, 6, 7]
    with pytest.raises(InputError, match="class='d'"):
        images.only(["a", "d"], "x/z")


def test_other_labels_of_an_image_set(images):
    kind = images.relabelled("kind", "x@kind")
    assert kind.classes == ("q", "s")
    assert kind.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4, 6, 7]
    assert kind.labels.tolist() == [1, 0, 0, 1, 0, 1]
    assert kind.checked() is kind
    with pytest.raises(InputError, match="has no train images"):
        images.relabelled("none", "x@none").checked()


def test_checksum_depends_on_images_labels_and_split(images):
    same = dataclasses.replace(images, name="other", images=images.images.clone())
    assert same.checksum == images.checksum
    for name in ("images", "labels", "split"):
        values = getattr(images, name).clone()
        values[3] += 1
        assert dataclasses.replace(images, **{name: values}).checksum != images.checksum
    swapped = images.images.reshape(8, 3, 1, 4)
    assert dataclasses.replace(images, images=swapped).checksum != images.checksum


@pytest.mark.parametrize("spec", ["glyphs/few", "glyphs/few@case", "glyphs@group"])
def test_held_out_images_are_a_tenth_of_the_training_images_of_each_class(spec):
    whole, held = load(spec).train, load(f"{spec}:held_out")
    assert torch.equal(held.images, whole.images) and torch.equal(held.labels, whole.labels)
    assert held.classes == whole.classes and held.name == f"{spec}:held_out"
    for label in range(held.num_classes):
        rows = held.labels == label
        assert int(held.split[rows].sum()) == max(round(0.1 * int(rows.sum())), 1)
    assert checksum(f"{spec}:held_out") not in (checksum(spec), whole.checksum)


@pytest.mark.parametrize("spec", ["glyphs/few:", "glyphs/few:held", "glyphs:held_out@case", ":held_out"])
def test_other_endings_are_refused(spec):
    with pytest.raises(InputError, match="data="):
        load(spec)


@pytest.mark.parametrize(("classes", "said"), [(("a",), "the one class 'a'"), (("a", "b", "a"), "two classes are called 'a'")])
def test_one_class_and_two_of_one_name_are_refused(images, classes, said):
    labels = torch.arange(8) % len(classes)
    with pytest.raises(InputError, match=said):
        dataclasses.replace(images, labels=labels, classes=classes, split=torch.tensor([0] * 6 + [1] * 2)).checked()
