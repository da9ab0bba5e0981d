"""Feature mixtureness Π: how much the classes of two data sets lie among each other in feature space (SL-MLP)."""

import torch
from torch import Tensor

from studylib.errors import InputError

NEIGHBOURS = 5  # ours: the paper's k is unknown; small enough for evaluation sets of six classes
BLOCK = 256  # rows whose distances to all others are in memory at a time


def mixtureness(
    pre_centres: Tensor, eval_centres: Tensor, *, k: int = NEIGHBOURS, among: tuple[Tensor, Tensor] | None = None
) -> float:
    """Π in [0, 1] of class centres of the pre-training set (P, d) and of the evaluation set (E, d); 1 is fully mixed:

        Π = 1 - 1/E Σ_i | r_i - E / (P + E) |,  r_i: share of evaluation centres among the k centres nearest to eval centre i

    Distances are Euclidean; a centre is not its own neighbour (so r_i of randomly mixed centres is (E-1) / (P+E-1) in
    the mean, slightly below the formula's share); of equally near centres those of the pre-training set, then those of
    lower class number, come first.

    ``among``: single features of the pre-training set (N, d) and of the evaluation set (M, d), among which the neighbours of
    the evaluation centres are then looked for instead (``pre_centres`` do not count):

        Π = 1 - 1/E Σ_i | r_i - M / (N + M) |,  r_i: share of evaluation features among the k features nearest to eval centre i

    Single features on both sides: give them in place of the centres.

    Source: a recollection of SL-MLP (papers.md 2.3), where k is unknown; neighbours among single features are ours.

    Raises:
        InputError: k is not in 1 ... P + E - 1 (1 ... N + M), or the centres or features do not match.
    """
    if pre_centres.ndim != 2 or eval_centres.ndim != 2 or pre_centres.shape[1] != eval_centres.shape[1]:
        raise InputError("eval_centres", (*eval_centres.shape,), f"must be (E, d) as pre_centres is {(*pre_centres.shape,)}")
    if 0 in (len(pre_centres), len(eval_centres)):
        raise InputError("eval_centres", len(eval_centres), f"and {len(pre_centres)} pre_centres; both need one or more")
    pre, own = among or (pre_centres, eval_centres)
    shapes, width = [(*values.shape,) for values in (pre, own)], eval_centres.shape[1]
    if any(shape[1:] != (width,) or shape[0] == 0 for shape in shapes):
        raise InputError("among", shapes, f"must be (N, {width}) and (M, {width})")
    most, what = (sum(map(len, among)), "features") if among else (len(pre) + len(own) - 1, "other centres")
    if not 1 <= k <= most:
        raise InputError("k", k, f"must be between 1 and {most}, the number of {what}")
    points, shares = torch.cat((pre, own)).double(), []
    for start in range(0, len(eval_centres), BLOCK):
        centres = eval_centres[start : start + BLOCK].double()
        distance = torch.cdist(centres, points, compute_mode="donot_use_mm_for_euclid_dist")
        if among is None:
            distance[:, len(pre) + start :].fill_diagonal_(torch.inf)
        nearest = distance.argsort(dim=1, stable=True)[:, :k]
        shares.append((nearest >= len(pre)).double().mean(1))
    return 1 - float((torch.cat(shares) - len(own) / len(points)).abs().mean())
