"""Our pipeline against what others write: a torch DataLoader with torchvision's transforms, and lightly's multi-crop."""

import dataclasses
import time
from collections.abc import Callable
from importlib.util import find_spec
from statistics import median
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from studylib import device as devices
from studylib import precision
from studylib.bench.loop import real_speed, synchronise
from studylib.config import RunConfig, resolve
from studylib.data import ImageSet, load
from studylib.data.augment import Augmentation, augment, draw
from studylib.device import usable_cores
from studylib.methods import METHODS, Batch
from studylib.methods.method import crops
from studylib.models.encoder import Normalise
from studylib.training.loop import channel_statistics

ROUNDS, WORKERS = 3, 2
OUR_EPOCHS = 20  # of our input pipeline, of which one is too short to be timed
SIZES = {
    "cpu": {"data": "glyphs_armenian", "encoder.width": 16, "encoder.stem": "conv3s2", "optimisation.batch": 64},
    "cuda": {"data": "glyphs", "encoder.width": 64, "encoder.stem": "conv3", "optimisation.batch": 256},
}
SETTINGS = {
    "encoder.arch": "resnet18",
    "augmentation.crop_scale": (0.25, 1.0),
    "augmentation.flip": 0.5,
    "augmentation.jitter": 0.8,
    "augmentation.grayscale": 0.2,
    "optimisation.epochs": 2,
    "optimisation.lr": 0.05,
    "optimisation.warmup_epochs": 0.0,
    "monitor.every": 0,
    "monitor.snapshots": "final",
}
MULTI_CROP = {
    "multi_crop.global_crops": 1,
    "multi_crop.local_crops": 4,
    "multi_crop.local_size": 16,
    "multi_crop.local_scale": (0.1, 0.25),
}
TARGETS = {
    "cpu": {"dataloader": {"input": ">= 3", "loop": ">= 1.2"}, "lightly": {"input": ">= 1", "loop": ">= 1"}},
    "cuda": {"dataloader": {"input": ">= 3", "loop": ">= 3"}, "lightly": {"input": ">= 1", "loop": ">= 1"}},
}

Speeds = dict[str, list[tuple[float, float]]]
"""``input`` and ``loop`` -> images/s of ours and theirs in each round"""


