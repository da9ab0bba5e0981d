"""BYOL: predict what the moving average makes of the other view; no negatives.

    L = (1/B) Σ_i [ 2 - 2 cos(q(z_i), z'_i) ] + the same with the views exchanged

z: projections of one view, q: predictor, z': the moving average's projections of the other, without gradient. Source:
Grill et al. 2020; the momentum rises to 1 along a cosine with ``ema.ramp``. Deviation: both views pass each network
together, so that batch norm normalises them together.
"""

from torch import Tensor, nn
from torch.nn import functional

from studylib.config import RunConfig
from studylib.methods.batch import Batch
from studylib.methods.ema import Average
from studylib.methods.method import Method
from studylib.precision import full


class Byol(Method):
    """``byol``."""

    def __init__(self, config: RunConfig, classes: int, mean: Tensor, std: Tensor):
        """``classes`` is not needed; ``mean``, ``std`` (3,) of the training images in [0, 1]."""
        super().__init__(config, mean, std)
        width = config.byol.width
        self.predictor = nn.Sequential(
            nn.Linear(self.outputs, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, self.outputs)
        )
        self.average = Average(self, config.ema)

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of both directions, in [0, 8], and the standard deviation of the predictions' unit vectors (0: collapsed)."""
        predicted = self.predictor(self.project(batch.views))
        targets = self.average.project(batch.views[::-1])
        loss = 2 * (2 - 2 * functional.cosine_similarity(full(predicted), full(targets), dim=1)).mean()
        return loss, {"spread": functional.normalize(full(predicted.detach()), dim=1).std(0).mean()}

    def after_step(self, batch: Batch) -> None:
        """The average follows."""
        self.average.update(self, self.average.momentum(batch.progress))
