"""BOOT: a generator of one step, bootstrapped along its teacher's way from noise alone.

Gu et al., BOOT: Data-free Distillation of Denoising Diffusion Models with Bootstrapping, ICML 2024:
one step is comparable with the teacher's many by DDIM, and no data is read. The net says the signal
of a noise at any level, and each level learns from one above it and a step of the teacher.

ImageNet at 64 x 64, the sizes of EDM, with guidance as an input; batch, rate and length are ours,
and the stages have no data but for the teacher:

    python -m jaxdistill.main --config=configs/boot.py --workdir=runs/boot
        --config.data.dir=<folder>

A ring of eight Gaussians, whose way is exact, beside consistency distillation of as many steps;
minutes a seed:

    python -m jaxdistill.claim --config=configs/boot.py:mixture --seeds=5 --workdir=runs/boot_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/boot.py:small --workdir=runs/boot_small

Expect one step near the density (0.011 on the ring), and an error that grows from noise to data.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above, reaches, within
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import IMAGENET_64, MIDDLE, denoiser, perceptron

SENTENCE = "A generator of one step from noise and a teacher alone."


def published() -> dict:
    backbone = {**IMAGENET_64, "guidance": True, "jumps": True}
    student = {
        "student": denoiser(backbone, conditional=True, time="angle"),
        "distiller": {
            "name": "bootstrapped",
            "frozen": ("teacher",),
            "teacher": {"stage": "teacher"},
            "count": 1024,
            "labels": True,
            "scales": (1.0, 5.0),
            "ema": 0.9999,
        },
        "initial": {"stage": "teacher"},
        "optimizer": adamw(1e-4, 1000),
        "steps": 500_000,
        "checkpoint_every": 10_000,
    }
    return samplers.imagenet_64("BOOT, ImageNet-64", SENTENCE, student)


def mixture() -> dict:
    teacher = {"density": samplers.RING}
    quality = samplers.density_quality(solver="jump", in_steps=(1,), draws=20_000)
    way = {"evaluator": "signal_error", "sets": ("validation",), "density": samplers.RING}
    student = {
        "student": denoiser(perceptron(128, 2, jumps=True), time="angle"),
        "distiller": {
            "name": "bootstrapped",
            "teacher": teacher,
            "order": 2,
            "count": 128,
            "ema": 0.995,
        },
        "initial": {"stage": "fit"},
        "optimizer": adamw(2e-3, 100),
        "batch_size": 128,
        "steps": 4000,
        "evaluate": {"quality": quality, "way": way},
        "pictures": ("samples",),
    }
    at = "stages/student"
    consistency = {
        f"{at}/student": denoiser(perceptron(128, 2), time="angle", sigma_min=0.002),
        f"{at}/distiller": {
            **{"name": "consistency", "teacher": teacher, "ema": 0.995},
            **{"first": 18, "last": 18},
        },
        f"{at}/evaluate/quality/solver": "consistency",
        f"{at}/evaluate/way": None,
    }
    found = "student/validation"
    near = "one step is at most 0.06 from the density"
    growth = "the error at the data is larger than near the noise"
    both = "at most 0.03 farther than consistency distillation of as many steps"
    return {
        **samplers.on_ring(
            "BOOT on a ring",
            SENTENCE,
            {"fit": samplers.ring_fit(denoiser(perceptron(128, 2), time="angle"), 2000)}
            | {"student": student},
        ),
        "claim": {
            "sentence": "Without data one step is near the density.",
            "metric": f"{found}/sliced_wasserstein_1",
            "arms": {"boot": {}, "consistency": consistency},
            "contrasts": {
                "distance": within("boot", 0.06, near, origin="as of one step on the ring"),
                "consistency": above("consistency", "boot", both, -0.03, origin="half of that"),
                "growth": reaches("boot", 0.0, growth, metric=f"{found}/signal_growth"),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True, time="angle")
    student = samplers.digits_stage(
        denoiser(perceptron(256, 3, jumps=True), conditional=True, time="angle"),
        {
            "name": "bootstrapped",
            "frozen": ("classifier", "teacher"),
            "teacher": {"stage": "teacher"},
            "count": 128,
            "ema": 0.999,
        },
        peak=3e-4,
        steps=8000,
        quality=samplers.student_quality(in_steps=(1,), middle=MIDDLE, solver="jump"),
        initial={"stage": "teacher"},
    )
    return samplers.on_digits("BOOT in small", SENTENCE, samplers.digits_teacher(net), student)


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
