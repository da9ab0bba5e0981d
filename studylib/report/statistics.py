"""Means with intervals over seeds, paired differences, verdicts, and means over data sets, from the tidy results table."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from studylib.errors import InputError, choose, require
from studylib.report import style

CLIP = 0.05  # ours: accuracies in % enter log-odds within [CLIP, 100 - CLIP], so that 100 % (or 0 %) stays finite

POWER = 0.8  # usual: the probability with which a difference that is there is to be seen

SEEDS = 3  # ours: seeds that a method needs for these to be resampled

FEWEST = 5  # ours: pairs below which a rank correlation gets no interval


def interval(values: Iterable[float], level: float = 0.95) -> tuple[float, float, int]:
    """(mean, half width, n) of Student's t interval at ``level``; missing values (NaN) are left out.

    One value has no interval: its half width is NaN. No value: mean and half width are NaN, n is 0.
    """
    array = np.asarray(list(values), dtype=np.float64)
    array = array[~np.isnan(array)]
    n = len(array)
    if n == 0:
        return math.nan, math.nan, 0
    if n == 1:
        return float(array[0]), math.nan, 1
    half = float(special.stdtrit(n - 1, 0.5 + level / 2)) * array.std(ddof=1) / math.sqrt(n)
    return float(array.mean()), float(half), n


def limits(mean: float, half: float, n: int, measure: str = "") -> tuple[float, float]:
    """(low, high) of the `interval` (mean, half, n) of ``measure``, kept within what the measure can be (`style.bounds`).

    By the delta method around the mean: an interval of the log-odds of a measure with two bounds, of the logarithm of a
    positive one. Ours: two values, whose logarithms would reach over powers of ten, have the plain one, cut at the bounds.
    """
    least, most = style.bounds(measure)
    low, high = max(mean - half, least), min(mean + half, most)
    share = (mean - least) / (most - least) if most < math.inf else math.nan
    if n > 2 and 0 < share < 1:
        centre, reach = special.logit(share), half / (most - least) / (share * (1 - share))
        low, high = (least + (most - least) * float(special.expit(end)) for end in (centre - reach, centre + reach))
    elif n > 2 and least == 0 < mean and most == math.inf:
        low, high = mean * math.exp(-half / mean), mean * math.exp(half / mean)
    return low, high


def select(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows of ``frame`` whose columns have the given values; a list, tuple or set stands for any of its members.

    Nothing that fits is an empty frame, not an error: figures and tables show it as missing.

    Raises:
        InputError: a column does not exist.
    """
    for name, wanted in columns.items():
        choose("column", name, frame.columns)
        wanted = wanted if isinstance(wanted, list | tuple | set) else [wanted]
        frame = frame[frame[name].isin(list(wanted))]
    return frame


