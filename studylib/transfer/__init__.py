"""Transfer of frozen features to another data set."""

from studylib.transfer.broad12 import Broad12, Broad12Result, broad12_probe
from studylib.transfer.few_shot import Episodes, EpisodesResult, episode_accuracy
from studylib.transfer.knn import KnnGridResult, KnnResult, knn_accuracy, knn_grid_accuracy
from studylib.transfer.linear import LinearResult, Path, fit_path, linear_probe
from studylib.transfer.per_class import PerClass, PerClassResult, per_class_accuracy
from studylib.transfer.protocols import Knn, KnnGrid, LinearPath
from studylib.transfer.ridge import Ridge, RidgePath, RidgeResult, fit_ridge, ridge_probe
from studylib.transfer.trex_large import TrexLarge, TrexLargeResult, trex_large_probe
from studylib.transfer.trex_small8 import TrexSmall8, TrexSmall8Result, trex_small8_probe

__all__ = [
    "Broad12",
    "Broad12Result",
    "Episodes",
    "EpisodesResult",
    "Knn",
    "KnnGrid",
    "KnnGridResult",
    "KnnResult",
    "LinearPath",
    "LinearResult",
    "Path",
    "PerClass",
    "PerClassResult",
    "Ridge",
    "RidgePath",
    "RidgeResult",
    "TrexLarge",
    "TrexLargeResult",
    "TrexSmall8",
    "TrexSmall8Result",
    "broad12_probe",
    "episode_accuracy",
    "fit_path",
    "fit_ridge",
    "knn_accuracy",
    "knn_grid_accuracy",
    "linear_probe",
    "per_class_accuracy",
    "ridge_probe",
    "trex_large_probe",
    "trex_small8_probe",
]
