"""Samplers: probability paths, solvers, exact teachers, and distilling many steps into few.

What :math:`\\alpha`, :math:`\\sigma`, t and its direction mean is stated once, in
:mod:`jaxdistill.samplers.paths`.
"""

from jaxdistill.samplers.consistency_models import consistency_training, continuous_consistency
from jaxdistill.samplers.denoisers import (
    Teacher,
    as_function,
    denoiser,
    latent_scalings,
    scalings,
    teacher_net,
)
from jaxdistill.samplers.distribution_matching import Discriminator, Noise, distribution_matching
from jaxdistill.samplers.guidance import guidance_embedding, guided, scale_of_weight
from jaxdistill.samplers.mixtures import (
    Mixture,
    denoise,
    draw,
    fitted,
    guided_denoise,
    mixture,
    ring,
)
from jaxdistill.samplers.paths import (
    PATHS,
    PREDICTIONS,
    Path,
    add_noise,
    convert,
    edm,
    flow,
    on_path,
    trigflow,
    variance_exploding,
    variance_preserving,
    variance_preserving_linear,
)
from jaxdistill.samplers.schedules import (
    adaptive,
    discrete_lognormal,
    doubling,
    karras,
    logit_normal,
    lognormal,
    rising_karras,
)
from jaxdistill.samplers.solvers import (
    SOLVERS,
    Solver,
    consistency,
    ddim,
    dpm_solver,
    euler,
    heun,
    sample,
    transition,
)
from jaxdistill.samplers.teaching import denoising

__all__ = [
    "PATHS",
    "PREDICTIONS",
    "SOLVERS",
    "Discriminator",
    "Mixture",
    "Noise",
    "Path",
    "Solver",
    "Teacher",
    "adaptive",
    "add_noise",
    "as_function",
    "consistency",
    "consistency_training",
    "continuous_consistency",
    "convert",
    "ddim",
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
    "fitted",
    "flow",
    "guidance_embedding",
    "guided",
    "guided_denoise",
    "heun",
    "karras",
    "latent_scalings",
    "logit_normal",
    "lognormal",
    "mixture",
    "on_path",
    "ring",
    "rising_karras",
    "sample",
    "scale_of_weight",
    "scalings",
    "teacher_net",
    "transition",
    "trigflow",
    "variance_exploding",
    "variance_preserving",
    "variance_preserving_linear",
]
