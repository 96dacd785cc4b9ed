"""DMD: distribution matching, held to a teacher's own samples of the same noise.

Yin et al., One-step Diffusion with Distribution Matching Distillation, CVPR 2024: on ImageNet-64
one step reaches an FID of 2.62. Pairs of noise and sample are made once by the teacher's many
steps; the generator is regressed on them, with a weight of 0.25, while the estimate of its density
is updated as often as it. DMD2 (``dmd2``) has done without the pairs since.

ImageNet at 64 x 64, where the published distance of the pairs, LPIPS, is a mean square here; the
teacher is trained first, or given by ``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/dmd.py --workdir=runs/dmd --config.data.dir=<folder>

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/dmd.py:mixture --seeds=5 --workdir=runs/dmd_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/dmd.py:small --workdir=runs/dmd_small

Expect the modes in better shares with the pairs than without them.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import denoiser, perceptron, ring_gates

SENTENCE = "One step matches a density, and a teacher's samples of the same noise."
ALONE = {"stages/student/distiller/pairs": None}


def matching(teacher: dict, **settings) -> dict:
    named = {"name": "distribution_matching", "teacher": teacher, "ratio": 1, "pairs": "pairs"}
    return {**named, **settings}


def making(teacher: dict, **settings) -> dict:
    """A stage that makes pairs, so many in each of its steps as a batch has examples."""
    return {"distiller": {"name": "flow_pairs", "teacher": teacher, **settings}}


def published() -> dict:
    teacher = {"stage": "teacher"}
    pairs = {
        **making(teacher, frozen=("teacher",), labels=True, in_steps=256),
        "view": samplers.CENTRED_64,
        "batch_size": 250,
        "steps": 100,
    }
    student = {
        "student": denoiser(samplers.IMAGENET_64, conditional=True),
        "distiller": matching(teacher, frozen=("teacher", "pairs"), labels=True),
        "initial": {"stage": "teacher"},
        "optimizer": {**adamw(2e-6, 500), "weight_decay": 0.01, "clip": 10.0},
        "batch_size": 336,
        "steps": 350_000,
        "checkpoint_every": 5000,
    }
    found = samplers.imagenet_64("DMD, ImageNet-64", SENTENCE, student)
    stages = found["stages"]
    stages = {"teacher": stages["teacher"], "pairs": pairs, "student": stages["student"]}
    return {**found, "recipe": tuple(stages), "stages": stages}


def mixture() -> dict:
    net, exact = denoiser(perceptron(128, 2)), {"density": samplers.RING}
    student = {
        "student": net,
        "distiller": matching(exact, frozen=("pairs",)),
        "initial": {"stage": "fit"},
        "optimizer": adamw(5e-4, 100),
        "batch_size": 128,
        "steps": 1500,
        "evaluate": {"quality": samplers.density_quality(in_steps=(1,))},
        "pictures": ("samples",),
    }
    stages = {
        "fit": samplers.ring_fit(net, 1500),
        "pairs": {**making(exact, in_steps=40), "batch_size": 500, "steps": 20},
        "student": student,
    }
    shares = "student/validation/mode_variation_1"
    return {
        **samplers.on_ring("DMD on a ring", SENTENCE, stages),
        "claim": {
            "sentence": "Pairs bring one step nearer the density, its modes in better shares.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {"pairs": {}, "alone": ALONE},
            "contrasts": {
                **ring_gates("pairs"),
                "nearer": above(
                    "alone",
                    "pairs",
                    "with pairs one step is nearer by 0.06",
                    0.06,
                    origin="as far as one step may be off",
                ),
                "share": above(
                    "alone",
                    "pairs",
                    "with them the shares of the modes are less off, by 0.08",
                    0.08,
                    shares,
                    origin="as much as they may be off",
                ),
            },
        },
    }


def small() -> dict:
    net, teacher = denoiser(perceptron(256, 3), conditional=True), {"stage": "teacher"}
    held = ("classifier", "teacher")
    student = samplers.digits_stage(
        net,
        matching(teacher, frozen=(*held, "pairs"), ema=0.99),
        peak=2e-4,
        steps=4000,
        quality=samplers.student_quality(in_steps=(1,)),
        initial=teacher,
    )
    pairs = {
        **making(teacher, frozen=("teacher",), labels=True),
        "view": {"augment": samplers.CENTRED},
        "batch_size": 250,
        "steps": 20,
    }
    found = samplers.on_digits("DMD in small", SENTENCE, samplers.digits_teacher(net), student)
    stages = {name: found["stages"][name] for name in held}
    stages |= {"pairs": pairs, "student": student}
    arms = {"pairs": {}, "alone": ALONE}
    claim = samplers.gap_claim(arms, {"pairs": ("with pairs", "pairs", 1)})
    return {**found, "recipe": tuple(stages), "stages": stages, "claim": claim}


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
