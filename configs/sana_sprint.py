"""SANA-Sprint: a flow becomes a consistency model of continuous time, with an adversary on the
frozen teacher's features.

Chen et al., SANA-Sprint: One-Step Diffusion with Continuous-Time Consistency Distillation, ICCV
2025: images of 1024 pixels in 1 to 4 steps of one model, FID 7.59 in one step. The teacher's flow
is turned into TrigFlow without training; guidance is an input.

SANA itself is not among the nets here: these are the published losses, levels and weights on the
net of ImageNet at 64 x 64, of which the features of the middle are judged. The teacher is trained
first, or given by ``--config.stages.teacher.checkpoint=<folder of a stage>``:

    python -m jaxdistill.main --config=configs/sana_sprint.py --workdir=runs/sana_sprint
        --config.data.dir=<folder>

A ring of eight Gaussians, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/sana_sprint.py:mixture --seeds=5
        --workdir=runs/sana_sprint_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/sana_sprint.py:small --workdir=runs/sana_small

Expect one step near the density, and more steps no farther from it.
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above, within
from jaxdistill.presets.optimizers import adamw
from jaxdistill.presets.samplers import IMAGENET_64, denoiser, perceptron

SENTENCE = "A flow becomes a sampler of one to four steps, with an adversary on its own features."
# Levels between steps: the angles 1.18, 0.79 and 0.38.
MIDDLE = (1.2, 0.5, 0.2)


def published() -> dict:
    net = denoiser({**IMAGENET_64, "guidance": True}, conditional=True, time="flow")
    student = {
        "student": net,
        "distiller": {
            "name": "latent_adversarial",
            "frozen": ("teacher",),
            "teacher": {"stage": "teacher"},
            "features": "teacher",
            "labels": True,
            "scales": (4.0, 4.5, 5.0),
        },
        "initial": {"stage": "teacher"},
        "optimizer": {**adamw(2e-6, 5000), "clip": 0.1},
        "batch_size": 1024,
        "steps": 20_000,
        "checkpoint_every": 1000,
    }
    found = samplers.imagenet_64("SANA-Sprint, ImageNet-64", SENTENCE, student)
    found["stages"]["teacher"]["student"] = net
    return found


def arms(frozen: tuple[str, ...], teacher: dict, judged: str, **consistency) -> tuple[dict, dict]:
    """The distiller, and the same without its adversary."""
    shared = {"frozen": frozen, "teacher": teacher, "ema": 0.999}
    both = {
        **shared,
        "name": "latent_adversarial",
        "features": judged,
        "consistency": consistency,
        "adversary": {"taps": ("block_0", "bottleneck")},
        "critic_optimizer": adamw(1e-3, 100),
    }
    return both, {**shared, "name": "continuous_consistency", **consistency}


def mixture() -> dict:
    net = denoiser(perceptron(128, 2), time="flow")
    exact = {"density": samplers.RING}
    both, alone = arms(("fit",), exact, "fit", mean=-1.0, std=1.4, warmup=500)
    student = {
        "student": net,
        "distiller": both,
        "initial": {"stage": "fit"},
        "optimizer": adamw(3e-4, 100),
        "batch_size": 128,
        "steps": 3000,
        "evaluate": {"quality": samplers.density_quality(in_steps=(1, 2, 4), middle=MIDDLE)},
        "pictures": ("samples",),
    }
    # Where the student starts from, and whose features are judged; the teacher is exact.
    stages = {"fit": samplers.ring_fit(net, 1500), "student": student}
    found = "student/validation"
    return {
        **samplers.on_ring("SANA-Sprint on a ring", SENTENCE, stages),
        "claim": {
            "sentence": "One step is near the density, nearer with the adversary than without it.",
            "metric": f"{found}/sliced_wasserstein_1",
            "arms": {"adversarial": {}, "alone": {"stages/student/distiller": alone}},
            "contrasts": {
                **samplers.ring_gates("adversarial"),
                "adversary": above("alone", "adversarial", "the adversary brings it nearer"),
                "steps": within(
                    "adversarial",
                    0.005,
                    "two and four steps are no farther off than one and two",
                    f"{found}/rise",
                    origin="four deviations of what chance alone makes of it",
                ),
            },
        },
    }


def small() -> dict:
    net = denoiser(perceptron(256, 3), conditional=True, time="flow")
    held = ("classifier", "teacher")
    both, alone = arms(held, {"stage": "teacher"}, "teacher", mean=0.2, std=1.6, warmup=1000)
    student = samplers.digits_stage(
        net,
        both,
        peak=1e-4,
        steps=4000,
        quality=samplers.student_quality(in_steps=(1, 2, 4), middle=MIDDLE),
        initial={"stage": "teacher"},
    )
    asked = "the adversary lowers the kernel distance of one step"
    claim = samplers.gap_claim(
        {"adversarial": {}, "alone": {"stages/student/distiller": {**alone, "labels": True}}},
        {"one step": ("in one step", "adversarial", 1)},
    )
    claim["contrasts"]["adversary"] = above("alone", "adversarial", asked)
    return {
        **samplers.on_digits(
            "SANA-Sprint in small", SENTENCE, samplers.digits_teacher(net), student
        ),
        "variants": {"fashion_mnist": samplers.fashion_mnist()},
        "claim": claim,
    }


VARIANTS = {"": published, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, ``mixture`` on a density that is known, or ``small`` on digits."""
    return chosen(VARIANTS, variant, __file__)