def at_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows at the last epoch that any seed of their method and variant reached; seeds that are not there are missing."""
    last = frame.groupby(["method", "variant"], dropna=False)["epoch"].transform("max")
    return frame[(frame["epoch"] == last) | last.isna()]


def refuse_mixture(frame: pd.DataFrame, by: Sequence[str]) -> None:
    """Raise an `InputError` if ``frame`` has several values for one combination of ``by``; says which columns differ."""
    twice = frame[frame.duplicated(list(by), keep=False)]
    if twice.empty:
        return
    first = twice[(twice[list(by)] == twice[list(by)].iloc[0]).all(axis=1)]
    others = [name for name in frame.columns if name not in (*by, "value") and first[name].nunique(dropna=False) > 1]
    values = "; ".join(f"{name}: {', '.join(map(str, first[name].unique()[:4]))}" for name in others)
    where = ", ".join(f"{name}={first[name].iloc[0]}" for name in by)
    raise InputError("rows", where, f"{len(first)} values that would be mixed ({values or 'equal rows'}); select one kind")


def over_seeds(frame: pd.DataFrame, by: Sequence[str], level: float = 0.95) -> pd.DataFrame:
    """One row per combination of ``by``: mean, half_width by `interval`, low and high by `limits`, and n, over seeds, in the
    order of first appearance.

    Raises:
        InputError: a seed has several values in one combination (several epochs, protocols, ...): nothing is averaged silently.
    """
    refuse_mixture(frame, [*by, "seed"])
    rows = []
    for key, part in frame.groupby(list(by), sort=False, dropna=False):
        mean, half, n = interval(part["value"], level)
        low, high = limits(mean, half, n, part["measure"].iloc[0] if "measure" in part else "")
        found = {"mean": mean, "half_width": half, "low": low, "high": high, "n": n}
        rows.append(dict(zip(by, key, strict=True)) | found)
    return pd.DataFrame(rows, columns=[*by, "mean", "half_width", "low", "high", "n"])


def paired_difference(
    frame: pd.DataFrame, measure: str, a: str, b: str, over: str = "seed", *, column: str = "method", level: float = 0.95
) -> tuple[float, float, int]:
    """(mean, half width, n) of the differences ``b`` minus ``a`` of ``measure``, paired by ``over``; Student's t interval.

    What only one of the two has is left out; n counts pairs. ``column`` holds ``a`` and ``b``.

    Raises:
        InputError: several values for one member of a pair.
    """
    rows = select(frame, measure=measure, **{column: [a, b]})
    refuse_mixture(rows, [column, over])
    wide = rows.pivot(index=over, columns=column, values="value").reindex(columns=[a, b])
    return interval(wide[b] - wide[a], level)


def rank_correlation(x: Iterable[float], y: Iterable[float]) -> tuple[float, float, float, int]:
    """(ρ, low, high, n): Spearman's rank correlation of pairs, its 95 % interval, the number of pairs.

    The interval is that of Fisher's z = artanh ρ with the standard error √((1 + ρ² / 2) / (n - 3)) of Bonett and Wright (2000).
    Ours: a perfect ρ is taken half a step of ρ nearer to 0 for it (ρ of n pairs moves in steps of 12 / (n (n² - 1))), as six
    pairs in order do not prove that all are; a bootstrap would give such pairs an interval of no width.

    Pairs with a missing value (NaN) are left out. Fewer than `FEWEST` pairs have no interval; fewer than 3, or a constant
    side, no correlation either (NaN).
    """
    pairs = np.array([(a, b) for a, b in zip(x, y, strict=True) if not (math.isnan(a) or math.isnan(b))]).reshape(-1, 2)
    n = len(pairs)
    if n < 3 or (np.ptp(pairs, axis=0) == 0).any():
        return math.nan, math.nan, math.nan, n
    from scipy import stats  # imports slowly

    rho = float(stats.spearmanr(*pairs.T).statistic)
    if n < FEWEST:
        return rho, math.nan, math.nan, n
    most = 1 - 6 / (n * (n**2 - 1))
    near = min(max(rho, -most), most)
    reach = float(special.ndtri(0.975)) * math.sqrt((1 + near**2 / 2) / (n - 3))
    low, high = math.tanh(math.atanh(near) - reach), math.tanh(math.atanh(near) + reach)
    return rho, min(low, rho), max(high, rho), n


def resampled_correlation(
    x: pd.DataFrame, y: pd.DataFrame, claimed: str, *, draws: int = 4000
) -> tuple[float, float, float, int, float, float]:
    """(ρ, low, high, n, p for, p against): Spearman's rank correlation over methods of their means over seeds.

    ``x`` and ``y`` have a row for each seed and a column for each of n methods. The interval holds 95 % of the ρ of seeds
    drawn with replacement, for each method anew; p is the share of them on the other side of what is ``claimed``. It says how
    far seeds decide the order of these methods, not what other methods would do.

    Methods with fewer than `SEEDS` seeds are left out; fewer than `FEWEST` methods have no interval.
    """
    sign, bound = parsed(claimed)
    pairs = [pd.concat((x[name], y[name]), axis=1, join="inner").dropna() for name in x if name in y]
    runs = [pair.to_numpy().T for pair in pairs if len(pair) >= SEEDS]
    n = len(runs)
    if n < 3:
        return math.nan, math.nan, math.nan, n, math.nan, math.nan

    def correlation(means: np.ndarray) -> np.ndarray:
        ranks = pd.DataFrame(means.reshape(-1, n)).rank(axis=1).to_numpy().reshape(means.shape)
        centred = ranks - ranks.mean(-1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (centred[0] * centred[1]).sum(-1) / np.sqrt((centred**2).sum(-1).prod(0))

    rho = float(correlation(np.stack([run.mean(1) for run in runs], axis=-1)))
    if n < FEWEST or math.isnan(rho):
        return rho, math.nan, math.nan, n, math.nan, math.nan
    generator = np.random.default_rng(0)
    chosen = [run[:, generator.integers(run.shape[1], size=(draws, run.shape[1]))].mean(-1) for run in runs]
    found = correlation(np.stack(chosen, axis=-1))
    low, high = np.nanquantile(found, (0.025, 0.975))
    beyond = (found - bound) * (1 if sign == ">" else -1)
    p_for, p_against = ((1 + int((~(side * beyond > 0)).sum())) / (draws + 1) for side in (1, -1))
    return rho, float(low), float(high), n, p_for, p_against


def verdict(mean: float, half_width: float, n: int, direction: str) -> str:
    """Whether a difference is ``higher`` (or ``lower``) than 0, by its interval; see `judged`."""
    choose("direction", direction, ("higher", "lower"))
    return judged(mean, mean - half_width, mean + half_width, n, "> 0" if direction == "higher" else "< 0")


def judged(estimate: float, low: float, high: float, n: int, claimed: str) -> str:
    """Reading of one test: whether a value lies on the claimed side of a bound, ``"> 0"`` or ``"< 1.5"``, by its interval.

    | reading | rule |
    |---|---|
    | not run | no value |
    | undecided | one value, which has no interval, or an interval that holds the bound |
    | supported | the interval lies on the claimed side of the bound |
    | contradicted | the interval lies on the other side |

    Raises:
        InputError: ``claimed`` is neither ``> x`` nor ``< x``.
    """
    sign, bound = parsed(claimed)
    if n == 0 or math.isnan(estimate):
        return "not run"
    if n < 2 or math.isnan(low) or low <= bound <= high:
        return "undecided"
    return "supported" if (low > bound) == (sign == ">") else "contradicted"


def parsed(claimed: str) -> tuple[str, float]:
    """Side and bound of ``"> 0"``, ``"< 1.5"``, ...

    Raises:
        InputError: it is neither ``> x`` nor ``< x``.
    """
    sign, _, number = claimed.partition(" ")
    try:
        bound = float(number)
    except ValueError:
        bound = math.nan
    require("claimed", claimed, sign in ("<", ">") and not math.isnan(bound), "write `> 0`, `< 1.5`, ...")
    return sign, bound


def one_sided(values: Iterable[float], claimed: str) -> tuple[float, float]:
    """(p for, p against): Student's one-sided tests that the mean lies on the claimed side of the bound, and on the other.

    Fewer than two values, or equal ones, whose spread is not known, have none (NaN).
    """
    sign, bound = parsed(claimed)
    array = np.asarray(list(values), dtype=np.float64)
    beyond = (array[~np.isnan(array)] - bound) * (1 if sign == ">" else -1)
    n = len(beyond)
    if n < 2:
        return math.nan, math.nan
    mean, error = beyond.mean(), beyond.std(ddof=1) / math.sqrt(n)
    if np.ptp(beyond) <= 1e-12 * abs(mean):
        return math.nan, math.nan
    p = float(special.stdtr(n - 1, -mean / error))
    return p, 1 - p


def holm(values: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several tests, in their order: all of those below a level are true at once, but for that
    probability. Missing ones (NaN) are not in the family (Holm 1979)."""
    order = sorted((p, i) for i, p in enumerate(values) if not math.isnan(p))
    adjusted, largest = [math.nan] * len(values), 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        adjusted[i] = largest
    return adjusted


