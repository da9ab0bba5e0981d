"""Supervised pre-training that transfers: LOOK, SL-MLP and t-ReX under one controlled recipe."""

__version__ = "0.1.0"
