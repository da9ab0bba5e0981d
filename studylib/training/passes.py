"""How much goes through a method's encoders, so that methods can be compared at equal compute."""

from types import TracebackType

import torch
from torch import Tensor, nn

from studylib.models import Encoder

NAMES = {True: "passes", False: "passes_without_gradient"}


class EncoderPasses:
    """Counts, while one step is taken, what passes through a method's encoders with gradient and without.

    Every step of a run makes as many passes. At the end of the block ``counted`` has ``passes`` and
    ``passes_without_gradient``: passes of a whole image, of sides ``size``, for each of the ``count`` images of the step.
    """

    def __init__(self, method: nn.Module, counted: dict[str, float], size: tuple[int, int], count: int):
        self.encoders = [module for module in method.modules() if isinstance(module, Encoder)]
        self.counted, self.whole = counted, count * size[0] * size[1]

    def __enter__(self) -> None:
        self.counted |= dict.fromkeys(NAMES.values(), 0.0)
        self.hooks = [encoder.register_forward_pre_hook(self._count) for encoder in self.encoders]

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for hook in self.hooks:
            hook.remove()

    def _count(self, _: nn.Module, inputs: tuple[Tensor]) -> None:
        images = inputs[0]
        passes = len(images) * images.shape[-1] * images.shape[-2] / self.whole
        self.counted[NAMES[torch.is_grad_enabled()]] += passes
