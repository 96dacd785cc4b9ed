"""Guidance distilled: one pass of a student with the scale as an input replaces two of its teacher.

Meng et al., On Distillation of Guided Diffusion Models, CVPR 2023, stage one: the student sees the
scale of guidance as an input and learns what the teacher, guided with it, predicts.

ImageNet at 64 x 64; the teacher is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/guidance.py --workdir=runs/guidance
        --config.data.dir=<folder>

A ring of eight Gaussians in two classes, where the guided teacher is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/guidance.py:mixture --seeds=3
        --workdir=runs/guidance_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/guidance.py:small --workdir=runs/guidance_small

Expect samples as close to those of the exact guided teacher as two passes of a net are.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above, within
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import IMAGENET_64, denoiser, perceptron

SENTENCE = "One pass with the scale as an input replaces two."
RING = {"name": "ring", "classes": 2}
# The scales that a student learns, and the one that samples are compared at; 1 is no guidance.
SCALES, SCALE = (1.0, 5.0), 3.0


def published() -> dict:
    student = {
        "student": denoiser({**IMAGENET_64, "guidance": True}, conditional=True),
        "distiller": {
            "name": "denoising",
            "frozen": ("teacher",),
            "teacher": {"stage": "teacher"},
            "labels": True,
            "scales": SCALES,
            "ema": 0.9999,
        },
        "initial": {"stage": "teacher"},
        "optimizer": adamw(1e-4, 1000),
        "batch_size": 2048,
        "steps": 100_000,
        "checkpoint_every": 10_000,
    }
    return samplers.imagenet_64("Guidance distilled, ImageNet-64", SENTENCE, student)


def mixture() -> dict:
    quality = samplers.density_quality(
        RING,
        solver="heun",
        in_steps=(1, 18),
        label=0,
        scale=SCALE,
        embedded=True,
        draws=20_000,
    )
    student = {
        "student": denoiser(perceptron(128, 2, guidance=True), conditional=True),
        "distiller": {
            "name": "denoising",
            "teacher": {"density": RING},
            "labels": True,
            "scales": SCALES,
            "ema": 0.999,
        },
        "optimizer": adamw(2e-3, 100),
        "batch_size": 256,
        "steps": 4000,
        "evaluate": {"quality": quality},
        "pictures": ("samples",),
    }
    two_passes = {
        "stages/student/distiller/scales": None,
        "stages/student/evaluate/quality/embedded": False,
        "stages/student/student/backbone/guidance": False,
    }
    near = "at most 0.06 from the samples of the exact guided teacher"
    further = "at most 0.02 further than two passes of a net"
    both = ("two passes", "one pass")
    return {
        **samplers.on_ring(
            "Guidance distilled on a ring", SENTENCE, {"student": student}, classes=2
        ),
        "claim": {
            "sentence": "One pass with the scale as an input is as good as two.",
            "metric": "student/validation/sliced_wasserstein_18",
            "arms": {"one pass": {}, "two passes": two_passes},
            "contrasts": {
                "distance": within("one pass", 0.06, near, origin="as of one step on the ring"),
                "one pass": above(*both, further, -0.02, origin="a third of that distance"),
            },
        },
    }


def small() -> dict:
    guided = samplers.image_quality(solver="heun", in_steps=(1, 18), scale=SCALE)
    learned = {"name": "denoising", "ema": 0.999}
    teacher = samplers.digits_stage(
        denoiser(perceptron(256, 3), conditional=True),
        {**learned, "frozen": ("classifier",)},
        peak=1e-3,
        steps=8000,
        quality=guided,
    )
    student = samplers.digits_stage(
        denoiser(perceptron(256, 3, guidance=True), conditional=True),
        {
            **learned,
            "frozen": ("classifier", "teacher"),
            "teacher": {"stage": "teacher"},
            "scales": SCALES,
        },
        peak=1e-3,
        steps=8000,
        quality={**guided, "embedded": True},
        initial={"stage": "teacher"},
    )
    return samplers.on_digits("Guidance distilled in small", SENTENCE, teacher, student)


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
