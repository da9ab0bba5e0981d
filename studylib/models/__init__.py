"""Encoders with named stages, and projectors."""

from studylib.models.encoder import STAGES, Encoder
from studylib.models.projector import Projector, layer_names

__all__ = ["STAGES", "Encoder", "Projector", "layer_names"]
