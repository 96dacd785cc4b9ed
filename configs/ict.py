"""iCT: a consistency model from data alone, of pairs of neighbouring levels on a grid that doubles.

Song and Dhariwal, Improved Techniques for Training Consistency Models, ICLR 2024: one step reaches
an FID of 2.51 on CIFAR-10 and 3.25 on ImageNet-64, two steps 2.24 and 2.77. No average in the
target, the pseudo-Huber distance, grids of 10 to 1280 intervals.

CIFAR-10, the published sizes:

    python -m jaxdistill.main --config=configs/ict.py --workdir=runs/ict

A ring of eight Gaussians; minutes a seed:

    python -m jaxdistill.claim --config=configs/ict.py:mixture --seeds=3 --workdir=runs/ict_ring

Digits, minutes; ``--config.data.name=fashion_mnist --config.data.dir=<folder>`` for Fashion-MNIST
at 14 x 14 pixels:

    python -m jaxdistill.main --config=configs/ict.py:small --workdir=runs/ict_small

Expect two steps nearer the density than one, both far nearer than one step of a denoiser.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, recipe, samplers
from jaxdistill.presets.claims import above, rates, reaches
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import MIDDLE, denoiser, perceptron

SENTENCE = "A consistency model from data alone."
# An FID of 2.24 in two steps is 0.89 of 2.51 in one, on CIFAR-10; 2.77 is 0.85 of 3.25.
GAIN = 0.11


def published() -> dict:
    student = {
        "student": denoiser({"net": "unet", "depth": 8, "dropout": 0.3}, sigma_min=0.002),
        "distiller": {"name": "consistency", "ema": 0.99993},
        "optimizer": {"name": "radam", "learning_rate": 1e-4},
        "view": {"augment": ({"name": "flip"}, samplers.COLOURS)},
        "batch_size": 1024,
        "steps": 400_000,
        "checkpoint_every": 10_000,
    }
    return recipe(
        title="iCT, CIFAR-10",
        sentence=SENTENCE,
        data={"name": "tfds", "dataset": "cifar10", "dir": "", "validation": 0.02},
        stages={"student": student},
    )


def mixture() -> dict:
    student = {
        "student": denoiser(perceptron(128, 2), sigma_min=0.002),
        "distiller": {"name": "consistency", "first": 10, "last": 80, "ema": 0.999},
        "optimizer": adamw(1e-3, 100),
        "batch_size": 256,
        "steps": 6000,
        "evaluate": {"quality": samplers.density_quality(in_steps=(1, 2), middle=MIDDLE)},
        "pictures": ("samples",),
    }
    grid, doubling = "stages/student/distiller", "a grid that doubles beats one that stays"
    return {
        **samplers.on_ring("iCT on a ring", SENTENCE, {"student": student}),
        "claim": {
            "sentence": "One step is near the density.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {"doubling": {}, "fixed": {f"{grid}/first": 40, f"{grid}/last": 40}},
            "contrasts": {
                **samplers.ring_gates("doubling"),
                "doubling": above("fixed", "doubling", doubling),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True)
    student = samplers.digits_stage(
        {**net, "sigma_min": 0.002},
        {
            "name": "consistency",
            # The teacher is there to be compared with.
            "frozen": ("classifier", "teacher"),
            "first": 10,
            "last": 80,
            "ema": 0.999,
        },
        # The best of three on a tuning seed.
        peak=3e-4,
        steps=16_000,
        quality=samplers.student_quality(in_steps=(1, 2), middle=MIDDLE),
    )
    two = "the second step takes away at least 0.11 of the first one's FID"
    metric = "student/test/fid_gain"
    gain = reaches("student", GAIN, two, metric=metric, origin="paper")
    return {
        **samplers.on_digits("iCT in small", SENTENCE, samplers.digits_teacher(net), student),
        "variants": {"fashion_mnist": samplers.fashion_mnist(**{"claim/contrasts/gain": gain})},
        "claim": samplers.gap_claim_in_two_steps(),
        "tune": samplers.tuned_by_kid({"student": rates("student", (1e-4, 3e-4, 1e-3))}),
    }


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
