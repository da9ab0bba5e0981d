"""The detector: Faster R-CNN with a feature pyramid on the residual stages of an encoder, by torchvision.

SL-MLP's own is Mask R-CNN R50-FPN in Detectron2 on COCO, its schedule unknown (papers/README.md 2.6); this is that without
masks.
"""

from dataclasses import dataclass

from torch import nn

from studylib.errors import InputError, require
from studylib.models.encoder import Encoder

LEVELS = ("layer1", "layer2", "layer3", "layer4")
RATIOS = (0.5, 1.0, 2.0)  # height to width of anchors; Faster R-CNN's
LONG_SIDE = 1333 / 800  # largest long side for a short side of 1; Detectron2's
CANONICAL = 224  # side in pixels of a region that is pooled from the third level; each halving goes one level finer
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4  # of SGD; Detectron2's
REGION = 7  # side of a pooled region in cells; Faster R-CNN's


@dataclass(frozen=True, kw_only=True)
class Detection:
    """How the detector is built and trained; the defaults are ours, for scenes of 64 px on a CPU."""

    epochs: int = 10
    batch: int = 8
    lr: float = 0.02
    warmup: int = 50
    """steps over which the rate rises"""
    image_size: int | None = None
    """short side of the images that the detector gets; None: the set's own"""
    anchors: tuple[int, ...] = (10, 14, 20, 28, 40)
    """side of the anchors in pixels of each level: the four residual stages, finest first, and one at half the last"""
    channels: int = 64
    """of the pyramid"""
    hidden: int = 128
    """width of the head's two layers"""
    proposals: int = 50
    """regions of an image that the first stage hands on, of twice as many of each level"""
    regions: int = 32
    """of them that the second stage is trained on, a quarter with an object"""
    frozen_stages: int = 0
    """stages of the encoder that are not trained: 1 the stem, 2 the first residual stage as well, ..."""
    seed: int = 0

    def __post_init__(self) -> None:
        for field in ("epochs", "batch", "channels", "hidden", "proposals", "regions"):
            require(f"detection.{field}", getattr(self, field), getattr(self, field) >= 1, "must be at least 1")
        for field in ("warmup", "seed"):
            require(f"detection.{field}", getattr(self, field), getattr(self, field) >= 0, "must not be negative")
        require("detection.lr", self.lr, self.lr > 0, "must be positive")
        if self.image_size is not None and self.image_size < 32:
            raise InputError("detection.image_size", self.image_size, "must be at least 32 pixels, or None for the set's own")
        if len(self.anchors) != len(LEVELS) + 1 or min(self.anchors) < 1:
            raise InputError(
                "detection.anchors", self.anchors, f"must be {len(LEVELS) + 1} sides in pixels, one for each level"
            )
        if not 0 <= self.frozen_stages <= len(LEVELS) + 1:
            raise InputError("detection.frozen_stages", self.frozen_stages, f"must be in 0 … {len(LEVELS) + 1}")

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        return (
            f"detection: Faster R-CNN, FPN of {self.channels} channels, anchors {'/'.join(map(str, self.anchors))} px, images "
            f"{f'resized to {self.image_size} px' if self.image_size else 'as they are'}, "
            f"{f'{self.frozen_stages} stages frozen' if self.frozen_stages else 'whole network'} fine-tuned "
            f"(batch norm frozen), SGD lr {self.lr:g}, "
            f"momentum {MOMENTUM:g}, weight decay {WEIGHT_DECAY:g}, batch {self.batch}, {self.epochs} epochs "
            f"(rate ×0.1 at 2/3 and 8/9, {self.warmup} steps of warm-up), seed {self.seed}; COCO's AP"
        )


COCO_1X = Detection(
    epochs=12, batch=16, image_size=800, warmup=1000, anchors=(32, 64, 128, 256, 512), channels=256, hidden=1024,
    proposals=1000, regions=512, frozen_stages=2,
)  # fmt: skip
"""Detectron2's 1x schedule (90,000 steps of 16 images are 12 epochs), R50-FPN; SL-MLP's own is unknown."""


def detector(
    encoder: Encoder, mean: list[float], std: list[float], num_classes: int, size: int, protocol: Detection
) -> nn.Module:
    """torchvision's ``FasterRCNN`` on ``encoder``, which becomes a part of it; class 0 is the background."""
    from torchvision.models.detection import FasterRCNN  # torchvision imports slowly, and only networks need it
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.ops import MultiScaleRoIAlign

    stages = [[encoder.conv1, encoder.bn1], *([getattr(encoder, name)] for name in LEVELS)]
    for module in (module for stage in stages[: protocol.frozen_stages] for module in stage):
        module.requires_grad_(False)
    freeze_batch_norm(encoder)
    widths = [encoder.features // 2**halvings for halvings in (3, 2, 1, 0)]
    names = {name: str(index) for index, name in enumerate(LEVELS)}
    side = protocol.image_size or size
    return FasterRCNN(
        BackboneWithFPN(encoder, names, widths, protocol.channels),
        min_size=side,
        max_size=round(side * LONG_SIDE),
        image_mean=mean,
        image_std=std,
        rpn_anchor_generator=AnchorGenerator(tuple((side,) for side in protocol.anchors), (RATIOS,) * len(protocol.anchors)),
        rpn_pre_nms_top_n_train=2 * protocol.proposals,
        rpn_pre_nms_top_n_test=2 * protocol.proposals,
        rpn_post_nms_top_n_train=protocol.proposals,
        rpn_post_nms_top_n_test=protocol.proposals,
        box_roi_pool=MultiScaleRoIAlign(list(names.values()), REGION, 2, canonical_scale=CANONICAL),
        box_head=TwoMLPHead(protocol.channels * REGION**2, protocol.hidden),
        box_predictor=FastRCNNPredictor(protocol.hidden, num_classes + 1),
        box_batch_size_per_image=protocol.regions,
    )


def freeze_batch_norm(module: nn.Module) -> None:
    """Replace every batch norm inside ``module`` by its inference, without trained parameters, as usual in detection."""
    from torchvision.ops import FrozenBatchNorm2d

    for name, child in module.named_children():
        if isinstance(child, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(child.num_features, child.eps)
            frozen.load_state_dict(child.state_dict())
            setattr(module, name, frozen)
        else:
            freeze_batch_norm(child)
