"""Feature mixtureness Π: how much the classes of two data sets lie among each other in feature space (SL-MLP)."""

import torch
from torch import Tensor

from studylib.errors import InputError

NEIGHBOURS = 5  # ours: the paper's k is unknown; small enough for evaluation sets of six classes
BLOCK = 256  # rows whose distances to all others are in memory at a time


def mixtureness(pre_centres: Tensor, eval_centres: Tensor, *, k: int = NEIGHBOURS) -> float:
    """Π in [0, 1] of class centres of the pre-training set (P, d) and of the evaluation set (E, d); 1 is fully mixed:

        Π = 1 - 1/E Σ_i | r_i - E / (P + E) |,  r_i: share of evaluation centres among the k centres nearest to eval centre i

    Distances are Euclidean; a centre is not its own neighbour (so r_i of randomly mixed centres is (E-1) / (P+E-1) in
    the mean, slightly below the formula's share); of equally near centres those of the pre-training set, then those of
    lower class number, come first.

    Source: a recollection of SL-MLP (papers/README.md 2.3), where k is unknown: `studylib.evaluation.measure` sweeps it.

    Raises:
        InputError: k is not in 1 ... P + E - 1, or the centres do not match.
    """
    if pre_centres.ndim != 2 or eval_centres.ndim != 2 or pre_centres.shape[1] != eval_centres.shape[1]:
        raise InputError("eval_centres", (*eval_centres.shape,), f"must be (E, d) as pre_centres is {(*pre_centres.shape,)}")
    if 0 in (len(pre_centres), len(eval_centres)):
        raise InputError("eval_centres", len(eval_centres), f"and {len(pre_centres)} pre_centres; both need one or more")
    points, shares = torch.cat((pre_centres, eval_centres)).double(), []
    if not 1 <= k < len(points):
        raise InputError("k", k, f"must be between 1 and {len(points) - 1}, the number of other centres")
    for start in range(0, len(eval_centres), BLOCK):
        centres = eval_centres[start : start + BLOCK].double()
        distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
        distance[:, len(pre_centres) + start :].fill_diagonal_(torch.inf)
        nearest = distance.argsort(dim=1, stable=True)[:, :k]
        shares.append((nearest >= len(pre_centres)).double().mean(1))
    return 1 - float((torch.cat(shares) - len(eval_centres) / len(points)).abs().mean())