def peers(device: torch.device) -> list[dict[str, Any]]:
    """images/s of ours ÷ theirs, of the input pipeline alone (``input``) and of the whole training (``loop``), for two others.

    ``dataloader``: a torch DataLoader with two workers over PIL images with torchvision's transforms (v1, which are faster on
    PIL images than v2), and the method ``sl``. ``lightly``: the same DataLoader over its LightlyDataset with its
    MultiCropTranform (sic), for a crop of 32 px and four of 16 px, and the method ``trex_plain``; left out where lightly is
    not installed.

    Both sides have the same uint8 images in memory, numbers and sizes of crops, strengths and probabilities of flip, colour
    changes and grayscale, normalisation, network, loss, batch, SGD, precision and memory format. Both may use all cores: ours
    by PyTorch's threads, theirs by these and by the workers, which have a thread each. What differs is what `augment` lists:
    theirs draws a crop that does not fit again, reduces with antialiasing, takes the colour changes in random order, rounding
    after each, and turns the hue in HSV.

    Input pipeline alone: ours gathers shuffled batches of images that lie on the device, augments all their views and
    normalises them; theirs is an epoch of the DataLoader whose batches are moved to the device. Whole loop: ours is the second
    epoch of `train`, in a runs folder that is thrown away; theirs is an epoch of a plain loop. Before the clock starts the
    workers are there and an epoch has been trained; the wait for an epoch's first batch counts. Each side in turn, three
    rounds, the median of the ratios. The details have a round with a worker for every core as well, where there are more than
    two.

    Images are embedded glyphs of 32 px; the network is a ResNet-18, on a CPU with width 16, a stem of stride 2 and batches of
    64, on a GPU with width 64, a stem of stride 1 and batches of 256.
    """
    rows, cores = [], usable_cores()
    sizes = SETTINGS | SIZES[device.type]
    images = load(sizes["data"])
    settings = {
        "dataloader": resolve("quick", "sl", 0, sizes),
        "lightly": resolve("quick", "trex_plain", 0, sizes | MULTI_CROP),
    }
    lacking = [] if find_spec("lightly") else ["lightly"]
    for peer in [name for name in settings if name not in lacking]:
        config = settings[peer]
        found = compare(peer, config, images, device, WORKERS, ROUNDS)
        more = compare(peer, config, images, device, cores, 1) if cores > WORKERS else {}
        for part, pairs in found.items():
            ours, theirs = (median(side) for side in zip(*pairs, strict=True))
            details = f"ours {ours:.0f}, theirs {theirs:.0f} images/s with {WORKERS} workers"
            if more:
                details += f", {more[part][0][1]:.0f} with {cores} workers (ratio {ratio(more[part]):.2f})"
            details += f"; {cores} cores, {torch.get_num_threads()} threads, {devices.name_of(device)}; {config.method}, "
            details += f"{config.encoder.arch} (width {config.encoder.width}), {config.data}"
            details += "".join(f"; {name} is not installed, its rows are left out" for name in lacking)
            about = {"name": f"peers: {part}, {peer}", "value": ratio(pairs), "unit": "ratio"}
            rows.append(about | {"target": TARGETS[device.type][peer][part], "details": details})
    return rows


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Median over rounds of ours ÷ theirs."""
    return median(ours / theirs for ours, theirs in pairs)


def compare(peer: str, config: RunConfig, images: ImageSet, device: torch.device, workers: int, rounds: int) -> Speeds:
    """Speeds of ours, and of a DataLoader with the dataset of ``peer`` and so many workers."""
    loader = DataLoader(
        DATASETS[peer](config, images),
        batch_size=config.optimisation.batch,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=True,
        pin_memory=device.type == "cuda",
        multiprocessing_context="spawn",  # safe after threads and CUDA have been used; it only takes longer to start
    )
    step = PlainStep(config, images, device)
    found: Speeds = {"input": [], "loop": []}
    with precision.kernels(device, config.optimisation.precision, fastest=True):
        their_speed(loader, device, step)
        for round_ in range(rounds):
            found["input"].append((our_input_speed(config, images, device), their_speed(loader, device)))
            ours = real_speed(dataclasses.replace(config, seed=round_), images, device)
            found["loop"].append((ours, their_speed(loader, device, step)))
    return found


@torch.no_grad()
def our_input_speed(config: RunConfig, images: ImageSet, device: torch.device) -> float:
    """images/s of shuffled batches of resident images, all their views augmented and normalised."""
    pixels, batch = images.train.images.to(device), config.optimisation.batch
    normalise = Normalise(*channel_statistics(pixels)).to(device)
    generator = torch.Generator(device).manual_seed(0)
    count = len(pixels) // batch * batch
    for epoch in range(1 + OUR_EPOCHS):
        if epoch == 1:  # the first one loads libraries and fills caches
            synchronise(device)
            started = time.perf_counter()
        for rows in torch.randperm(len(pixels)).to(device)[:count].split(batch):
            chosen = pixels[rows]
            for view in crops(config.augmentation, config.multi_crop):
                normalise(augment(chosen, view, draw(batch, generator)))
    synchronise(device)
    return OUR_EPOCHS * count / (time.perf_counter() - started)


def their_speed(loader: DataLoader, device: torch.device, step: Callable[[list[Tensor], Tensor], Any] | None = None) -> float:
    """images/s of an epoch of ``loader``, whose batches are moved to the device and given to ``step``, if there is one."""
    synchronise(device)
    started = time.perf_counter()
    for seen, labels, *_ in loader:
        views = [view.to(device, non_blocking=True) for view in (seen if isinstance(seen, list) else [seen])]
        labels = labels.to(device, non_blocking=True)
        if step:
            step(views, labels)
    synchronise(device)
    return len(loader) * loader.batch_size / (time.perf_counter() - started)


class PlainStep:
    """A step of the loop that users write, with the network and the loss of a method, on images that are normalised."""

    def __init__(self, config: RunConfig, images: ImageSet, device: torch.device):
        method = METHODS[config.method](config, images.num_classes, *channel_statistics(images.train.images))
        method.normalise = nn.Identity()
        self.method, self.device, self.settings = method.to(device).train(), device, config.optimisation
        rates = {"lr": self.settings.lr, "momentum": self.settings.momentum, "weight_decay": self.settings.weight_decay}
        self.optimiser = torch.optim.SGD(method.parameters(), **rates)

    def __call__(self, views: list[Tensor], labels: Tensor) -> None:
        batch = Batch(views, labels, torch.arange(len(labels), device=self.device))
        with precision.autocast(self.device, self.settings.precision):
            loss, _ = self.method.loss(batch)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()


class Pictures(Dataset):
    """Images of a training set as PIL images, transformed, and their labels, made as torchvision's CIFAR-10 makes them."""

    def __init__(self, images: ImageSet, transform: Callable[[Image.Image], Any] | None = None):
        self.pixels = images.train.images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = images.train.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.transform(Image.fromarray(self.pixels[index])), self.labels[index]


def plain_dataset(config: RunConfig, images: ImageSet) -> Dataset:
    """With torchvision's transforms for one crop."""
    from torchvision import transforms

    options = config.augmentation
    size = options.size or images.size
    crop = transforms.RandomResizedCrop(size, options.crop_scale, options.crop_ratio)
    return Pictures(images, transforms.Compose([crop, after_the_crop(options, images)]))


def lightly_dataset(config: RunConfig, images: ImageSet) -> Any:
    """With lightly's transform for global and local crops, whose ratios are torchvision's, and ours, by default."""
    from lightly.data import LightlyDataset
    from lightly.transforms.multi_crop_transform import MultiCropTranform

    options, multi_crop = config.augmentation, config.multi_crop
    scales = options.crop_scale, multi_crop.local_scale
    transform = MultiCropTranform(
        crop_sizes=(options.size or images.size, multi_crop.local_size),
        crop_counts=(multi_crop.global_crops, multi_crop.local_crops),
        crop_min_scales=tuple(low for low, _ in scales),
        crop_max_scales=tuple(high for _, high in scales),
        transforms=after_the_crop(options, images),
    )
    return LightlyDataset.from_torch_dataset(Pictures(images), transform=transform)


def after_the_crop(options: Augmentation, images: ImageSet) -> Callable[[Image.Image], Tensor]:
    """torchvision's transforms that do what `augment` does after the crop, without blur and solarise, and normalise."""
    from torchvision import transforms  # imports slowly, and a plan needs this package's speed of a step alone

    jitter = transforms.ColorJitter(options.brightness, options.contrast, options.saturation, options.hue)
    mean, std = (values.tolist() for values in channel_statistics(images.train.images))
    return transforms.Compose(
        [
            transforms.RandomHorizontalFlip(options.flip),
            transforms.RandomApply([jitter], options.jitter),
            transforms.RandomGrayscale(options.grayscale),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


DATASETS = {"dataloader": plain_dataset, "lightly": lightly_dataset}
