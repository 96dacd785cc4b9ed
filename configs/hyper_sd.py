"""Hyper-SD: consistency within 8, 4, 2 and 1 segments of the way, then a reward and one step.

Ren et al., Hyper-SD: Trajectory Segmented Consistency Model for Efficient Image Synthesis, NeurIPS
2024: from SDXL in one step a CLIP score of 32.85 and an aesthetic one of 5.85. Adapters of low
rank, one set for all numbers of steps; the squared distance gives way to an adversary; a reward;
score distillation for one step; samples by TCD.

On the net of ImageNet-64 in place of SDXL, with the published batch, rate and segments; lengths and
the weights of the two distances are ours, and a reward is to be named (``reward``):

    python -m jaxdistill.main --config=configs/hyper_sd.py --workdir=runs/hyper_sd
        --config.data.dir=<folder>

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/hyper_sd.py:mixture --seeds=5
        --workdir=runs/hyper_sd_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/hyper_sd.py:small --workdir=runs/hyper_sd_small

Expect one and four steps of segments as near as those of consistency over the whole way.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import denoiser, perceptron

SENTENCE = "Segments of the way, ever fewer, lead to one step."
SEGMENTS = {"eight": 8, "four": 4, "two": 2, "student": 1}
# The edges of four segments between 80 and 0.002.
MIDDLE = (17.52, 2.514, 0.1692)
WHERE = ("conv_", "qkv", "proj", "given/")


def segmented(teacher: dict, initial: str, frozen: tuple = (), **settings) -> dict:
    """A stage for every number of segments, each from the one before."""
    shared, parts = settings.pop("distiller", {}), settings.pop("parts", None)
    stages = {}
    for name, segments in SEGMENTS.items():
        own = {"name": "segmented", "teacher": teacher, "segments": segments, **shared}
        stages[name] = {
            "distiller": {**own, "frozen": frozen},
            "initial": {"stage": initial, "parts": parts} if initial else None,
            **settings,
        }
        initial = name
    return stages


def published() -> dict:
    adapters = {"net": "lora", "base": "teacher", "at": WHERE, "rank": 64}
    stages = segmented(
        {"stage": "teacher"},
        "",
        ("teacher",),
        distiller={"labels": True, "levels": 50, "scale": 3.0},
        student=adapters,
        parts={"": "own"},
        optimizer=adamw(1e-6, 500),
        batch_size=512,
        steps=10_000,
        checkpoint_every=1000,
        view=samplers.CENTRED_64,
    )
    # The adversary takes over where segments are few.
    for name, square, weight in (
        ("eight", 1.0, 0.05), ("four", 1.0, 0.1), ("two", 0.5, 0.5), ("student", 0.1, 1.0),
    ):  # fmt: skip
        adversary = {"taps": ("bottleneck",), "weight": weight}
        judged = {"features": "teacher", "square": square, "adversary": adversary}
        stages[name]["distiller"] |= judged
    one_step = {
        **stages["student"],
        "distiller": {
            "name": "distribution_matching",
            "frozen": ("teacher",),
            "teacher": {"stage": "teacher"},
            "labels": True,
        },
        "initial": {"stage": "student", "parts": {"": "own"}},
    }
    whole = samplers.imagenet_64("Hyper-SD, ImageNet-64", SENTENCE, one_step)
    stages = {"teacher": whole["stages"]["teacher"], **stages, "one_step": one_step}
    return {**whole, "stages": stages, "recipe": tuple(stages)}


def mixture() -> dict:
    net = denoiser(perceptron(128, 2), time="angle")
    quality = samplers.density_quality(
        solver="trajectory_consistency", in_steps=(1, 4), middle=MIDDLE, mode=0, draws=20_000
    )
    stages = segmented(
        {"density": samplers.RING},
        "fit",
        distiller={"order": 2, "levels": 16, "ema": 0.95},
        student=net,
        optimizer=adamw(2e-3, 100),
        batch_size=128,
        steps=1200,
    )
    stages["student"] |= {"evaluate": {"quality": quality}, "pictures": ("samples",)}
    at = "stages/student/distiller"
    direct = {f"stages/{name}/distiller/segments": 1 for name in SEGMENTS}
    liked = {
        f"{at}/reward": {"density": samplers.RING, "mode": 0},
        f"{at}/feedback": {"weight": 0.01, "enough": 1.0},
    }
    found = "student/validation"
    pair = ("direct", "segments")
    return {
        **samplers.on_ring(
            "Hyper-SD on a ring", SENTENCE, {"fit": samplers.ring_fit(net, 2000), **stages}
        ),
        "claim": {
            "sentence": "Segments cost nothing in one step or in four, and a reward moves samples.",
            "metric": f"{found}/sliced_wasserstein_1",
            "arms": {"segments": {}, "direct": direct, "rewarded": liked},
            "contrasts": {
                "one step": above(*pair, "one step is at most 0.02 farther", -0.02),
                "four steps": above(
                    *pair,
                    "four steps are at most 0.02 farther",
                    -0.02,
                    metric=f"{found}/sliced_wasserstein_4",
                ),
                "reward": above(
                    "rewarded",
                    "segments",
                    "a reward moves 0.05 of all samples to its mode",
                    0.05,
                    metric=f"{found}/mode_share_1",
                ),
                "in modes": above(
                    "rewarded",
                    "segments",
                    "at most 0.1 of all samples leave the modes",
                    -0.1,
                    metric=f"{found}/mode_quality_1",
                ),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True, time="angle")
    held = ("classifier", "teacher")
    stages = segmented(
        {"stage": "teacher"},
        "teacher",
        held,
        distiller={"labels": True, "order": 2, "levels": 16, "ema": 0.95},
        student=net,
        optimizer=adamw(3e-4, 100),
        batch_size=128,
        steps=2000,
        view={"augment": samplers.CENTRED},
    )
    middle, solver = MIDDLE, "trajectory_consistency"
    quality = samplers.student_quality(in_steps=(1, 4), middle=middle, solver=solver)
    stages["student"] |= {"evaluate": {"quality": quality}, "pictures": ("samples",)}
    whole = samplers.on_digits(
        "Hyper-SD in small", SENTENCE, samplers.digits_teacher(net), stages["student"]
    )
    recipe = ("classifier", "teacher", *stages)
    return {**whole, "stages": {**whole["stages"], **stages}, "recipe": recipe}


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
