"""Linear heads trained by SGD with momentum on frozen features; heads that share their batches are trained at once."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

MOMENTUM = 0.9  # of SGD in t-ReX's and transfer_broad's protocols (papers/README.md 2.6, 3.3)
BN_MOMENTUM, BN_EPS = 0.1, 1e-5  # of BatchNorm, PyTorch's


@dataclass(frozen=True)
class Heads:
    """K linear classifiers of features (N, d), behind one batch normalisation without affine if ``mean`` is given."""

    weights: Tensor
    """(d, K, M) for M classes"""
    bias: Tensor
    """(K, M)"""
    classes: Tensor
    """(M,), those that had a training image; no other is ever predicted (ours)"""
    mean: Tensor | None
    """(d,) running mean of the batches"""
    variance: Tensor | None
    """(d,) running variance"""

    def predict(self, features: Tensor) -> Tensor:
        """Classes (K, N) of features (N, d)."""
        features = features.to(self.weights)
        if self.mean is not None:
            features = functional.batch_norm(features, self.mean, self.variance, eps=BN_EPS)
        logits = (features @ self.weights.flatten(1)).unflatten(1, self.bias.shape) + self.bias
        return self.classes[logits.argmax(2)].T


def train_heads(
    features: Tensor,
    labels: Tensor,
    learning_rates: Sequence[float],
    weight_decays: Sequence[float],
    *,
    batch: int,
    schedule: Sequence[float],
    seed: int,
    drop_last: bool = False,
    batch_norm: bool = False,
) -> Heads:
    """K heads, the k-th with ``learning_rates[k]`` and ``weight_decays[k]``, after ``len(schedule)`` epochs.

    What PyTorch's SGD (momentum 0.9, weight decay on weights and bias) makes of a Linear layer under cross-entropy, with
    the gradient written out; all heads start at the same weights, uniform within ±1/√d as Linear's, and see the same
    batches. Computed in float32.

    Losses stay finite for features of finite length: gradients of cross-entropy are bounded by it, and so are the weights
    as long as learning rate × weight decay is below 1, which protocols demand.

    Args:
        features: (N, d); labels (N,).
        batch: images in one step; more than there are means all.
        schedule: the learning rate's factor in each epoch.
        seed: of the initial weights and the order of images.
        drop_last: whether to leave out an epoch's last batch if it is not full.
        batch_norm: whether a BatchNorm1d(affine=False) precedes the layers.
    """
    generator = torch.Generator().manual_seed(seed)
    features = features.float()
    classes, targets = labels.to(features.device).unique(return_inverse=True)
    count, width, heads = *features.shape, len(learning_rates)
    batch = min(batch, count)

    def start(*shape: int) -> Tensor:
        return ((2 * torch.rand(*shape, generator=generator) - 1) / width**0.5).to(features.device)

    weights = start(width, 1, len(classes)).repeat(1, heads, 1)
    bias = start(1, len(classes)).repeat(heads, 1)
    rate, decay = (features.new_tensor(values)[:, None] for values in (learning_rates, weight_decays))  # (K, 1)
    velocities = torch.zeros_like(weights), torch.zeros_like(bias)
    mean, variance = (features.new_zeros(width), features.new_ones(width)) if batch_norm else (None, None)
    for factor in schedule:
        order = torch.randperm(count, generator=generator).to(features.device)
        for rows in order[: count // batch * batch if drop_last else count].split(batch):
            x = features[rows]
            if batch_norm:
                x = functional.batch_norm(x, mean, variance, training=True, momentum=BN_MOMENTUM, eps=BN_EPS)
            logits = (x @ weights.flatten(1)).unflatten(1, bias.shape) + bias  # (B, K, M)
            residual = logits.softmax(2)
            residual[torch.arange(len(rows), device=x.device), :, targets[rows]] -= 1
            residual /= len(rows)
            gradients = (x.T @ residual.flatten(1)).view_as(weights), residual.sum(0)
            for parameter, velocity, gradient in zip((weights, bias), velocities, gradients, strict=True):
                velocity.mul_(MOMENTUM).add_(gradient).addcmul_(parameter, decay)
                parameter.addcmul_(velocity, rate, value=-factor)
    return Heads(weights, bias, classes, mean, variance)
