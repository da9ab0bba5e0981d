"""Transfer of frozen features to another data set."""

from studylib.transfer.broad12 import Broad12, Broad12Result, broad12_probe
from studylib.transfer.detection import COCO_1X, Detection, DetectionResult, detection_accuracy
from studylib.transfer.few_shot import Episodes, EpisodesResult, episode_accuracy
from studylib.transfer.fine_tune import FineTune, FineTuneResult, Trainable, fine_tune_accuracy, trainable
from studylib.transfer.knn import KnnGridResult, KnnResult, knn_accuracy, knn_grid_accuracy
from studylib.transfer.linear import LinearResult, Path, fit_path, linear_probe
from studylib.transfer.linear_fine_tune import LinearFineTune, linear_fine_tune_accuracy
from studylib.transfer.memory_fine_tune import MemoryFineTune, MemoryFineTuneResult, memory_fine_tune_accuracy
from studylib.transfer.per_class import PerClass, PerClassResult, per_class_accuracy
from studylib.transfer.protocols import Knn, KnnGrid, LinearProbe, TrainLinear
from studylib.transfer.ridge import Ridge, RidgeProbe, RidgeResult, fit_ridge, ridge_probe
from studylib.transfer.trex_large import TrexLarge, TrexLargeResult, trex_large_probe
from studylib.transfer.trex_small8 import TrexSmall8, TrexSmall8Result, trex_small8_probe

__all__ = [
    "COCO_1X",
    "Broad12",
    "Broad12Result",
    "Detection",
    "DetectionResult",
    "Episodes",
    "EpisodesResult",
    "FineTune",
    "FineTuneResult",
    "Knn",
    "KnnGrid",
    "KnnGridResult",
    "KnnResult",
    "LinearFineTune",
    "LinearProbe",
    "LinearResult",
    "MemoryFineTune",
    "MemoryFineTuneResult",
    "Path",
    "PerClass",
    "PerClassResult",
    "Ridge",
    "RidgeProbe",
    "RidgeResult",
    "TrainLinear",
    "Trainable",
    "TrexLarge",
    "TrexLargeResult",
    "TrexSmall8",
    "TrexSmall8Result",
    "broad12_probe",
    "detection_accuracy",
    "episode_accuracy",
    "fine_tune_accuracy",
    "fit_path",
    "fit_ridge",
    "knn_accuracy",
    "knn_grid_accuracy",
    "linear_fine_tune_accuracy",
    "linear_probe",
    "memory_fine_tune_accuracy",
    "per_class_accuracy",
    "ridge_probe",
    "trainable",
    "trex_large_probe",
    "trex_small8_probe",
]
