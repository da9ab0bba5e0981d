"""Encoders with named stages, and projectors."""

from studylib.models.encoder import STAGES, Encoder
from studylib.models.projector import Projector

__all__ = ["STAGES", "Encoder", "Projector"]
