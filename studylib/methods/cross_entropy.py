"""SL and SL-MLP: cross entropy on a linear classifier, without or with an MLP projector before it.

    f = encoder(x),  g = projector(f)  (SL: g = f),  logits = W_c g + b_c,  loss = CE(softmax(logits), y)

Source: arXiv 2112.00496, papers/README.md 2.1. No l2-normalisation and no temperature. At transfer the projector and the
classifier are dropped. Several crops of an image (ours, to separate multi-crop from the rest of t-ReX) are all classified.
"""

from torch import Tensor, nn
from torch.nn import functional

from studylib.config import RunConfig
from studylib.methods.batch import Batch
from studylib.methods.method import Method


class CrossEntropy(Method):
    """``sl`` (no projector) and ``sl_mlp``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes``: C; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        self.classifier = nn.Linear(self.outputs, classes)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy of all views, and the share of them (%) whose class the classifier finds."""
        logits = self.classifier(self.project(batch.views))
        labels = batch.labels.repeat(len(batch.views))
        loss = functional.cross_entropy(logits, labels, label_smoothing=self.config.cross_entropy.label_smoothing)
        return loss, {"train_top1": 100 * (logits.argmax(1) == labels).float().mean()}
