"""LCM-LoRA: adapters turn a guided denoiser into a sampler of few steps.

Luo et al., LCM-LoRA: A Universal Stable-Diffusion Acceleration Module, 2023: adapters of rank 64,
trained by latent consistency distillation, sample Stable Diffusion in 4 steps.

Stable Diffusion is not among the nets here: this is the same on ImageNet at 64 x 64, with levels
of Karras et al. in place of 50 of its 1,000 times. The teacher has a layer for the scale of
guidance that it is never given, and its boundary where a consistency function has it; it is trained
first, or given by ``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/lcm_lora.py --workdir=runs/lcm_lora
        --config.data.dir=<folder>

A ring of eight Gaussians in two classes, minutes a seed:

    python -m jaxdistill.claim --config=configs/lcm_lora.py:mixture --seeds=5
        --workdir=runs/lcm_lora_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/lcm_lora.py:small --workdir=runs/lcm_lora_small

Expect one step nearer the guided teacher's samples than one of the teacher, and on the ring no
gain of further steps.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, samplers
from jaxdistill.presets.claims import above
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import adapters, denoiser, perceptron

SENTENCE = "Adapters turn a guided denoiser into a sampler of few steps."
RING = {"name": "ring", "classes": 2}
TEACHER = {"stage": "teacher"}
# The scale that samples are compared at; 1 is no guidance.
SCALE = 3.0
# Levels between steps.
MIDDLE = (1.2, 0.5, 0.2)


def consistent(scales: tuple[float, float], **settings) -> dict:
    named = {"name": "latent_consistency", "teacher": TEACHER, "scales": scales}
    return {**named, "frozen": ("teacher",), **settings}


def student_of(backbone: dict) -> dict:
    return denoiser({**backbone, "guidance": True}, conditional=True, sigma_min=0.002)


def published() -> dict:
    student = {
        "student": adapters(64, samplers.INSIDE_64),
        "distiller": consistent((6.0, 16.0)),
        "optimizer": adamw(1e-4, 500),
        "batch_size": 256,
        "steps": 10_000,
        "checkpoint_every": 1000,
    }
    found = samplers.imagenet_64("LCM-LoRA, ImageNet-64", SENTENCE, student)
    found["stages"]["teacher"]["student"] = student_of(samplers.IMAGENET_64)
    return found


def mixture() -> dict:
    net = student_of(perceptron(128, 2))
    quality = samplers.density_quality(
        RING, in_steps=(1, 2, 4), label=0, scale=SCALE, draws=5000, middle=MIDDLE
    )
    teacher = {
        "student": net,
        "distiller": {"name": "denoising", "teacher": {"density": RING}, "labels": True},
        "optimizer": adamw(2e-3, 100),
        "batch_size": 128,
        "steps": 3000,
    }
    student = {
        "student": adapters(16),
        "distiller": consistent((1.0, 5.0), points=18, ema=0.99),
        "optimizer": adamw(1e-3, 100),
        "batch_size": 128,
        "steps": 4000,
        "evaluate": {"quality": {**quality, "embedded": True}},
        "pictures": ("samples",),
    }
    # The teacher as it is, guided in two passes.
    by_itself = at("stages/student", steps=200) | at("stages/student/student", scale=0.0)
    by_itself |= at("stages/student/evaluate/quality", embedded=False, solver="dpm_solver")
    found, against = "student/validation", ("teacher", "adapters")
    one = "one step is nearer than one of the teacher by 0.2"
    off = "one step is at most 0.03 farther off than of a student trained whole"
    four = "four steps are nearer than four of the teacher"
    return {
        **samplers.on_ring(
            "LCM-LoRA on a ring", SENTENCE, {"teacher": teacher, "student": student}, classes=2
        ),
        "claim": {
            "sentence": "Adapters sample in few steps what takes the teacher many.",
            "metric": f"{found}/sliced_wasserstein_1",
            "arms": {
                "adapters": {},
                "whole": {"stages/student/student": net, "stages/student/initial": TEACHER},
                "teacher": by_itself,
            },
            "contrasts": {
                "one step": above(
                    *against, one, 0.2, origin="half of how far one of the teacher was in the pilot"
                ),
                "whole": above(
                    "whole",
                    "adapters",
                    off,
                    -0.03,
                    origin="a quarter of how far off that was in the pilot",
                ),
                "four steps": above(*against, four, metric=f"{found}/sliced_wasserstein_4"),
            },
        },
    }


def small() -> dict:
    quality = samplers.image_quality(in_steps=(1, 2, 4), scale=SCALE, middle=MIDDLE)
    teacher = samplers.digits_stage(
        student_of(perceptron(256, 3)),
        {"name": "denoising", "ema": 0.999, "frozen": ("classifier",)},
        peak=1e-3,
        steps=8000,
        quality=samplers.image_quality(solver="heun", in_steps=(18,), scale=SCALE),
    )
    student = samplers.digits_stage(
        adapters(24),
        consistent((1.0, 5.0), frozen=("classifier", "teacher"), ema=0.999),
        peak=3e-4,
        steps=8000,
        quality={**quality, "embedded": True},
    )
    del student["distiller"]["labels"]  # they are always inputs
    return samplers.on_digits("LCM-LoRA in small", SENTENCE, teacher, student)


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
