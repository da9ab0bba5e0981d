"""Augmentation against slow loops: crops, flips, colours, blur; randomness per image; the generator decides everything."""

import colorsys
import math

import numpy
import pytest
import torch

from studylib.data import augment as module
from studylib.data.augment import Augmentation, Numbers, between, draw, gaussian_blur, to_float, turn_hue
from studylib.errors import InputError

NOTHING = {"crop_scale": (1.0, 1.0), "crop_ratio": (1.0, 1.0), "flip": 0.0, "jitter": 0.0, "grayscale": 0.0}
LUMA = torch.tensor([0.299, 0.587, 0.114])


def generator(seed=0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def augment(images, options, generator) -> torch.Tensor:
    return module.augment(images, options, draw(len(images), generator))


def noise(*shape, seed=0) -> torch.Tensor:
    return torch.randint(256, shape, generator=generator(seed), dtype=torch.uint8)


def only(**options) -> Augmentation:
    return Augmentation(**NOTHING | options)


def luma(images: torch.Tensor) -> torch.Tensor:
    return (images * LUMA[:, None, None]).sum(1, keepdim=True)


@pytest.mark.parametrize("side", [1, 5, 32, 33])
def test_nothing_to_do_gives_the_image(side):
    images = noise(7, 3, side, side)
    assert torch.allclose(augment(images, only(), generator()), images.float() / 255, atol=2e-6)


@pytest.mark.parametrize("size", [0, 1, 9, 31, 50])
@pytest.mark.parametrize("shape", [(5, 3, 32, 32), (4, 3, 17, 17), (3, 3, 28, 33), (1, 3, 8, 8), (0, 3, 8, 8)])
def test_shape_type_and_range(size, shape):
    images = noise(*shape)
    before = images.clone()
    options = Augmentation(size=size, blur=0.5, solarise=0.5, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.5)
    out = augment(images, options, generator())
    side = size or min(shape[2:])
    assert out.shape == (shape[0], 3, side, side)
    assert out.dtype == torch.float32
    assert out.isfinite().all()
    assert ((out >= 0) & (out <= 1)).all()
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "options",
    [
        only(crop_scale=(0.3, 1.0), crop_ratio=(0.5, 2.0)),
        only(jitter=1.0),
        only(blur=1.0),
        Augmentation(blur=0.5, solarise=0.5),
    ],
    ids=["crop", "jitter", "blur", "all"],
)
def test_each_image_has_its_own_randomness_and_the_generator_decides_it(options):
    images = noise(1, 3, 16, 16).expand(40, -1, -1, -1)
    first, again, other = (augment(images, options, generator(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert len(first.flatten(1).unique(dim=0)) >= 38
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    assert torch.equal(first, augment(images, options, generator(0)))
    assert torch.equal(before, torch.random.get_rng_state())


def ramps(count: int, height: int, width: int) -> torch.Tensor:
    """Channel 0 is the column, channel 1 the row, channel 2 noise: an augmented image shows its own crop."""
    images = noise(count, 3, height, width)
    images[:, 0] = torch.arange(width, dtype=torch.uint8)
    images[:, 1] = torch.arange(height, dtype=torch.uint8)[:, None]
    return images


def crops(out: torch.Tensor) -> dict[str, torch.Tensor]:
    """Width, height, left and top in pixels of the crops of `ramps`, read from the inner half of the result."""
    size = out.shape[-1]
    low, high = size // 4, 3 * size // 4
    found = {}
    for start, extent, line in (("left", "width", out[:, 0, 0]), ("top", "height", out[:, 1, :, 0])):
        line = line.double() * 255
        step = (line[:, high] - line[:, low]) / (high - low)
        found[extent] = step * size
        found[start] = line[:, low] - (low + 0.5) * step + 0.5
    return found


def slow_crop(image: numpy.ndarray, left, top, width, height, size) -> numpy.ndarray:
    """(size, size) bilinear samples at the centres of the crop's cells; beyond the border stands the border's value."""
    lines, columns = image.shape
    out = numpy.zeros((size, size))
    for i in range(size):
        for j in range(size):
            y = min(max(top + (i + 0.5) * height / size - 0.5, 0), lines - 1)
            x = min(max(left + (j + 0.5) * width / size - 0.5, 0), columns - 1)
            y0, x0 = min(int(y), lines - 2), min(int(x), columns - 2)
            for dy, wy in ((0, 1 - (y - y0)), (1, y - y0)):
                for dx, wx in ((0, 1 - (x - x0)), (1, x - x0)):
                    out[i, j] += wy * wx * image[y0 + dy, x0 + dx]
    return out


@pytest.mark.parametrize(("height", "width", "size"), [(32, 32, 0), (32, 32, 13), (21, 40, 0), (24, 17, 41)])
def test_crop_and_flip_are_those_of_slow_loops(height, width, size):
    images = ramps(12, height, width)
    out = augment(images, only(crop_scale=(0.2, 1.0), crop_ratio=(0.5, 2.0), flip=0.5, size=size), generator())
    found = {name: values.tolist() for name, values in crops(out).items()}
    assert 0 < sum(value < 0 for value in found["width"]) < 12
    for row in range(12):
        place = [found[name][row] for name in ("left", "top", "width", "height")]
        expected = slow_crop(images[row, 2].double().numpy(), *place, out.shape[-1]) / 255
        assert numpy.abs(out[row, 2].numpy() - expected).max() < 2e-3


def test_crops_have_torchvisions_distribution():
    count, side = 4000, 64
    out = augment(ramps(count, side, side), only(crop_scale=(0.2, 0.6), crop_ratio=(0.75, 4 / 3), size=12), generator())
    found = crops(out)
    area, ratio = found["width"] * found["height"] / side**2, (found["width"] / found["height"]).log()
    for values, low, high in ((area, 0.2, 0.6), (ratio, math.log(0.75), math.log(4 / 3))):  # all of these crops fit
        assert values.min() > low - 1e-3
        assert values.max() < high + 1e-3
        assert torch.quantile(values, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64)) == pytest.approx(
            [low + share * (high - low) for share in (0.25, 0.5, 0.75)], abs=0.05 * (high - low)
        )
    shares = [found[start] / (side - found[extent]) for start, extent in (("left", "width"), ("top", "height"))]
    for share in shares:
        assert share.min() > -1e-3
        assert share.max() < 1 + 1e-3
        assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert numpy.corrcoef(*shares)[0, 1] == pytest.approx(0, abs=0.06)


def test_crops_that_do_not_fit_are_clipped_to_the_image():
    found = crops(augment(ramps(500, 32, 32), only(crop_scale=(0.9, 1.0), crop_ratio=(0.5, 2.0)), generator()))
    assert found["width"].max() < 32 + 1e-2
    assert (found["width"] > 31.99).float().mean() > 0.2
    assert torch.stack((found["left"], found["top"])).min() > -1e-2


@pytest.mark.parametrize("probability", [0.0, 0.3, 1.0])
def test_flip_mirrors_left_and_right(probability):
    images = noise(600, 3, 9, 9)
    out = augment(images, only(flip=probability), generator())
    plain = images.float() / 255
    same = (out - plain).abs().amax((1, 2, 3)) < 1e-5
    mirrored = (out - plain.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert (same ^ mirrored).all()
    assert mirrored.float().mean() == pytest.approx(probability, abs=0.06)


def middle(*shape) -> torch.Tensor:
    """Images with values far from the clipping of the colour changes."""
    return 90 + noise(*shape) // 6


def strengths(name: str, strength: float) -> Augmentation:
    return only(jitter=1.0, **{"brightness": 0.0, "contrast": 0.0, "saturation": 0.0, "hue": 0.0} | {name: strength})


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_of_single_colour_changes(name):
    images = middle(400, 3, 8, 8)
    x = images.float() / 255
    out = augment(images, strengths(name, 0.3), generator())
    base = {"brightness": torch.zeros_like(x), "contrast": luma(x).mean((2, 3), keepdim=True), "saturation": luma(x)}[name]
    direction = x - base  # out = base + factor (x - base)
    factor = ((out - base) * direction).sum((1, 2, 3)) / direction.square().sum((1, 2, 3))
    assert torch.allclose(out, base + factor[:, None, None, None] * direction, atol=1e-5)
    assert factor.min() > 0.7 - 1e-4
    assert factor.max() < 1.3 + 1e-4
    assert factor.mean() == pytest.approx(1, abs=0.03)
    assert factor.std() == pytest.approx(0.6 / 12**0.5, rel=0.1)


def test_hue_keeps_gray_and_luma_and_turns_the_colour():
    angles = torch.linspace(-math.pi, math.pi, 9)
    matrices = turn_hue(angles)
    assert torch.allclose(matrices @ torch.ones(3), torch.ones(9, 3), atol=1e-5)
    assert torch.allclose(LUMA @ matrices, LUMA.expand(9, 3), atol=1e-5)
    assert torch.allclose(turn_hue(angles) @ turn_hue(angles.flip(0)), torch.eye(3).expand(9, 3, 3), atol=1e-5)
    colour = torch.tensor([0.7, 0.4, 0.3])
    gray = (LUMA * colour).sum()
    assert torch.allclose(turn_hue(torch.tensor([math.pi]))[0] @ colour, 2 * gray - colour, atol=1e-5)  # the complement
    for angle in (0.3, -1.2):
        y, i, q = colorsys.rgb_to_yiq(*colour.tolist())
        cos, sin = math.cos(angle), math.sin(angle)
        expected = colorsys.yiq_to_rgb(y, cos * i - sin * q, sin * i + cos * q)
        assert (turn_hue(torch.tensor([angle]))[0] @ colour).tolist() == pytest.approx(expected, abs=0.01)


def test_all_colour_changes_are_those_of_a_slow_loop():
    images, numbers = noise(6, 3, 5, 5), draw(6, generator())
    strength = {"brightness": 0.5, "contrast": 0.4, "saturation": 0.3, "hue": 0.2}
    out = module.augment(images, only(jitter=1.0, **strength), numbers)
    drawn, middles = Numbers(*numbers.double().numpy()), {"hue": 0}
    brightness, contrast, saturation, hue = (
        between(getattr(drawn, name), middles.get(name, 1) - value, middles.get(name, 1) + value)
        for name, value in strength.items()
    )
    luma64 = LUMA.double().numpy()
    for row in range(6):
        x = brightness[row] * images[row].double().numpy() / 255
        mean = numpy.mean([luma64 @ x[:, i, j] for i in range(5) for j in range(5)])
        x = contrast[row] * x + (1 - contrast[row]) * mean
        for i in range(5):
            for j in range(5):
                pixel = saturation[row] * x[:, i, j] + (1 - saturation[row]) * (luma64 @ x[:, i, j])
                turned = turn_hue(torch.tensor([hue[row] * 2 * math.pi]))[0].double().numpy() @ pixel
                assert numpy.abs(out[row, :, i, j].numpy() - turned.clip(0, 1)).max() < 1e-5


@pytest.mark.parametrize("probability", [0.0, 0.4, 1.0])
def test_jitter_and_grayscale_happen_as_often_as_asked(probability):
    images = noise(800, 3, 6, 6)
    plain = images.float() / 255
    jittered = (augment(images, only(jitter=probability), generator()) - plain).abs().amax((1, 2, 3)) > 1e-4
    assert jittered.float().mean() == pytest.approx(probability, abs=0.06)
    out = augment(images, only(grayscale=probability), generator())
    gray = (out - luma(plain)).abs().amax((1, 2, 3)) < 1e-5
    same = (out - plain).abs().amax((1, 2, 3)) < 1e-5
    assert (gray ^ same).all()
    assert gray.float().mean() == pytest.approx(probability, abs=0.06)


def test_gray_of_jittered_images_is_gray():
    out = augment(noise(50, 3, 6, 6), only(jitter=1.0, grayscale=1.0, hue=0.5), generator())
    assert (out.amax(1) - out.amin(1)).max() < 1e-5


def slow_blur(image: numpy.ndarray, sigma: float) -> numpy.ndarray:
    lines, columns = image.shape
    out = numpy.zeros_like(image)
    for i in range(lines):
        for j in range(columns):
            total = 0.0
            for y in range(lines):
                for x in range(columns):
                    weight = math.exp(-((y - i) ** 2 + (x - j) ** 2) / (2 * sigma**2))
                    out[i, j] += weight * image[y, x]
                    total += weight
            out[i, j] /= total
    return out


def test_blur_is_that_of_a_slow_loop():
    images = noise(4, 3, 7, 10).float() / 255
    sigma = torch.tensor([0.1, 0.5, 1.0, 2.0])
    out = gaussian_blur(images, sigma)
    for row in range(4):
        for channel in range(3):
            expected = slow_blur(images[row, channel].double().numpy(), float(sigma[row]))
            assert numpy.abs(out[row, channel].numpy() - expected).max() < 1e-5
    assert torch.allclose(out[0], images[0], atol=1e-6)


def test_what_happens_to_an_image_is_decided_by_its_own_numbers_alone():
    """Also where a blur or solarise is computed for all images and kept for some."""
    options = Augmentation(size=11, blur=0.5, solarise=0.5)
    images, numbers = noise(20, 3, 16, 16), draw(20, generator())
    together = module.augment(images, options, numbers)
    for row in range(20):
        alone = module.augment(images[row : row + 1], options, numbers[:, row : row + 1])
        torch.testing.assert_close(alone[0], together[row], rtol=1e-5, atol=1e-5)


def test_all_random_numbers_of_a_view_are_one_draw():
    drawn = draw(9, generator(3))
    assert torch.equal(drawn, torch.rand(14, 9, generator=generator(3)))
    assert len(Numbers(*drawn)) == 14


def test_blur_and_solarise_touch_only_the_images_they_chose():
    images = noise(300, 3, 8, 8)
    plain = images.float() / 255
    blurred = augment(images, only(blur=0.3, blur_sigma=(1.0, 2.0)), generator())
    touched = (blurred - plain).abs().amax((1, 2, 3)) > 1e-3
    assert touched.float().mean() == pytest.approx(0.3, abs=0.08)
    assert torch.allclose(blurred[~touched], plain[~touched], atol=1e-6)
    solarised = augment(images, only(solarise=1.0), generator())
    assert torch.allclose(solarised, torch.where(plain >= 0.5, 1 - plain, plain), atol=1e-6)


@pytest.mark.parametrize("side", [8, 32, 45])
def test_to_float_resizes_only_what_differs(side):
    images = noise(3, 3, 32, 32)
    out = to_float(images, side)
    assert out.shape == (3, 3, side, side)
    assert ((out >= 0) & (out <= 1)).all()
    if side == 32:
        assert torch.equal(out, images.float() / 255)
    assert torch.allclose(to_float(torch.full((1, 3, 20, 30), 51, dtype=torch.uint8), side), torch.tensor(0.2), atol=1e-6)
    assert out.mean() == pytest.approx(float(images.float().mean()) / 255, abs=0.02)


def test_to_float_is_antialiased():
    stripes = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    stripes[..., ::2] = 255
    assert (to_float(stripes, 8)[..., 1:-1] - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", -1),
        *[(name, value) for name in ("flip", "jitter", "grayscale", "blur", "solarise") for value in (-0.1, 1.1)],
        *[(name, value) for name in ("brightness", "contrast", "saturation") for value in (-0.1, 1.1, float("nan"))],
        *[("hue", value) for value in (-0.1, 0.6)],
        *[("crop_scale", value) for value in ((0.0, 1.0), (0.5, 0.4), (0.5, 1.1))],
        *[("crop_ratio", value) for value in ((0.0, 1.0), (2.0, 1.0), (1.0, math.inf))],
        *[("blur_sigma", value) for value in ((0.0, 1.0), (2.0, 1.0), (-1.0, 1.0))],
    ],
)
def test_options_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=rf"augmentation\.{name}="):
        Augmentation(**{name: value})
