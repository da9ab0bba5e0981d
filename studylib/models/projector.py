"""The expendable MLP between encoder and loss.

SL-MLP: g = W2 ReLU(BN(W1 f + b1)) + b2 (papers/README.md 2.1, structure from a third-party re-implementation; the paper's
widths are unknown and swept here). t-ReX: l2-normalised input, L x [Linear, BN, GELU], Linear without bias (papers/README.md
3.1). Both are settings of one module, and so is every ablation of its parts.
"""

from torch import Tensor, nn
from torch.nn import functional

from studylib import config


def layer_names(settings: config.Projector) -> tuple[str, ...]:
    """Names of a projector's layers, ``projector1``, ``projector2``, ... and ``projector``; none where there is none."""
    hidden = [f"projector{number}" for number in range(1, settings.hidden_layers + 1)]
    return (*hidden, "projector") if settings.exists else ()


class Projector(nn.Module):
    """h: features (B, d) -> (B, p), with every intermediate layer readable.

    A hidden block is [linear] [batch norm] [activation], each of which can be left out; the last linear layer is there
    when ``out`` > 0. ``outputs`` is p.
    """

    def __init__(self, settings: config.Projector, features: int):
        super().__init__()
        self.input_l2 = settings.input_l2
        width = features
        blocks = []
        for _ in range(settings.hidden_layers):
            parts: list[nn.Module] = []
            if settings.linear:
                parts.append(nn.Linear(width, settings.width, bias=settings.bias))
                width = settings.width
            if settings.batch_norm:
                parts.append(nn.BatchNorm1d(width))
            if settings.activation != "none":
                parts.append({"relu": nn.ReLU, "gelu": nn.GELU}[settings.activation]())
            blocks.append(nn.Sequential(*parts))
        self.hidden = nn.ModuleList(blocks)
        self.out = nn.Linear(width, settings.out, bias=settings.out_bias) if settings.out else None
        self.outputs = settings.out or width

    def layers(self, features: Tensor) -> dict[str, Tensor]:
        """``projector1``, ``projector2``, ... after each hidden block, and ``projector`` for the output."""
        values = functional.normalize(features, dim=1) if self.input_l2 else features
        named = {}
        for index, block in enumerate(self.hidden, 1):
            values = named[f"projector{index}"] = block(values)
        if self.out is not None:
            values = self.out(values)
        return named | {"projector": values}

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features)["projector"]
