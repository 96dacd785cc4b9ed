"""LoRA-enhanced guidance: adapters on a frozen denoiser learn to say in one pass what it says in
two.

Golnari, LoRA-Enhanced Distillation on Guided Diffusion Models, 2023: the student of Meng et al.
(``guidance``) is its teacher with low-rank adapters. Weights exist once, and the optimizer holds
the adapters alone. Published are half of the memory and much less time on Stable Diffusion.

Stable Diffusion is not among the nets here: this is the same on ImageNet at 64 x 64. The teacher
has a layer for the scale that it is never given. It is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/lora_guidance.py --workdir=runs/lora_guidance
        --config.data.dir=<folder>

A ring of eight Gaussians in two classes, minutes a seed:

    python -m jaxdistill.claim --config=configs/lora_guidance.py:mixture --seeds=5
        --workdir=runs/lora_guidance_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/lora_guidance.py:small --workdir=runs/lora_small

Expect ``guidance_left`` (1 for the teacher, 0 for a perfect student) to fall with the rank.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, samplers
from jaxdistill.presets.claims import above, within
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import adapters, denoiser, perceptron

SENTENCE = "Adapters on a frozen denoiser say in one pass what it says in two."
RING = {"name": "ring", "classes": 2}
# The scales that a student learns, and the one that samples are compared at; 1 is no guidance.
SCALES, SCALE = (1.0, 5.0), 3.0
TEACHER = {"stage": "teacher"}
LEFT = {"evaluator": "guidance_left", "sets": ("validation",), "guide": TEACHER, "scales": SCALES}


def guided(**settings) -> dict:
    named = {"name": "denoising", "teacher": TEACHER, "labels": True, "scales": SCALES}
    return {**named, "frozen": ("teacher",), **settings}


def published() -> dict:
    student = {
        "student": adapters(64, samplers.INSIDE_64),
        "distiller": guided(),
        "optimizer": adamw(1e-4, 500),
        "batch_size": 256,
        "steps": 20_000,
        "checkpoint_every": 2000,
    }
    found = samplers.imagenet_64("LoRA-enhanced guidance, ImageNet-64", SENTENCE, student)
    teacher = found["stages"]["teacher"]
    backbone = {**samplers.IMAGENET_64, "guidance": True}
    teacher["student"] = denoiser(backbone, conditional=True)
    return found


def mixture() -> dict:
    net = denoiser(perceptron(128, 2, guidance=True), conditional=True)
    learned = {"optimizer": adamw(2e-3, 100), "batch_size": 128}
    quality = samplers.density_quality(
        RING, solver="heun", in_steps=(18,), label=0, scale=SCALE, draws=5000
    )
    teacher = {
        "student": net,
        "distiller": {"name": "denoising", "teacher": {"density": RING}, "labels": True},
        **learned,
        "steps": 3000,
    }
    student = {
        "student": adapters(4),
        "distiller": guided(ema=0.99),
        **learned,
        "steps": 2000,
        "evaluate": {"left": LEFT, "quality": {**quality, "embedded": True}},
        "pictures": ("samples",),
    }
    far = "student/validation/sliced_wasserstein_18"
    # The teacher as it is.
    two_passes = at("stages/student", steps=200) | at("stages/student/student", scale=0.0)
    two_passes["stages/student/evaluate/quality/embedded"] = False
    title, stages = "LoRA-enhanced guidance on a ring", {"teacher": teacher, "student": student}
    return {
        **samplers.on_ring(title, SENTENCE, stages, classes=2),
        "claim": {
            "sentence": "Guidance goes into thin adapters, the better the wider they are.",
            "metric": "student/validation/guidance_left",
            "arms": {
                "adapters": {},
                "thin": {"stages/student/student/rank": 1},
                "whole": {"stages/student/student": net, "stages/student/initial": TEACHER},
                "two passes": two_passes,
            },
            "contrasts": {
                "rank": above("thin", "adapters", "rank 4 misses less than rank 1"),
                "left": within(
                    "adapters",
                    0.02,
                    "one pass misses at most 0.02 of guidance",
                    origin="the teacher as it is misses all of it",
                ),
                "one pass": above(
                    "two passes",
                    "adapters",
                    "its samples are at most 0.02 farther off than those of two passes",
                    -0.02,
                    far,
                    origin="as asked of a student that is trained whole",
                ),
            },
        },
    }


def small() -> dict:
    guided_samples = samplers.image_quality(solver="heun", in_steps=(1, 18), scale=SCALE)
    teacher = samplers.digits_stage(
        denoiser(perceptron(256, 3, guidance=True), conditional=True),
        {"name": "denoising", "ema": 0.999, "frozen": ("classifier",)},
        peak=1e-3,
        steps=8000,
        quality=guided_samples,
    )
    student = samplers.digits_stage(
        adapters(8),
        guided(frozen=("classifier", "teacher"), ema=0.999),
        peak=1e-3,
        steps=8000,
        quality={**guided_samples, "embedded": True},
    )
    left = {**LEFT, "augment": samplers.CENTRED}
    student["evaluate"] = {**student["evaluate"], "left": left}
    return samplers.on_digits("LoRA-enhanced guidance in small", SENTENCE, teacher, student)


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
