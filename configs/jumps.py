"""Jumps: MeanFlow, shortcut models, consistency trajectories (CTM) and progressive distillation.

Salimans and Ho, Progressive Distillation, ICLR 2022; Kim et al., Consistency Trajectory Models,
ICLR 2024; Frans et al., One Step Diffusion via Shortcut Models, ICLR 2025; Geng et al., Mean Flows
for One-step Generative Modeling, NeurIPS 2025. A net learns to go from any level of noise to any
lower one.

ImageNet at 64 x 64, with the published rates, batches and lengths; MeanFlow and shortcut models
were published on latents of 256 x 256 with a DiT-B, which here sees pixels, and CTM is without its
discriminator:

    python -m jaxdistill.main --config=configs/jumps.py --workdir=runs/jumps
        --config.data.dir=<folder>

``:shortcuts``, ``:consistency_trajectories`` and ``:progressive`` are the others. A ring of eight
Gaussians, whose score is exact, all four; minutes a seed:

    python -m jaxdistill.claim --config=configs/jumps.py:mixture --seeds=5 --workdir=runs/jumps_ring

Digits, by MeanFlow, minutes:

    python -m jaxdistill.main --config=configs/jumps.py:small --workdir=runs/jumps_small

Expect one step near the density (0.015 to 0.049 on the ring).
"""

from functools import partial

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, recipe, samplers
from jaxdistill.presets.claims import within
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import IMAGENET_64, MIDDLE, denoiser, perceptron

SENTENCE = "A net goes from any level of noise to any lower one."
DIT_B = {"net": "dit", "patch": 4, "width": 768, "heads": 12, "dtype": "bfloat16", "jumps": True}
# Steps of the student after each halving; the last stage makes one.
HALVINGS = (16, 8, 4, 2)


def from_data(distiller: dict, rate: dict, steps: int) -> dict:
    student = {
        "student": denoiser(DIT_B, conditional=True, time="angle"),
        "distiller": {**distiller, "labels": True},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4, **rate},
        "view": samplers.CENTRED_64,
        "batch_size": 256,
        "steps": steps,
        "checkpoint_every": 10_000,
    }
    data = {"name": "imagenet2012", "dir": "", "image_size": 64, "validation": 0.01}
    return recipe(f"{distiller['name']}, ImageNet-64", SENTENCE, data, {"student": student})


def trajectories() -> dict:
    student = {
        "student": denoiser({**IMAGENET_64, "jumps": True}, conditional=True, time="angle"),
        "distiller": {
            "name": "consistency_trajectories",
            "frozen": ("teacher",),
            "teacher": {"stage": "teacher"},
            "levels": 40,
            "labels": True,
        },
        "optimizer": {"name": "radam", "learning_rate": 8e-6},
        "batch_size": 2048,
        "steps": 30_000,
        "checkpoint_every": 1000,
    }
    return samplers.imagenet_64("Consistency trajectories, ImageNet-64", SENTENCE, student)


def progressive() -> dict:
    net = denoiser(IMAGENET_64, conditional=True)
    linear = {"schedule": "linear", "start": 1e-4, "end": 0.0}
    steps = {f"halved_{2**n}": (2**n, 100_000 if n == 1 else 50_000) for n in range(9, 0, -1)}
    stages = samplers.halvings(
        {**steps, "student": (1, 100_000)},
        {"stage": "teacher"},
        "teacher",
        labels=True,
        student=net,
        optimizer={"name": "adamw", "learning_rate": linear, "clip": 1.0},
        batch_size=2048,
        view=samplers.CENTRED_64,
    )
    whole = samplers.imagenet_64("Progressive, ImageNet-64", SENTENCE, stages["student"])
    return {**whole, "stages": {**whole["stages"], **stages}, "recipe": ("teacher", *stages)}


def mixture() -> dict:
    net = denoiser(perceptron(128, 2), time="angle")
    teacher = {"density": samplers.RING}
    optimizer = adamw(2e-3, 100)
    quality = samplers.density_quality(solver="jump", in_steps=(1, 2), middle=MIDDLE, draws=20_000)
    student = {
        "student": denoiser(perceptron(128, 2, jumps=True), time="angle"),
        "distiller": {"name": "mean_flow", "teacher": teacher, "ema": 0.995},
        "initial": {"stage": "fit"},
        "optimizer": adamw(3e-3, 100),
        "batch_size": 128,
        "steps": 4000,
        "evaluate": {"quality": quality},
        "pictures": ("samples",),
    }
    steps = {f"halved_{n}": (n, 600) for n in HALVINGS} | {"student": (1, 600)}
    halvings = samplers.halvings(
        steps, teacher, "fit", student=net, optimizer=optimizer, batch_size=128
    )
    last, at = halvings.pop("student"), "stages/student"

    def other(name: str, steps: int, **settings) -> dict:
        distiller = {"name": name, "teacher": teacher, "ema": 0.995, **settings}
        changed = {"distiller": distiller, "optimizer": optimizer, "steps": steps}
        return {f"{at}/{key}": value for key, value in changed.items()}

    arms = {
        "mean_flow": {},
        # Fewer levels than published, and more jumps: there are fewer steps to learn them.
        "shortcuts": other("shortcuts", 3000, finest=32, bootstrapped=0.5),
        "consistency_trajectories": other("consistency_trajectories", 2500, ahead=2),
    }
    arms["progressive"] = {
        "recipe": ("fit", *halvings, "student"),
        **{
            f"{at}/{key}": last[key]
            for key in ("student", "distiller", "initial", "optimizer", "steps")
        },
        # A net that is not told where a jump ends.
        f"{at}/evaluate/quality/solver": "consistency",
    }
    stages = {"fit": samplers.ring_fit(net, 2000), **halvings, "student": student}
    origin = "exact samples are 0.004 from it, one step of a fitted net 0.5"
    near = "one step is at most 0.06 from the density"
    return {
        **samplers.on_ring("Jumps on a ring", SENTENCE, stages),
        "recipe": ("fit", "student"),
        "claim": {
            "sentence": "One step of any of the four is near the density.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": arms,
            "contrasts": {name: within(name, 0.06, near, origin=origin) for name in arms},
        },
    }


def small() -> dict:
    teacher = denoiser(perceptron(256, 3), conditional=True, time="angle")
    student = samplers.digits_stage(
        denoiser(perceptron(256, 3, jumps=True), conditional=True, time="angle"),
        {
            "name": "mean_flow",
            "frozen": ("classifier", "teacher"),
            "teacher": {"stage": "teacher"},
            "ema": 0.999,
        },
        peak=3e-4,
        steps=8000,
        quality=samplers.student_quality(in_steps=(1, 2), middle=MIDDLE, solver="jump"),
        initial={"stage": "teacher"},
    )
    return samplers.on_digits("Jumps in small", SENTENCE, samplers.digits_teacher(teacher), student)


MEAN_FLOW = {"name": "mean_flow", "scale": 1.0, "share": 0.5, "ema": 0.9999}
VARIANTS = {
    "": partial(from_data, MEAN_FLOW, {"b2": 0.95}, 400_000),
    "shortcuts": partial(from_data, {"name": "shortcuts"}, {"weight_decay": 0.1}, 800_000),
    "consistency_trajectories": trajectories,
    "progressive": progressive,
    "mixture": mixture,
    "small": small,
}


def get_config(variant: str = "") -> ConfigDict:
    """MeanFlow as published, the others by name, ``mixture`` on a density that is known, or
    ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
