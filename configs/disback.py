"""DisBack: a teacher is recorded while it degrades to a generator's samples, and the generator goes
back along that way to the teacher.

Zhang et al., Distribution Backtracking Builds A Faster Convergence Trajectory for Diffusion
Distillation, ICLR 2025: faster than score distillation alone, and one step reaches an FID of 1.38
on ImageNet-64. The released code does it for SDXL: 1,000 updates of the copy, one record in 100,
then 1,000 steps for each of them and the rest of the run on the teacher itself.

ImageNet at 64 x 64 with that schedule and the sizes of DMD2; the teacher is trained first, or given
by ``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/disback.py --workdir=runs/disback
        --config.data.dir=<folder>

A ring of eight Gaussians, from a generator that starts far away; a minute a seed:

    python -m jaxdistill.claim --config=configs/disback.py:mixture --seeds=5
        --workdir=runs/disback_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/disback.py:small --workdir=runs/disback_small

Expect records that lie farther from the data one by one (``least_rise`` above 0), and the distance
of one step of the student, ``sliced_wasserstein_1``, to fall while the targets come nearer. On the
ring it is not faster than DMD2.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above, reaches
from jaxdistill.presets.samplers import denoiser, perceptron
from jaxdistill.presets.score_matching import (
    before_student,
    imagenet_64_stage,
    path_quality,
    ring_stage,
)

# Where the generator of the ring begins; the noise reaches its neighbourhood, not much beyond.
AWAY, NOISE = (2.0, 2.0), {"high": 2.0}
# Steps of the student, and updates of the copy, of which a step of DMD2 has five.
STEPS, RECORDED = 500, 45
SENTENCE = "A generator follows a teacher that comes back from where the generator began."


def published() -> dict:
    degrades = {"name": "degradation", "frozen": ("teacher",), "generator": "teacher"}
    returns = {"name": "backtracking", "frozen": ("degraded",), "path": "degraded"}
    # A generator starts as its teacher: what the teacher says in one step is where the path ends.
    degraded = imagenet_64_stage({**degrades, "records": 10}, 1000)
    student = imagenet_64_stage({**returns, "interval": 1000, "adversarial": True}, 40_000)
    found = samplers.imagenet_64("DisBack, ImageNet-64", SENTENCE, student)
    return before_student(found, degraded=degraded)


def mixture() -> dict:
    net = denoiser(perceptron(64, 2))
    degrades = {"name": "degradation", "frozen": ("away",), "generator": "away", "noise": NOISE}
    returns = {"name": "backtracking", "frozen": ("degraded",), "path": "degraded", "noise": NOISE}
    at_once = {"name": "distribution_matching", "frozen": ("fit",), "noise": NOISE}
    at_once |= {"teacher": {"stage": "fit"}, "estimate": "fit"}
    both, spread = ("dmd2", "disback"), "the spread of such ends over seeds"
    # A generator that starts far away: at the middle of a ring elsewhere.
    elsewhere = {"density": {**samplers.RING, "center": AWAY}}
    away = {"name": "denoising", "teacher": elsewhere, "mean": 2.0, "std": 1.5}
    path = {"path": path_quality()}
    quality = samplers.density_quality(in_steps=(1,), every=STEPS // 20, mean=True, draws=20_000)
    stages = {
        "fit": samplers.ring_fit(net, 1500),
        "away": ring_stage(net, away, 2e-3, 1000),
        "degraded": ring_stage(
            net, {**degrades, "records": 3}, 1e-3, RECORDED, initial={"stage": "fit"}, evaluate=path
        ),
        "student": ring_stage(
            net,
            {**returns, "interval": 15},
            5e-4,
            STEPS,
            initial={"stage": "away"},
            evaluate={"quality": quality},
            pictures=("samples",),
        ),
    }
    # Recording is counted: so many steps of the student less, at the distance where it begins.
    counted = RECORDED / 5 / STEPS
    area = {"dmd2": 1, "disback": counted - 1, "start": -counted}
    records = "degraded/validation/least_rise"
    return {
        **samplers.on_ring("DisBack on a ring", SENTENCE, stages),
        "claim": {
            "sentence": "Going back along the way is faster than following the teacher at once.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {
                "disback": {"stages/student/steps": int(STEPS * (1 - counted))},
                "dmd2": {"stages/student/distiller": at_once},
                "start": {"stages/student/steps": 0},
            },
            "contrasts": {
                "area": {
                    "sentence": "the mean distance over all updates, recording counted, is smaller",
                    "coefficients": area,
                    "metric": "student/validation/mean/sliced_wasserstein_1",
                },
                "end": above(*both, "no worse at the end, by 0.01", -0.01, origin=spread),
                "records": reaches("disback", 0.0, "every record is farther away", records),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True)
    degraded = samplers.digits_stage(
        net,
        {"name": "degradation", "frozen": ("teacher",), "generator": "teacher", "records": 3},
        peak=2e-4,
        steps=300,
        quality=None,
        pictures=(),
        initial={"stage": "teacher"},
    )
    student = samplers.digits_stage(
        net,
        {
            "name": "backtracking",
            "frozen": ("classifier", "degraded", "teacher"),
            "path": "degraded",
            "interval": 100,
            "ema": 0.99,
        },
        peak=2e-4,
        steps=2500,
        quality=samplers.student_quality(in_steps=(1,)),
        initial={"stage": "teacher"},
    )
    found = samplers.on_digits("DisBack in small", SENTENCE, samplers.digits_teacher(net), student)
    return before_student(found, degraded=degraded)


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
