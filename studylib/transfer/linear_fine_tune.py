"""Cross-entropy fine-tuning with a linear layer, on the budget of memory fine-tuning, whose rival it is (claim L5).

    L = (1/B) Σ_i CE(W BN(f(x_i)) + b, y_i)

f is frozen (``linear``) or trained along (``encoder``). The head is that of `studylib.transfer.fine_tune`; values are ours.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, nn

from studylib.data import ImageSet
from studylib.errors import choose
from studylib.transfer import descent
from studylib.transfer.fine_tune import fit_classifier
from studylib.transfer.sgd import MOMENTUM


@dataclass(frozen=True, kw_only=True)
class Budget(descent.Settings):
    """Steps, optimiser and choice, the same for both kinds of fine-tuning so that they can be compared; values are ours."""

    trains: ClassVar[tuple[str, ...]]

    what: str = "encoder"
    """what is trained: the encoder, on crops, or what stands on it while it is frozen and gets whole images, once"""
    learning_rates: tuple[float, ...]
    batch: int = 32
    search_epochs: int = 4
    epochs: int = 8

    def __post_init__(self) -> None:
        choose(f"{self.name}.what", self.what, self.trains)
        self.check("batch", self.batch >= 2, "must be at least 2: BatchNorm needs two images")
        super().__post_init__()

    def grid(self) -> list[tuple]:
        return [(lr,) for lr in self.learning_rates]

    def options(self, point: tuple) -> dict[str, Any]:
        return {"lr": point[0], "batch": self.batch, "weight_decay": 0.0}

    def kind(self) -> str:
        """Loss and head, in a few words."""
        raise NotImplementedError

    def describe(self) -> str:
        """The protocol in words, as printed with every table."""
        trained = f"encoder trained along on {descent.describe_crops()}" if self.what == "encoder" else "encoder frozen"
        return (
            f"{self.kind()}, {trained}; SGD (momentum {MOMENTUM:g}, batch {self.batch}, weight decay 0, lr ×0.1 at 1/2 and "
            f"3/4), lr {descent.joined(self.learning_rates)}; {self.describe_tuning()}"
        )


@dataclass(frozen=True, kw_only=True)
class LinearFineTune(Budget):
    """BatchNorm1d(affine=True) + Linear under cross-entropy."""

    name: ClassVar[str] = "linear_fine_tune"
    trains: ClassVar[tuple[str, ...]] = ("encoder", "linear")

    learning_rates: tuple[float, ...] = (0.1, 0.03, 0.01, 0.003)

    def kind(self) -> str:
        return "cross-entropy fine-tuning: BatchNorm + linear layer"


def linear_fine_tune_accuracy(
    network: nn.Module, images: ImageSet, protocol: LinearFineTune, *, features: Tensor | None = None
) -> descent.Result:
    """Test accuracy of the linear layer with the best held-out learning rate, fitted to all training images.

    The test images are used once, after the choice. Arguments and errors are those of `studylib.transfer.descent.carry_out`.
    """
    _, fields = descent.carry_out(
        network, images, protocol, fit_classifier, head=lambda width: nn.Identity(), features=features
    )
    return descent.Result(**fields)
