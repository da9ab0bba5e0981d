"""Statistics of features (N, d), as the papers define them or, where they leave something open, with the options named."""

from studylib.measures.discriminative_ratio import DiscriminativeRatio, class_centres, discriminative_ratio
from studylib.measures.distance import frechet_distance, squared_mmd
from studylib.measures.intra_class import ClassSeparation, class_separation, intra_class_distance
from studylib.measures.mixtureness import mixtureness
from studylib.measures.modes import Modes, find_modes
from studylib.measures.moments import ClassMoments, Moments, class_moments, moments
from studylib.measures.neural_collapse import neural_collapse
from studylib.measures.prototypes import PrototypeSimilarity, prototype_similarity, prototypes
from studylib.measures.redundancy import redundancy
from studylib.measures.sparsity import sparsity
from studylib.measures.spectrum import coding_length, effective_rank, singular_values

__all__ = [
    "ClassMoments",
    "ClassSeparation",
    "DiscriminativeRatio",
    "Modes",
    "Moments",
    "PrototypeSimilarity",
    "class_centres",
    "class_moments",
    "class_separation",
    "coding_length",
    "discriminative_ratio",
    "effective_rank",
    "find_modes",
    "frechet_distance",
    "intra_class_distance",
    "mixtureness",
    "moments",
    "neural_collapse",
    "prototype_similarity",
    "prototypes",
    "redundancy",
    "singular_values",
    "sparsity",
    "squared_mmd",
]
