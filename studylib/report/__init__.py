"""Figures, tables and statistics from the tidy results table; nothing here trains or evaluates.

A figure function takes the table and returns (figure, plotted data); `save` writes both with their `lineage`::

    figure, data = report.transfer(results)
    report.save(figure, "transfer", data, folder=folder, lineage=report.lineage(results["run"], notebook, parameters))
"""

from studylib.report.both_sides import both_sides, mean_accuracy
from studylib.report.comparison import comparison
from studylib.report.components import components
from studylib.report.correlation import (
    by_labels,
    correlations,
    predictions,
    predictors,
    rho,
    scatter,
    sign,
    strongest,
    trajectory,
    turns,
)
from studylib.report.embedding import class_embedding, embedding
from studylib.report.figures import save
from studylib.report.frontier import frontier
from studylib.report.learning import learning, random_start
from studylib.report.lineage import lineage
from studylib.report.modes import MODES, class_modes, mode_images, modes_inside
from studylib.report.over_layers import over_layers
from studylib.report.over_training import over_training
from studylib.report.overview import by_passes, equal_compute, overview
from studylib.report.projectors import depth, projector_effect, with_and_without
from studylib.report.protocols import (
    PER_CLASS,
    by_protocol,
    carried_out,
    changed_share,
    changes,
    conclusions,
    protocol_label,
    protocol_measures,
    protocol_seconds,
    protocols,
    reading,
    rivals,
    rivals_reading,
    trex_score,
)
from studylib.report.prototypes import PROTOTYPES, class_vectors
from studylib.report.regime import regime, regime_ends, trained_enough
from studylib.report.samples import samples, training_samples
from studylib.report.settings import settings
from studylib.report.spectrum import spectrum
from studylib.report.stagewise import stagewise
from studylib.report.statistics import (
    at_end,
    interval,
    log_odds,
    over_datasets,
    over_seeds,
    paired_difference,
    select,
    verdict,
)
from studylib.report.style import variant_label
from studylib.report.tables import protocols_of, summary, write_table
from studylib.report.training import training_cost, training_curves, training_reading, training_time
from studylib.report.transfer import transfer, transfer_groups
from studylib.report.tuning import tuning
from studylib.report.variants import variants
from studylib.report.verdicts import verdicts

__all__ = [
    "MODES",
    "PER_CLASS",
    "PROTOTYPES",
    "at_end",
    "both_sides",
    "by_labels",
    "by_passes",
    "by_protocol",
    "carried_out",
    "changed_share",
    "changes",
    "class_embedding",
    "class_modes",
    "class_vectors",
    "comparison",
    "components",
    "conclusions",
    "correlations",
    "depth",
    "embedding",
    "equal_compute",
    "frontier",
    "interval",
    "learning",
    "lineage",
    "log_odds",
    "mean_accuracy",
    "mode_images",
    "modes_inside",
    "over_datasets",
    "over_layers",
    "over_seeds",
    "over_training",
    "overview",
    "paired_difference",
    "predictions",
    "predictors",
    "projector_effect",
    "protocol_label",
    "protocol_measures",
    "protocol_seconds",
    "protocols",
    "protocols_of",
    "random_start",
    "reading",
    "regime",
    "regime_ends",
    "rho",
    "rivals",
    "rivals_reading",
    "samples",
    "save",
    "scatter",
    "select",
    "settings",
    "sign",
    "spectrum",
    "stagewise",
    "strongest",
    "summary",
    "trained_enough",
    "training_cost",
    "training_curves",
    "training_reading",
    "training_samples",
    "training_time",
    "trajectory",
    "transfer",
    "transfer_groups",
    "trex_score",
    "tuning",
    "turns",
    "variant_label",
    "variants",
    "verdict",
    "verdicts",
    "with_and_without",
    "write_table",
]
