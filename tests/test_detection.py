"""Detection: scenes and their boxes, COCO's files, a detector that learns and leaves its encoder alone."""

import dataclasses
import json
import math

import numpy
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from studylib import suites
from studylib.config import Encoder as EncoderSettings
from studylib.config import resolve
from studylib.data import glyphs, is_here, scenes
from studylib.data.coco import _refuse_unreadable, coco
from studylib.errors import InputError, RunError
from studylib.external import External
from studylib.models.encoder import Encoder
from studylib.training import Run, train
from studylib.transfer import detection
from studylib.transfer.detection import Detection, detection_accuracy
from studylib.transfer.detector import detector

pytestmark = pytest.mark.slow

TINY = Detection(epochs=1, batch=4, channels=16, hidden=16, proposals=10, regions=8)


@pytest.fixture
def run(runs) -> Run:
    """A run that stopped at its start: random weights."""
    config = resolve("smoke", "sl", 0, {"optimisation.epochs": 0})
    train(config)
    return Run(config)


def squares(count: int, test: int) -> scenes.Scenes:
    """Scenes of one red or green square on dark noise."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 60, (count, 3, 64, 64), generator=random, dtype=torch.uint8)
    boxes, labels = [], [torch.tensor([index % 2]) for index in range(count)]
    for image, label in zip(images, labels, strict=True):
        side = int(torch.randint(16, 29, (), generator=random))
        x, y = torch.randint(0, 64 - side, (2,), generator=random).tolist()
        image[label, y : y + side, x : x + side] = 255
        boxes.append(torch.tensor([[x, y, x + side, y + side]], dtype=torch.float32))
    return scenes.Scenes("squares", images, boxes, labels, (torch.arange(count) >= count - test).long(), ("red", "green"))


# scenes


def test_boxes_are_tight_around_the_ink():
    for index in range(20):
        layers, boxes, labels = scenes.place(numpy.random.default_rng([0, 0, index]))
        assert len(layers) == len(boxes) == len(labels) >= 1
        for layer, box in zip(layers, boxes, strict=True):
            ink = [(x, y) for y in range(64) for x in range(64) if layer[y, x] >= scenes.INK]
            left, top = min(x for x, _ in ink), min(y for _, y in ink)
            right, bottom = max(x for x, _ in ink) + 1, max(y for _, y in ink) + 1
            assert box.tolist() == [left, top, right, bottom]
            assert scenes.SIZE[0] - 2 <= max(right - left, bottom - top) <= scenes.SIZE[1]
            assert layer[layer < scenes.INK].max() < scenes.INK


def test_the_image_is_the_letters_of_its_boxes():
    """Outside all boxes a scene is paper; inside, ink of another luma."""
    luma = torch.tensor([0.299, 0.587, 0.114])
    for image, target in (scenes.render(30, 1)[index] for index in range(30)):
        grey = torch.einsum("chw,c->hw", image, luma)
        outside = torch.ones(64, 64, dtype=torch.bool)
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            outside[y1:y2, x1:x2] = False
        paper = grey[outside].median()
        assert (grey[outside] - paper).abs().quantile(0.99) < 0.3
        for x1, y1, x2, y2 in target["boxes"].int().tolist():
            assert (grey[y1:y2, x1:x2] - paper).abs().max() > 0.25


def test_letters_hardly_overlap_and_ink_never_does():
    for index in range(100):
        layers, boxes, _ = scenes.place(numpy.random.default_rng([1, 0, index]))
        assert ((layers > 0).sum(0) <= 1).all()
        assert (boxes >= 0).all()
        assert (boxes <= 64).all()
        for a in range(len(boxes)):
            for b in range(a):
                sides = [min(boxes[a][k + 2], boxes[b][k + 2]) - max(boxes[a][k], boxes[b][k]) for k in (0, 1)]
                areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (boxes[a], boxes[b])]
                assert max(0, sides[0]) * max(0, sides[1]) <= scenes.OVERLAP * min(areas) + 1e-4


def test_scenes_depend_on_seed_part_and_index_alone(runs):
    few, more, other = scenes.render(6, 4), scenes.render(9, 5), scenes.render(6, 4, seed=1)
    assert few.checksum == scenes.render(6, 4).checksum
    assert few.checksum != other.checksum
    for part in ("train", "test"):
        assert torch.equal(getattr(few, part).images, getattr(more, part).images[: len(getattr(few, part))])
    again, boxes, labels = scenes.scene(0, 1, 2)
    assert numpy.array_equal(few.test.images[2].numpy(), again)
    assert numpy.array_equal(few.test.boxes[2].numpy(), boxes)
    assert numpy.array_equal(few.test.labels[2].numpy(), labels)
    assert not any(torch.equal(a, b) for a in few.train.images for b in few.test.images)


def test_scenes_hold_every_class_in_announced_shapes(runs):
    made = scenes.render(40, 20)
    assert (len(made), len(made.train), len(made.test), made.num_classes, made.size) == (60, 40, 20, 10, 64)
    assert (made.images.dtype, made.images.shape) == (torch.uint8, (60, 3, 64, 64))
    assert set(torch.cat(list(made.train.labels)).tolist()) == set(range(10))
    assert {len(boxes) for boxes in made.boxes} <= set(range(1, 7))
    image, target = made.train[3]
    assert (image.dtype, target["boxes"].dtype, target["labels"].dtype) == (torch.float32, torch.float32, torch.int64)
    assert target["boxes"].shape == (len(target["labels"]), 4)


def test_every_letter_is_in_every_face_and_no_latin_one():
    for name in scenes.LETTERS:
        assert name in glyphs.ALPHABETS["glyphs_greek"]
        for character in (name, name.upper()):
            assert all(ord(character) in glyphs.characters_of(face) for face in range(len(glyphs.FACES)))
            assert character.lower() not in glyphs.LATIN


@pytest.mark.parametrize("wrong", [{"train": 0}, {"test": 0}, {"seed": -1}])
def test_bad_numbers_of_scenes_are_refused(wrong):
    with pytest.raises(InputError, match=f"scenes.{next(iter(wrong))}"):
        scenes.render(**wrong)


# COCO


@pytest.fixture
def coco_folder(tmp_path):
    folder = tmp_path / "data" / "coco"
    (folder / "annotations").mkdir(parents=True)
    objects = [
        {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 5], "iscrowd": 0},
        {"image_id": 7, "category_id": 90, "bbox": [0, 0, 4, 4], "iscrowd": 1},
        {"image_id": 7, "category_id": 3, "bbox": [5, 5, 0, 4], "iscrowd": 0},
    ]
    objects = [found | {"id": index, "area": found["bbox"][2] * found["bbox"][3]} for index, found in enumerate(objects, 1)]
    images = [{"id": number, "file_name": f"{number}.jpg", "width": 40, "height": 30 + number} for number in (7, 9)]
    categories = [{"id": 90, "name": "toothbrush"}, {"id": 3, "name": "car"}]
    for part in ("train2017", "val2017"):
        (folder / part).mkdir()
        for image in images:
            made = numpy.full((image["height"], 40, 3), 255, dtype=numpy.uint8)
            Image.fromarray(made).convert("L" if image["id"] == 9 else "RGB").save(folder / part / image["file_name"])
        content = {"images": images, "annotations": objects, "categories": categories}
        (folder / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return folder


def test_coco_is_read_in_its_published_layout(coco_folder, monkeypatch, capsys):
    monkeypatch.setenv("STUDYLIB_DATA", str(coco_folder.parent))
    data = coco()
    assert (data.classes, data.num_classes, len(data.train), len(data.test)) == (("car", "toothbrush"), 2, 2, 2)
    image, target = data.train[0]
    assert (image.shape, image.min()) == ((3, 37, 40), 1)
    assert target["boxes"].tolist() == [[1, 2, 11, 7], [0, 0, 4, 4]]
    assert (target["labels"].tolist(), target["iscrowd"].tolist()) == ([0, 1], [False, True])
    image, target = data.test[1]
    assert (image.shape, target["boxes"].shape, target["labels"].shape) == ((3, 39, 40), (0, 4), (0,))
    assert data.checksum == coco(coco_folder).checksum
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("missing", ["", "val2017", "annotations/instances_train2017.json"])
def test_missing_parts_of_coco_are_named_with_a_way_to_get_them(coco_folder, monkeypatch, missing):
    monkeypatch.setenv("STUDYLIB_DATA", str(coco_folder.parent))
    (coco_folder / missing).rename(coco_folder.parent / "away")
    with pytest.raises(InputError, match="https://cocodataset.org") as caught:
        coco()
    assert str(coco_folder / missing) in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_an_image_of_coco_that_cannot_be_read_is_named_before_training(coco_folder, monkeypatch, capsys, damage):
    monkeypatch.setenv("STUDYLIB_DATA", str(coco_folder.parent))
    coco()
    file = coco_folder / "val2017" / "9.jpg"
    content = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(content[: len(content) - 10] if damage == "cut" else b"")
    _refuse_unreadable.cache_clear()  # as in a new process
    for find in (coco, lambda: suites.missing(["coco"])):
        with pytest.raises(InputError, match=f"data='coco': {file} cannot be read"):
            find()
    assert is_here("coco")  # damaged is not missing


@pytest.mark.parametrize(
    "text", ["", '{"images": [{"id": 7', "[]", '{"images": []}', '{"images": [{"id": 7}], "categories": []}']
)
def test_damaged_annotations_of_coco_are_named(coco_folder, text):
    file = coco_folder / "annotations" / "instances_val2017.json"
    file.write_text(text)
    with pytest.raises(InputError, match=f"data='coco': {file} (is damaged|names no images).*; unpack it again"):
        coco(coco_folder)


def test_the_detector_takes_images_of_differing_sizes_crowds_and_none(coco_folder, run):
    found = detection_accuracy(run, coco(coco_folder), dataclasses.replace(TINY, image_size=32, anchors=(4, 8, 16, 32, 64)))
    assert 0 <= found.ap <= 100


# the protocol


def test_rivals_get_the_same_detector_whatever_their_method_has_beside_the_encoder(monkeypatch):
    heads = []

    def fine_tune(network, data, protocol):
        heads.append(network.roi_heads.state_dict())
        yield 0.0

    monkeypatch.setattr("studylib.transfer.detection.fine_tune", fine_tune)
    for method in ("sl", "sl_mlp"):
        source = Run(resolve("smoke", method, 0, {"optimisation.epochs": 0}))
        train(source.config, say=str)
        detection_accuracy(source, scenes.render(2, 1), TINY, device="cpu")
    first, other = heads
    assert first.keys() == other.keys() and all(torch.equal(first[name], other[name]) for name in first)


def test_same_seed_same_result_and_the_run_is_left_alone(run):
    before, data = run.snapshot(0).read_bytes(), scenes.render(8, 4)
    state = torch.get_rng_state()
    first, again = (detection_accuracy(run, data, TINY, epoch=0, device="cpu") for _ in range(2))
    assert (first.ap, first.losses) == (again.ap, again.losses)
    assert first.losses != detection_accuracy(run, data, dataclasses.replace(TINY, seed=1), device="cpu").losses
    assert run.snapshot(0).read_bytes() == before
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("stem", ["conv3", "conv3s2", "conv7"])
@pytest.mark.parametrize("arch", ["resnet10", "resnet50"])
def test_every_encoder_can_carry_the_detector(arch, stem):
    encoder = Encoder(EncoderSettings(arch=arch, width=8, stem=stem))
    weights = {name: values.clone() for name, values in encoder.state_dict().items()}
    network = detector(encoder, [0.5] * 3, [0.2] * 3, 10, 64, TINY).train()
    image, target = torch.rand(3, 64, 64), {"boxes": torch.tensor([[4.0, 4, 20, 24]]), "labels": torch.tensor([3])}
    losses = network([image], [target])
    sum(losses.values()).backward()
    body = network.backbone.body
    assert [name for name, _ in body.named_children()] == [
        "conv1",
        "bn1",
        "relu",
        "maxpool",
        *(f"layer{n}" for n in range(1, 5)),
    ]
    assert all(values.grad is not None and values.grad.any() for values in (body.conv1.weight, body.layer4[0].conv1.weight))
    for name, values in body.state_dict().items():
        assert torch.equal(values, weights[name])  # frozen statistics, and no step taken
    assert not any("bn" in name for name, _ in body.named_parameters())


def test_frozen_batch_norm_is_that_of_eval_mode_and_frozen_stages_have_no_gradient():
    encoder = Encoder(EncoderSettings(arch="resnet10", width=8, stem="conv3"))
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.running_mean, module.running_var, module.weight, module.bias):
                values.data.uniform_(0.5, 1.5)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        expected = encoder.eval()(images)
    network = detector(encoder, [0.5] * 3, [0.2] * 3, 10, 64, dataclasses.replace(TINY, frozen_stages=2)).train()
    torch.testing.assert_close(network.backbone.body(images)["3"].mean((2, 3)), expected, rtol=1e-4, atol=1e-5)
    trained = {name.split(".")[0] for name, values in network.backbone.body.named_parameters() if values.requires_grad}
    assert trained == {"layer2", "layer3", "layer4"}


def test_image_size_and_normalisation_are_those_of_the_source(tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "weights.pth")
    source = External(tmp_path / "weights.pth", mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6))
    encoder, mean, std = detection.encoder_of(source, None)
    assert torch.equal(encoder.conv1.weight, torch.load(source.file, weights_only=True)["conv1.weight"])
    transform = detector(encoder, mean, std, 10, 64, TINY).eval().transform
    image = torch.rand(3, 64, 64)
    seen, _ = transform([image])
    expected = (image - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    torch.testing.assert_close(seen.tensors[0], expected)
    larger = detector(encoder, mean, std, 10, 64, dataclasses.replace(TINY, image_size=128)).transform
    assert larger([image])[0].tensors.shape == (1, 3, 128, 128)


def test_weights_of_a_run_are_those_of_its_snapshot(run):
    encoder, mean, std = detection.encoder_of(run, 0)
    layers = run.network(0, torch.device("cpu"))[0].layers
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        seen = (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
        torch.testing.assert_close(encoder.eval()(seen), layers(images)["stage5"])


def test_mirrored_boxes_hold_the_same_pixels():
    image, box = torch.rand(3, 20, 30), torch.tensor([[3.0, 4, 10, 18]])
    target = {"boxes": box.repeat(2, 1), "labels": torch.tensor([0, 4]), "iscrowd": torch.tensor([False, True])}
    seen = {False: 0, True: 0}
    for _ in range(30):
        made, found = detection.prepared(image, target, True, torch.device("cpu"))
        ((x1, y1, x2, y2),) = found["boxes"].int().tolist()
        assert found["labels"].tolist() == [1]
        cut = made[:, y1:y2, x1:x2]
        mirrored = not torch.equal(made, image)
        assert torch.equal(cut.flip(2) if mirrored else cut, image[:, 4:18, 3:10])
        seen[mirrored] += 1
    assert min(seen.values()) > 3


def test_average_precision_of_perfect_shifted_and_no_boxes(runs):
    test = scenes.render(1, 12).test
    table = {float(image.sum()): target for image, target in (test[index] for index in range(12))}

    class Oracle(torch.nn.Module):
        def __init__(self, shift: float):
            super().__init__()
            self.shift, self.weight = shift, torch.nn.Parameter(torch.zeros(1))

        def forward(self, images):
            known = [table[float(image.sum())] for image in images]
            return [
                {"boxes": one["boxes"] + self.shift, "labels": one["labels"] + 1, "scores": torch.ones(len(one["labels"]))}
                for one in known
            ]

    assert detection.average_precision(Oracle(0), test, 5) == pytest.approx((100, 100, 100))
    ap, ap50, ap75 = detection.average_precision(Oracle(1.5), test, 5)
    assert 0 < ap75 < ap < ap50 < 100 or 0 <= ap75 < ap50 <= 100
    assert detection.average_precision(Oracle(500), test, 5) == (0, 0, 0)


def test_it_learns(runs):
    """A small detector on a random encoder finds squares and their colour, and does not before it is trained."""
    config = resolve("smoke", "sl", 0, {"optimisation.epochs": 0, "encoder.width": 16})
    train(config)
    data, source = squares(56, test=16), Run(config)
    protocol = Detection(epochs=12, batch=2, channels=32, hidden=64, proposals=20, regions=16, warmup=20)
    untrained = dataclasses.replace(protocol, epochs=1, lr=1e-9)
    learnt, floor = (detection_accuracy(source, data, tried, device="cpu") for tried in (protocol, untrained))
    assert floor.ap50 < 5
    assert learnt.ap50 > floor.ap50 + 15
    assert learnt.ap > floor.ap
    assert len(learnt.losses) == 12
    assert learnt.losses[-1] < learnt.losses[0]


def test_a_diverging_training_stops_with_a_way_out(run):
    with pytest.raises(RunError, match=r"lower detection.lr \(now 1e\+30\)"):
        detection_accuracy(run, scenes.render(16, 2), dataclasses.replace(TINY, lr=1e30, warmup=0), device="cpu")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("epochs", 0), ("batch", 0), ("lr", 0.0), ("lr", math.nan), ("warmup", -1)),
        *(("anchors", (8, 16)), ("anchors", (0, 8, 16, 32, 64)), ("image_size", 8), ("frozen_stages", 6), ("seed", -1)),
    ],
)
def test_bad_protocols_are_refused(field, value):
    with pytest.raises(InputError, match=f"detection.{field}"):
        Detection(**{field: value})


def test_unknown_epochs_and_parts_without_boxes_are_refused(run):
    data = scenes.render(4, 4)
    with pytest.raises(InputError, match="kept no such weights"):
        detection_accuracy(run, data, TINY, epoch=5)
    bare = dataclasses.replace(data, boxes=[torch.zeros(0, 4)] * 8, labels=[torch.zeros(0, dtype=torch.long)] * 8)
    with pytest.raises(InputError, match="no train image with a box"):
        detection_accuracy(run, bare, TINY)


def test_the_protocol_says_what_it_does():
    said = Detection(frozen_stages=2, image_size=128).describe()
    assert "\n" not in said
    assert all(word in said for word in ("Faster R-CNN", "128 px", "2 stages frozen", "10 epochs", "seed 0"))
    assert "800 px" in detection.COCO_1X.describe()
