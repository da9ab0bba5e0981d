"""Augmentation of a whole batch on its own device, with different random numbers for every image.

The order is that of t-ReX (code:multi_crop.py): random resized crop, flip, colour jitter, grayscale, blur, solarise. All
random numbers of a view are drawn at once and beforehand, so that a step can be repeated exactly, and captured on a GPU.
"""

import math
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from studylib.errors import require

# NTSC; the first row is the luma of ITU-R BT.601, as PIL's grayscale
RGB_TO_YIQ = ((0.299, 0.587, 0.114), (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What is done to an image, how strongly and how often; the defaults are t-ReX's without its blur and solarise."""

    size: int = 0
    """side of the result in pixels; 0 keeps the image's"""
    crop_scale: tuple[float, float] = (0.25, 1.0)
    """range of the crop's share of the image's area; (1, 1) with crop_ratio (1, 1) does not crop"""
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    """range of width / height"""
    flip: float = 0.5
    """probability of mirroring"""
    jitter: float = 0.8
    """probability of the four colour changes"""
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    """largest rotation of the hue in turns"""
    grayscale: float = 0.2
    blur: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    """range of the Gaussian's standard deviation in pixels"""
    solarise: float = 0.0

    def __post_init__(self) -> None:
        require("augmentation.size", self.size, self.size >= 0, "must be 0 (the image's own size) or more")
        for name in ("flip", "jitter", "grayscale", "blur", "solarise"):
            value = getattr(self, name)
            require(f"augmentation.{name}", value, 0 <= value <= 1, "is a probability: must be in [0, 1]")
        for name in ("brightness", "contrast", "saturation"):
            value = getattr(self, name)
            require(f"augmentation.{name}", value, 0 <= value <= 1, "must be in [0, 1]")
        require("augmentation.hue", self.hue, 0 <= self.hue <= 0.5, "must be in [0, 0.5] turns")
        for name in ("crop_scale", "crop_ratio", "blur_sigma"):
            low, high = getattr(self, name)
            fix = "must be two positive numbers, the smaller first"
            require(f"augmentation.{name}", (low, high), 0 < low <= high < math.inf, fix)
        share = "is a share of the image's area: at most 1"
        require("augmentation.crop_scale", self.crop_scale, self.crop_scale[1] <= 1, share)


class Numbers(NamedTuple):
    """The random numbers of one view, one of each kind for every image: (B,) each, uniform in [0, 1)."""

    area: Tensor
    ratio: Tensor
    x: Tensor
    y: Tensor
    flip: Tensor
    jitter: Tensor
    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor
    grayscale: Tensor
    blur: Tensor
    sigma: Tensor
    solarise: Tensor


def draw(count: int, generator: torch.Generator) -> Tensor:
    """All random numbers of one view of ``count`` images, (14, count) on the generator's device, in the order of `Numbers`."""
    return torch.rand(len(Numbers._fields), count, generator=generator, device=generator.device)


def augment(images: Tensor, options: Augmentation, numbers: Tensor) -> Tensor:
    """Augmented images (B, 3, size, size), float32 in [0, 1], of ``images`` (B, 3, H, W) uint8.

    A function of the images and of ``numbers`` (14, B) alone (`draw`), in operations that ask the host for nothing.

    Deviations from torchvision on PIL images: a crop that does not fit is clipped instead of drawn again, and its place is
    not rounded to whole pixels; bilinear sampling without antialiasing; the colour changes are applied in the order
    brightness, contrast, saturation, hue and clipped once at the end, which makes them one affine map per image; the hue is
    turned in YIQ, not HSV; the blur's kernel is not cut off and is renormalised at the border. An image that is not square
    is squeezed.
    """
    drawn = Numbers(*numbers)
    out = crop_and_flip(images.float(), options, drawn)
    if options.jitter or options.grayscale:
        matrix, offset = colour_map(out, options, drawn)
        out = torch.baddbmm(offset.expand(-1, 3, 1), matrix, out.flatten(2)).view_as(out)
    else:
        out = out.div_(255)
    out = out.clamp_(0, 1)
    if options.blur:
        blurred = gaussian_blur(out, between(drawn.sigma, *options.blur_sigma))
        out = torch.where(each(drawn.blur < options.blur), blurred, out)
    if options.solarise:
        out = torch.where(each(drawn.solarise < options.solarise) & (out >= 0.5), 1 - out, out)
    return out


def crop_and_flip(images: Tensor, options: Augmentation, drawn: Numbers) -> Tensor:
    """Random resized crops of float images (B, 3, H, W), mirrored with probability ``flip``, sampled bilinearly.

    The area is uniform in ``crop_scale`` and the logarithm of the ratio uniform, as in torchvision's RandomResizedCrop.
    """
    count, _, height, width = images.shape
    size = options.size or min(height, width)
    area = between(drawn.area, *options.crop_scale) * height * width
    ratio = between(drawn.ratio, *(math.log(value) for value in options.crop_ratio)).exp()
    w = (area * ratio).sqrt().clamp(max=width) / width  # shares of the image's sides
    h = (area / ratio).sqrt().clamp(max=height) / height
    x = between(drawn.x, -1, 1) * (1 - w)  # centre in [-1, 1]
    y = between(drawn.y, -1, 1) * (1 - h)
    w = torch.where(drawn.flip < options.flip, -w, w)
    steps = (torch.arange(size, device=images.device) * 2 + 1) / size - 1
    columns = (x[:, None] + w[:, None] * steps)[:, None, :].expand(count, size, size)
    lines = (y[:, None] + h[:, None] * steps)[:, :, None].expand(count, size, size)
    grid = torch.stack((columns, lines), dim=-1)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def colour_map(images: Tensor, options: Augmentation, drawn: Numbers) -> tuple[Tensor, Tensor]:
    """Matrix (B, 3, 3) and offset (B, 1, 1) of the colour jitter and grayscale of images (B, 3, H, W) in [0, 255].

    brightness: b x · contrast: c x + (1 - c) mean(luma) · saturation: s x + (1 - s) luma · hue: a turn of I and Q.
    The result is in [0, 1] before clipping.
    """
    jittered = drawn.jitter < options.jitter
    b, c, s = (
        torch.where(jittered, between(number, 1 - strength, 1 + strength), 1.0)
        for number, strength in (
            (drawn.brightness, options.brightness),
            (drawn.contrast, options.contrast),
            (drawn.saturation, options.saturation),
        )
    )
    turn = torch.where(jittered, between(drawn.hue, -options.hue, options.hue), 0.0) * 2 * math.pi
    s = torch.where(drawn.grayscale < options.grayscale, 0.0, s)  # gray of gray is gray: no colour is left to turn
    gray = colours(images.device)[0]
    mean = (images.mean((2, 3)) * gray[0]).sum(1) / 255
    # A turn keeps gray, so that turn (s x + (1 - s) luma x) = s turn x + (1 - s) luma x.
    matrix = gray + s[:, None, None] * (turn_hue(turn) - gray)
    return matrix * (b * c / 255)[:, None, None], ((1 - c) * b * mean)[:, None, None]


def turn_hue(angle: Tensor) -> Tensor:
    """Matrices (B, 3, 3) that turn the hue of RGB by ``angle`` (B,) radians around the gray axis, keeping the luma."""
    gray, cosine, sine = colours(angle.device)
    return gray + angle.cos()[:, None, None] * cosine + angle.sin()[:, None, None] * sine


@cache
def colours(device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Matrices (3, 3) whose sum, the last two times the cosine and the sine of an angle, turns the hue of RGB by it.

    The first replaces each channel by the luma. In YIQ a turn is [[1, 0, 0], [0, cos, -sin], [0, sin, cos]].
    """
    to_yiq = torch.tensor(RGB_TO_YIQ, dtype=torch.float64)
    to_yiq[1:] -= to_yiq[1:].mean(1, keepdim=True)  # the rounded constants would tint gray
    back = torch.linalg.inv(to_yiq)
    parts = back[:, :1] @ to_yiq[:1], back[:, 1:] @ to_yiq[1:], back[:, 2:] @ to_yiq[1:2] - back[:, 1:2] @ to_yiq[2:]
    return tuple(part.float().to(device) for part in parts)


def gaussian_blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Images (B, 3, H, W) convolved with a Gaussian of ``sigma`` (B,) pixels, renormalised at the border."""

    def weights(size: int) -> Tensor:
        position = torch.arange(size, device=images.device)
        squared = (position[:, None] - position[None, :]).square()
        kernel = (-squared / (2 * sigma[:, None, None].square())).exp()
        return (kernel / kernel.sum(2, keepdim=True))[:, None]

    return weights(images.shape[2]) @ images @ weights(images.shape[3]).mT


def to_float(images: Tensor, size: int) -> Tensor:
    """Images (B, 3, size, size), float32 in [0, 1], of uint8 images: resized bilinearly with antialiasing if they differ."""
    values = images.float() / 255
    if images.shape[-2:] == (size, size):
        return values
    return functional.interpolate(values, (size, size), mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def between(numbers: Tensor, low: float, high: float) -> Tensor:
    """``numbers`` uniform in [0, 1) as numbers uniform in [low, high)."""
    return numbers * (high - low) + low


def each(values: Tensor) -> Tensor:
    """One value for each image, (B,), as (B, 1, 1, 1)."""
    return values[:, None, None, None]
