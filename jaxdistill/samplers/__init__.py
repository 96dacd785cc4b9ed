"""Samplers: probability paths, solvers, exact teachers, and distilling many steps into few.

What :math:`\\alpha`, :math:`\\sigma`, t and its direction mean is stated once, in
:mod:`jaxdistill.samplers.paths`.
"""

from jaxdistill.samplers.backtracking import backtracking, degradation, path_quality
from jaxdistill.samplers.bootstrapping import bootstrapped
from jaxdistill.samplers.consistency_models import consistency_training, continuous_consistency
from jaxdistill.samplers.denoisers import (
    Teacher,
    as_function,
    as_trigflow,
    denoiser,
    latent_scalings,
    scalings,
    teacher_net,
)
from jaxdistill.samplers.distribution_matching import Discriminator, Noise, distribution_matching
from jaxdistill.samplers.guidance import guidance_embedding, guided, scale_of_weight
from jaxdistill.samplers.jump_models import (
    consistency_trajectories,
    mean_flow,
    shortcuts,
)
from jaxdistill.samplers.jumps import (
    Trajectory,
    adaptive_square,
    guided_velocity,
    mean_velocity_target,
    segment,
    segment_ends,
    shortcut_target,
    signal_target,
    trajectory,
)
from jaxdistill.samplers.latent import latent_consistency, smooth_absolute
from jaxdistill.samplers.many_students import on_axis, student_of, students
from jaxdistill.samplers.mixtures import (
    Mixture,
    denoise,
    draw,
    fitted,
    guided_denoise,
    mixture,
    ring,
)
from jaxdistill.samplers.pairs import flow_pairs, pair_loss
from jaxdistill.samplers.paths import (
    PATHS,
    PREDICTIONS,
    Path,
    add_noise,
    convert,
    edm,
    flow,
    flow_as_trigflow,
    on_path,
    trigflow,
    variance_exploding,
    variance_preserving,
    variance_preserving_linear,
)
from jaxdistill.samplers.progressive import progressive
from jaxdistill.samplers.rewards import Reward, near_mode, of_class, refuse_flat
from jaxdistill.samplers.schedules import (
    adaptive,
    discrete_lognormal,
    doubling,
    karras,
    logit_normal,
    lognormal,
    rising_karras,
)
from jaxdistill.samplers.segmented import Feedback, Judge, segmented
from jaxdistill.samplers.solvers import (
    SOLVERS,
    Solver,
    consistency,
    ddim,
    dpm_solver,
    euler,
    heun,
    jump,
    sample,
    trajectory_consistency,
    transition,
)
from jaxdistill.samplers.sprint import (
    Adversary,
    Consistency,
    features_of,
    latent_adversarial,
)
from jaxdistill.samplers.teaching import denoising

__all__ = [
    "PATHS",
    "PREDICTIONS",
    "SOLVERS",
    "Adversary",
    "Consistency",
    "Discriminator",
    "Feedback",
    "Judge",
    "Mixture",
    "Noise",
    "Path",
    "Reward",
    "Solver",
    "Teacher",
    "Trajectory",
    "adaptive",
    "adaptive_square",
    "add_noise",
    "as_function",
    "as_trigflow",
    "backtracking",
    "bootstrapped",
    "consistency",
    "consistency_training",
    "consistency_trajectories",
    "continuous_consistency",
    "convert",
    "ddim",
    "degradation",
    "denoise",
    "denoiser",
    "denoising",
    "discrete_lognormal",
    "distribution_matching",
    "doubling",
    "dpm_solver",
    "draw",
    "edm",
    "euler",
    "features_of",
    "fitted",
    "flow",
    "flow_as_trigflow",
    "flow_pairs",
    "guidance_embedding",
    "guided",
    "guided_denoise",
    "guided_velocity",
    "heun",
    "jump",
    "karras",
    "latent_adversarial",
    "latent_consistency",
    "latent_scalings",
    "logit_normal",
    "lognormal",
    "mean_flow",
    "mean_velocity_target",
    "mixture",
    "near_mode",
    "of_class",
    "on_axis",
    "on_path",
    "pair_loss",
    "path_quality",
    "progressive",
    "refuse_flat",
    "ring",
    "rising_karras",
    "sample",
    "scale_of_weight",
    "scalings",
    "segment",
    "segment_ends",
    "segmented",
    "shortcut_target",
    "shortcuts",
    "signal_target",
    "smooth_absolute",
    "student_of",
    "students",
    "teacher_net",
    "trajectory",
    "trajectory_consistency",
    "transition",
    "trigflow",
    "variance_exploding",
    "variance_preserving",
    "variance_preserving_linear",
]
