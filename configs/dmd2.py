"""DMD2: a generator of one step, trained until a teacher and an estimate of its own density agree
on its samples.

Yin et al., Improved Distribution Matching Distillation, NeurIPS 2024: on ImageNet-64 one step
reaches an FID of 1.28. Five updates of the estimate for one of the generator, and a discriminator
on the estimate's features.

ImageNet at 64 x 64, the published sizes; the teacher is trained first, or given by
``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/dmd2.py --workdir=runs/dmd2
        --config.data.dir=<folder>

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/dmd2.py:mixture --seeds=8 --workdir=runs/dmd2_ring

Digits, minutes; ``--config.data.name=fashion_mnist --config.data.dir=<folder>`` for Fashion-MNIST
at 14 x 14 pixels:

    python -m jaxdistill.main --config=configs/dmd2.py:small --workdir=runs/dmd2_small

Expect one step of the student near the many of its teacher, and far from the teacher's own one
step: ``sliced_wasserstein_<steps>`` on the ring, ``kid_<steps>`` on images, ``kid_real`` the floor.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import rates
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import denoiser, perceptron, ring_gates
from jaxdistill.presets.score_matching import imagenet_64_stage

SENTENCE = "One step of a generator replaces the many of its teacher."
ADVERSARIAL = {"stages/student/distiller/adversarial": True}


def published() -> dict:
    distiller = {
        "name": "distribution_matching",
        "frozen": ("teacher",),
        "teacher": {"stage": "teacher"},
        "adversarial": True,
    }
    # Steps of the generator: a fifth of the published 200,000 updates of the estimate.
    student = imagenet_64_stage(distiller, 40_000)
    return samplers.imagenet_64("DMD2, ImageNet-64", SENTENCE, student)


def mixture() -> dict:
    net = denoiser(perceptron(128, 2))
    student = {
        "student": net,
        "distiller": {
            "name": "distribution_matching",
            "teacher": {"density": samplers.RING},
            "ratio": 5,
            "adversarial": False,
        },
        "initial": {"stage": "fit"},
        "optimizer": adamw(5e-4, 100),
        "batch_size": 256,
        "steps": 1000,
        "evaluate": {"quality": samplers.density_quality(in_steps=(1,))},
        "pictures": ("samples",),
    }
    # Where generator and estimate start from; the teacher is the density itself.
    stages = {"fit": samplers.ring_fit(net, 1500), "student": student}
    return {
        **samplers.on_ring("DMD2 on a ring", SENTENCE, stages),
        "claim": {
            "sentence": "One step of a generator is as good as the many of its teacher.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {"plain": {}, "adversarial": ADVERSARIAL},
            "contrasts": {
                **ring_gates("plain", "plain, "),
                **ring_gates("adversarial", "adversarial, "),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True)
    student = samplers.digits_stage(
        net,
        {
            "name": "distribution_matching",
            "frozen": ("classifier", "teacher"),
            "teacher": {"stage": "teacher"},
            "ratio": 5,
            "adversarial": False,
            "ema": 0.99,
        },
        peak=2e-4,
        steps=2500,
        quality=samplers.student_quality(in_steps=(1,)),
        initial={"stage": "teacher"},
    )
    peaks = (5e-5, 2e-4, 1e-3)
    return {
        **samplers.on_digits("DMD2 in small", SENTENCE, samplers.digits_teacher(net), student),
        "variants": {
            "fashion_mnist": {**samplers.fashion_mnist(), "stages/student/steps": 1000},
        },
        "claim": samplers.gap_claim(
            arms={"plain": {}, "adversarial": ADVERSARIAL},
            contrasts={
                "plain": ("without the discriminator", "plain", 1),
                "adversarial": ("with it", "adversarial", 1),
            },
        ),
        "tune": samplers.tuned_by_kid(
            {
                "plain": rates("student", peaks),
                "adversarial": rates("student", peaks, ADVERSARIAL),
            }
        ),
    }


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
