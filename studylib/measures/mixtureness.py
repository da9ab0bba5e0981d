"""Feature mixtureness Π: how much the classes of two data sets lie among each other in feature space (SL-MLP)."""

import torch
from torch import Tensor

from studylib.errors import InputError

NEIGHBOURS = 5  # ours: the paper's k is unknown; small enough for evaluation sets of six classes


def mixtureness(pre_centres: Tensor, eval_centres: Tensor, *, k: int = NEIGHBOURS) -> float:
    """Π in [0, 1] of class centres of the pre-training set (P, d) and of the evaluation set (E, d); 1 is fully mixed:

        Π = 1 - 1/E Σ_i | r_i - E / (P + E) |,  r_i: share of evaluation centres among the k centres nearest to eval centre i

    Distances are Euclidean; a centre is not its own neighbour (so r_i of randomly mixed centres is (E-1) / (P+E-1) in
    the mean, slightly below the formula's share); of equally near centres those of the pre-training set, then those of
    lower class number, come first.

    Source: a recollection of SL-MLP (papers.md 2.3); k is unknown there.

    Raises:
        InputError: k is not in 1 ... P + E - 1, or the centres do not match.
    """
    if pre_centres.ndim != 2 or eval_centres.ndim != 2 or pre_centres.shape[1] != eval_centres.shape[1]:
        raise InputError("eval_centres", (*eval_centres.shape,), f"must be (E, d) as pre_centres is {(*pre_centres.shape,)}")
    if 0 in (len(pre_centres), len(eval_centres)):
        raise InputError("eval_centres", len(eval_centres), f"and {len(pre_centres)} pre_centres; both need one or more")
    pre, total = len(pre_centres), len(pre_centres) + len(eval_centres)
    if not 1 <= k < total:
        raise InputError("k", k, f"must be between 1 and {total - 1}, the number of other centres")
    own = eval_centres.double()
    distance = torch.cdist(own, torch.cat((pre_centres.double(), own)), compute_mode="donot_use_mm_for_euclid_dist")
    distance[:, pre:].fill_diagonal_(torch.inf)
    nearest = distance.argsort(dim=1, stable=True)[:, :k]
    share = (nearest >= pre).double().mean(1)
    return 1 - float((share - len(own) / total).abs().mean())
