"""t-ReX: every crop of an image is classified by cosine similarity to one vector per class.

    l_c = z · w_c / τ,  z = g / |g|,  g = projector(encoder(crop)),  L = mean over all crops of CE(softmax(l), y)

``trex_plain`` (paper's Eq. 1): w_c = W_c / |W_c|, learned. ``trex`` and ``trex_star`` (Eq. 2, OCM): w_c = u_c / |u_c| with
u_c = Σ of the bank's keys of class c, without gradient; the keys are the *un-normalised* outputs of the moving average on
the global crop. A class that is absent from the bank has w_c = 0 and logit 0. Source: arXiv 2206.15369, papers/README.md 3.1.

Order, that of the official code (papers/README.md 3.1): loss with the bank as it is, the average follows, its keys enter the
bank, optimiser's step.
"""

from torch import Tensor, nn
from torch.nn import functional

from studylib.config import RunConfig
from studylib.methods.bank import Bank
from studylib.methods.batch import Batch
from studylib.methods.ema import Average
from studylib.methods.method import Method, similarities

HEAD_STD = 0.02  # of the truncated normal from which the head's linear layers start; code:trex.py


class TRex(Method):
    """``trex`` and ``trex_star`` (projectors of three and one hidden layers, other crop scales) and ``trex_plain``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes``: C; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        self.classes = classes
        for module in self.projector.modules() if self.projector else ():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=HEAD_STD)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        self.weight = self.average = self.bank = None
        if config.method == "trex_plain":
            self.weight = nn.Linear(self.outputs, classes, bias=False).weight
            if std := config.trex_plain.weight_std:
                nn.init.trunc_normal_(self.weight, std=std)
        else:
            self.average = Average(self, config.ema)
            self.bank = Bank(config.bank, self.outputs, classes)

    def class_vectors(self) -> Tensor:
        """W or u (C, p), not normalised."""
        return self.bank.prototypes(self.classes) if self.weight is None else self.weight

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Mean cross entropy of all crops, and the share of them (%) whose class is the nearest."""
        logits = similarities(self.project(batch.views), self.class_vectors()) / self.config.temperature
        labels = batch.labels.repeat(len(batch.views))
        return functional.cross_entropy(logits, labels), {"train_top1": 100 * (logits.argmax(1) == labels).float().mean()}

    def before_step(self, batch: Batch) -> None:
        """The average follows, and its outputs on the first global crop enter the bank."""
        if self.bank is not None:
            self.average.update(self, self.average.momentum(batch.progress))
            self.bank.push(self.average.project(batch.views[:1]), batch.labels, batch.ids)
