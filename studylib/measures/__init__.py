"""Statistics of features (N, d), as the papers define them or, where they leave something open, with the options named."""

from studylib.measures.discriminative_ratio import DiscriminativeRatio, class_centres, discriminative_ratio
from studylib.measures.mixtureness import mixtureness
from studylib.measures.redundancy import redundancy

__all__ = ["DiscriminativeRatio", "class_centres", "discriminative_ratio", "mixtureness", "redundancy"]
