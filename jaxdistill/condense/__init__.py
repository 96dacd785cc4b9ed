"""Data sets into small ones: matching trajectories, gradients, distributions and kernels.

Parts (a net on one vector of parameters, differentiable augmentation, whitenings, experts) serve
all methods. Each method is a :class:`~jaxdistill.distiller.Distiller` whose result is a
:class:`Synthetic`.
"""

from jaxdistill.condense.augment import Augmentation, siamese
from jaxdistill.condense.experts import (
    Flatness,
    expert_steps,
    open_trajectories,
    save_trajectories,
    train_experts,
)
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.followed import sharpness, strayed
from jaxdistill.condense.fresh import (
    Protocol,
    augmentation_robust_score,
    fresh_nets,
    kernel_accuracy,
    label_robust_score,
    ranked,
)
from jaxdistill.condense.matching import match_features, match_gradients
from jaxdistill.condense.regression import match_kernel, match_regression
from jaxdistill.condense.students import Students, Window
from jaxdistill.condense.subsets import chosen
from jaxdistill.condense.surrogates import attention_maps, gradient_distance, mean_distance
from jaxdistill.condense.synthetic import Synthetic, as_records, pixels, save_folder, save_npz
from jaxdistill.condense.trajectories import match_trajectories
from jaxdistill.condense.unroll import Inner, Target, matching_gradient, matching_loss
from jaxdistill.condense.whitening import Whitening, fit_whitening

__all__ = [
    "Augmentation",
    "Flat",
    "Flatness",
    "Inner",
    "Protocol",
    "Students",
    "Synthetic",
    "Target",
    "Whitening",
    "Window",
    "as_records",
    "attention_maps",
    "augmentation_robust_score",
    "chosen",
    "expert_steps",
    "fit_whitening",
    "flat",
    "fresh_nets",
    "gradient_distance",
    "kernel_accuracy",
    "label_robust_score",
    "match_features",
    "match_gradients",
    "match_kernel",
    "match_regression",
    "match_trajectories",
    "matching_gradient",
    "matching_loss",
    "mean_distance",
    "open_trajectories",
    "pixels",
    "ranked",
    "save_folder",
    "save_npz",
    "save_trajectories",
    "sharpness",
    "siamese",
    "strayed",
    "train_experts",
]
