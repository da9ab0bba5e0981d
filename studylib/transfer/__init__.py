"""Transfer of frozen features to another data set."""

from studylib.transfer.knn import KnnResult, knn_accuracy
from studylib.transfer.linear import LinearResult, Path, fit_path, linear_probe
from studylib.transfer.protocols import Knn, LinearPath

__all__ = ["Knn", "KnnResult", "LinearPath", "LinearResult", "Path", "fit_path", "knn_accuracy", "linear_probe"]
