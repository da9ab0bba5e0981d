"""Transfer of frozen features to another data set."""

from studylib.transfer.knn import knn_accuracy
from studylib.transfer.linear import LinearResult, fit_path, linear_probe
from studylib.transfer.protocols import Knn, LinearPath

__all__ = ["Knn", "LinearPath", "LinearResult", "fit_path", "knn_accuracy", "linear_probe"]
