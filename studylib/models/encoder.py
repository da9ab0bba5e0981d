"""ResNets whose five stages can be read, from 16 channels at 32 px to torchvision's ResNet-50 at 224 px.

The blocks are torchvision's and so are the parameter names: with ``width=64, stem="conv7"`` the state dict of
``resnet18`` or ``resnet50`` without ``fc`` loads as it is.
"""

import torch
from torch import Tensor, nn

from studylib import config

STAGES = ("stage1", "stage2", "stage3", "stage4", "stage5")
BLOCKS = {
    "resnet10": ("BasicBlock", (1, 1, 1, 1)),
    "resnet18": ("BasicBlock", (2, 2, 2, 2)),
    "resnet34": ("BasicBlock", (3, 4, 6, 3)),
    "resnet50": ("Bottleneck", (3, 4, 6, 3)),
    "resnet101": ("Bottleneck", (3, 4, 23, 3)),
}
"""name of torchvision's block, and how many there are in each residual stage"""


class Encoder(nn.Module):
    """f: images (B, 3, H, W) -> features (B, d), globally average pooled.

    Stage 1 is the stem, stages 2 to 5 are the residual stages, as in SL-MLP's stage-wise figure (papers/README.md 2.4).
    """

    def __init__(self, settings: config.Encoder):
        from torchvision.models import resnet  # imports slowly, and only networks need it

        super().__init__()
        name, counts = BLOCKS[settings.arch]
        block = getattr(resnet, name)
        width = settings.width
        kernel, stride = {"conv7": (7, 2), "conv3": (3, 1), "conv3s2": (3, 2)}[settings.stem]
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if settings.stem == "conv7" else nn.Identity()
        channels = width
        for stage, count in enumerate(counts):
            planes, blocks = width * 2**stage, []
            for index in range(count):
                stride = 2 if stage > 0 and index == 0 else 1
                shortcut = None
                if stride != 1 or channels != planes * block.expansion:
                    shortcut = nn.Sequential(
                        nn.Conv2d(channels, planes * block.expansion, 1, stride, bias=False),
                        nn.BatchNorm2d(planes * block.expansion),
                    )
                blocks.append(block(channels, planes, stride, shortcut))
                channels = planes * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.features = channels
        """d, the width of the encoder's output"""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):  # torchvision's start
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.memory_format = torch.contiguous_format if any(map(unsafe, self.modules())) else torch.channels_last
        """of weights and images: that in which convolutions are fastest, if it is safe"""
        self.to(memory_format=self.memory_format)

    def stages(self, images: Tensor) -> dict[str, Tensor]:
        """Pooled output of every stage, ``stage1`` (B, d1) to ``stage5`` (B, d)."""
        images = images.contiguous(memory_format=self.memory_format)
        maps = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        pooled = {"stage1": maps.mean((2, 3))}
        for stage in range(1, 5):
            maps = getattr(self, f"layer{stage}")(maps)
            pooled[f"stage{stage + 1}"] = maps.mean((2, 3))
        return pooled

    def forward(self, images: Tensor) -> Tensor:
        return self.stages(images)["stage5"]


def unsafe(module: nn.Module) -> bool:
    """Whether a convolution must not be in channels_last: oneDNN's AVX2 kernels write out of bounds in its backward pass.

    That of a 1x1 convolution of stride above 1 and 2 to 7 input channels, on CPUs without AVX-512 (seen with torch 2.15);
    the process then dies of a double free or a segmentation fault.
    """
    return (
        isinstance(module, nn.Conv2d)
        and module.kernel_size == (1, 1)
        and module.stride != (1, 1)
        and 2 <= module.in_channels // module.groups <= 7
    )


class Normalise(nn.Module):
    """(images - mean) / std per channel; the constants are those of the pre-training images and travel with the weights."""

    def __init__(self, mean: Tensor, std: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.reshape(1, 3, 1, 1).clone())
        self.register_buffer("std", std.reshape(1, 3, 1, 1).clone())

    def forward(self, images: Tensor) -> Tensor:
        return torch.div(images - self.mean, self.std)
