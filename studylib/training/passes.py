"""How much goes through a method's encoders, so that methods can be compared at equal compute."""

import torch
from torch import Tensor, nn

from studylib.models import Encoder


class EncoderPasses:
    """Counts what passes through a method's encoders, with gradient and without, in pixels."""

    def __init__(self, method: nn.Module):
        self.reset()
        for module in method.modules():
            if isinstance(module, Encoder):
                module.register_forward_pre_hook(self._count)

    def reset(self) -> None:
        self.pixels = {True: 0, False: 0}

    def _count(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        images = inputs[0]
        self.pixels[torch.is_grad_enabled()] += len(images) * images.shape[-1] * images.shape[-2]

    def per_image(self, pixels: Tensor, count: int) -> dict[str, float]:
        """Passes of a whole image (its size that of ``pixels``) for each of ``count`` training images since the reset."""
        whole = max(count, 1) * pixels.shape[-1] * pixels.shape[-2]
        return {"passes": self.pixels[True] / whole, "passes_without_gradient": self.pixels[False] / whole}
