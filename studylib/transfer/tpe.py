"""Search of hyper-parameters by Optuna's tree-structured Parzen estimator (TPE), as t-ReX does."""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

EDGE = 0.05  # ours: a value this share of its (log) range away from an end is said to be at the edge


def search(
    score: Callable[[dict[str, float]], float],
    ranges: Mapping[str, tuple[float, float]],
    *,
    trials: int,
    seed: int,
    joint: bool = False,
) -> list[tuple[dict[str, float], float]]:
    """(values, score) of every trial in order; TPE looks for values, log-uniform in their ``ranges``, of a large score.

    ``joint``: model the values together (multivariate, grouped) instead of one by one. The same seed and scores give the
    same trials. Optuna's logging is turned down meanwhile.

    Source: t-ReX, code:transfer/classifier_training.py.
    """
    with warnings.catch_warnings():
        # tqdm, which it imports, misses a widget in a notebook that nobody will see.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import optuna  # imports slowly, and only these protocols need it

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        with warnings.catch_warnings():
            # It says that the interface of grouping may change in a later Optuna.
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            sampler = optuna.samplers.TPESampler(seed=seed, multivariate=joint, group=joint)
        study = optuna.create_study(sampler=sampler, direction="maximize")

        def objective(trial: Any) -> float:
            return score({name: trial.suggest_float(name, low, high, log=True) for name, (low, high) in ranges.items()})

        study.optimize(objective, n_trials=trials)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return [(trial.params, trial.value) for trial in study.trials]


def best(trials: list[tuple[dict[str, float], float]]) -> dict[str, float]:
    """Values of the best trial, the first of equals, which is Optuna's choice as well."""
    return max(trials, key=lambda trial: trial[1])[0]


def at_edge(value: float, low: float, high: float) -> bool:
    """Whether ``value`` is so near an end of its range that a better one may lie outside."""
    return low < high and not EDGE <= math.log(value / low) / math.log(high / low) <= 1 - EDGE
