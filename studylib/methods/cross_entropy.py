"""SL and SL-MLP: cross entropy on a linear classifier, without or with an MLP projector before it.

    f = encoder(x),  g = projector(f)  (SL: g = f),  logits = W_c g + b_c,  loss = CE(softmax(logits), y)

Source: arXiv 2112.00496, papers.md 2.1. No l2-normalisation and no temperature. At transfer the projector and the
classifier are dropped.
"""

from torch import Tensor, nn
from torch.nn import functional

from studylib.config import RunConfig
from studylib.data.augment import Augmentation
from studylib.methods.batch import Batch
from studylib.models.encoder import Encoder, Normalise
from studylib.models.projector import Projector


class CrossEntropy(nn.Module):
    """``sl`` (no projector) and ``sl_mlp``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes``: C; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__()
        self.normalise = Normalise(mean, std)
        self.encoder = Encoder(config.encoder)
        self.projector = Projector(config.projector, self.encoder.features) if config.projector.exists else None
        self.classifier = nn.Linear(self.projector.outputs if self.projector else self.encoder.features, classes)
        self.label_smoothing = config.cross_entropy.label_smoothing
        self.augmentation = config.augmentation

    @property
    def views(self) -> list[Augmentation]:
        """One augmented view of each image."""
        return [self.augmentation]

    def layers(self, images: Tensor) -> dict[str, Tensor]:
        """Features of images (B, 3, H, W) in [0, 1]: ``stage1`` to ``stage5``, then those of the projector."""
        named = self.encoder.stages(self.normalise(images))
        return named | (self.projector.layers(named["stage5"]) if self.projector else {})

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy of the batch, and the share of images (%) whose class the classifier finds."""
        features = self.encoder(self.normalise(batch.views[0]))
        logits = self.classifier(self.projector(features) if self.projector else features)
        loss = functional.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        return loss, {"train_top1": 100 * (logits.argmax(1) == batch.labels).float().mean()}

    def after_step(self) -> None:
        """Nothing: no memory and no second encoder."""