def deviation(half_width: float, n: int, level: float = 0.95) -> float:
    """The standard deviation of n values whose `interval` has this half width."""
    return half_width * math.sqrt(n) / float(special.stdtrit(n - 1, 0.5 + level / 2))


def detectable(spread: float, n: int, level: float) -> float:
    """The difference that ``n`` pairs with the standard deviation ``spread`` show at the two-sided ``level`` with a probability
    of 80 %.

    By Student's t in place of the noncentral one, which is a few per cent too small for few pairs.
    """
    return float(special.stdtrit(n - 1, 1 - level / 2) + special.stdtrit(n - 1, POWER)) * spread / math.sqrt(n)


def pairs_needed(difference: float, spread: float, level: float, more_than: int, most: int) -> int:
    """The fewest pairs, ``more_than`` a number, for which ``difference`` is `detectable`; 0 if ``most`` are too few."""
    counts = range(more_than + 1, most + 1)
    return next((n for n in counts if detectable(spread, n, level) <= abs(difference)), 0)


def log_odds(accuracy: Any) -> Any:
    """ln(p / (1 - p)) with p = accuracy / 100, elementwise (the transfer score of t-ReX, code:scripts/print_results.py).

    Ours: accuracies are clipped to [0.05, 99.95] %, so that a perfect score counts 7.6 and not infinity.
    """
    p = np.clip(accuracy, CLIP, 100 - CLIP) / 100
    return np.log(p / (1 - p))


def over_datasets(frame: pd.DataFrame, datasets: Sequence[str] | None = None, *, how: str = "log_odds") -> pd.DataFrame:
    """``frame`` with its data sets averaged: per run and measure one row, ``dataset`` saying of how many sets it is the mean.

    A run that lacks one of the data sets has no mean: means over different sets cannot be compared.

    Args:
        datasets: those to average; by default all in ``frame``.
        how: ``log_odds`` (mean of `log_odds`; the measure's name gets ``_log_odds``) or ``mean``.

    Raises:
        InputError: a run has several values for one data set, such as those of several epochs or layers.
    """
    choose("how", how, ("log_odds", "mean"))
    datasets = list(frame["dataset"].unique()) if datasets is None else list(datasets)
    frame = select(frame, dataset=datasets)
    by = [name for name in ("scale", "method", "variant", "run", "seed", "measure") if name in frame]
    refuse_mixture(frame, [*by, "dataset"])
    rows = []
    for key, part in frame.groupby(by, sort=False, dropna=False):
        values = part["value"].dropna()
        if len(values) == len(datasets):
            value = float(log_odds(values).mean() if how == "log_odds" else values.mean())
            kept = {name: part[name].iloc[0] for name in ("epoch", "layer", "split", "protocol") if name in part}
            rows.append(dict(zip(by, key, strict=True)) | kept | {"dataset": f"mean of {len(datasets)} sets", "value": value})
    result = pd.DataFrame(rows, columns=list(frame.columns))
    return result.assign(measure=result["measure"] + "_log_odds") if how == "log_odds" and rows else result
