"""Multi-student distillation: several generators of one step, each for a part of the classes.

Song et al., Multi-student Diffusion Distillation for Better One-step Generators, ICML 2025: four
students reach an FID of 1.20 on ImageNet-64 where one reaches 1.28, and four that are 42 % smaller
2.88. All match the teacher's distribution, first with pairs that they share whole, then with a
discriminator; smaller ones first learn what the teacher predicts.

ImageNet at 64 x 64, four students of the teacher's size, or ``:smaller`` ones; the teacher is
trained first, or given by ``--config.stages.teacher.checkpoint=<folder of a stage>``. ``rules`` lay
the students on the axis ``model`` of the mesh:

    python -m jaxdistill.main --config=configs/multi_student.py --workdir=runs/multi_student
        --config.data.dir=<folder> --config.mesh.model=4

A ring of sixteen Gaussians in eight classes, whose score is exact; minutes a seed:

    python -m jaxdistill.claim --config=configs/multi_student.py:mixture --seeds=5
        --workdir=runs/multi_student_ring

Digits, minutes:

    python -m jaxdistill.main --config=configs/multi_student.py:small --workdir=runs/students_small

Expect the distance of one step to fall with the number of students.
"""

import itertools

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, samplers
from jaxdistill.presets.claims import above
from jaxdistill.presets.samplers import denoiser, perceptron
from jaxdistill.presets.score_matching import (
    before_student,
    imagenet_64_stage,
    of_each,
    ring_stage,
    students,
)

SENTENCE = "Several students for parts of the classes are nearer than one of their size."
RING = {**samplers.RING, "modes": 16, "classes": 8}
COUNTS = {"one": 1, "two": 2, "four": 4, "eight": 8}


def published(width: int = 192) -> dict:
    net = students(denoiser({**samplers.IMAGENET_64, "width": width}, conditional=True), 4)
    teacher, held, small = {"stage": "teacher"}, ("teacher",), width < 192
    tells = {"teacher": teacher, "labels": True, "frozen": held}
    pairs = {"distiller": {"name": "flow_pairs", **tells}, "view": samplers.CENTRED_64}
    pairs |= {"batch_size": 500, "steps": 50}
    shape = {"student": net, "batch_size": 1024}
    learns = of_each("denoising", teacher, held, unlabelled=0.0)
    matches = {"name": "distribution_matching", "teacher": teacher, "estimate": "teacher"}
    learned = imagenet_64_stage(learns, 100_000, initial=None, **shape)
    matched = imagenet_64_stage(
        of_each(**matches, frozen=(*held, "pairs"), stacked=small, pairs="pairs"),
        40_000,
        **shape,
        initial={"stage": "learned" if small else "teacher"},
    )
    student = imagenet_64_stage(
        of_each(**matches, frozen=held, stacked=True, adversarial=True),
        20_000,
        **shape,
        initial={"stage": "matched"},
    )
    found = samplers.imagenet_64("Multi-student distillation, ImageNet-64", SENTENCE, student)
    stages = {"pairs": pairs, **({"learned": learned} if small else {}), "matched": matched}
    return {**before_student(found, **stages), "rules": ((r"students/", ("model",)),)}


def smaller() -> dict:
    return published(width=144)


def share_out(count: int) -> dict:
    return {f"stages/{stage}/student/count": count for stage in ("learned", "student")}


def mixture() -> dict:
    teacher = {"density": RING}
    large = denoiser(perceptron(64, 2), conditional=True)
    net = students(denoiser(perceptron(16, 1), conditional=True), 4)
    fit = {"name": "denoising", "teacher": teacher, "labels": True, "unlabelled": 0.0}
    matching = of_each("distribution_matching", teacher, ("fit", "pairs"), True, estimate="fit")
    pairs = {"name": "flow_pairs", "teacher": teacher, "labels": True, "in_steps": 40}
    quality = samplers.density_quality(RING, in_steps=(1,), labels=True, draws=20_000)
    quality = {"evaluate": {"quality": quality}}
    stages = {
        "fit": ring_stage(large, fit, 2e-3, 1500),
        "pairs": {"distiller": pairs, "batch_size": 500, "steps": 4},
        "learned": ring_stage(net, of_each("denoising", teacher, unlabelled=0.0), 2e-3, 1000),
        "student": ring_stage(net, matching, 1e-3, 400, initial={"stage": "learned"}, **quality),
    }
    title = "Multi-student distillation on a ring"
    found, nearer = "stages/student", "{} students are nearer than {}"
    shared = {f"{found}/distiller/of/pairs": "pairs"}
    no_worse = ("divided pairs", "shared pairs", "shared pairs are no worse, by 0.005", -0.005)
    return {
        **samplers.on_ring(title, SENTENCE, stages, modes=16, classes=8),
        "claim": {
            "sentence": "The more students share out the classes, the nearer is one step.",
            "metric": "student/validation/sliced_wasserstein_1",
            "arms": {
                **{name: share_out(count) for name, count in COUNTS.items()},
                "without": {f"{found}/initial": None},
                "shared pairs": shared,
                "divided pairs": {**shared, f"{found}/distiller/divided": ("pairs",)},
            },
            "contrasts": {
                **{b: above(a, b, nearer.format(b, a)) for a, b in itertools.pairwise(COUNTS)},
                "score matching": above("without", "four", "without it four are farther off"),
                "pairs": above(*no_worse, origin="the spread over seeds"),
            },
        },
    }


def small() -> dict:
    teacher, held = {"stage": "teacher"}, ("teacher",)
    matching = {"estimate": "teacher", "ema": 0.99}
    large = denoiser(perceptron(256, 3), conditional=True)
    net = students(denoiser(perceptron(128, 3), conditional=True), 2)
    learned = samplers.digits_stage(
        net, of_each("denoising", teacher, held), peak=1e-3, steps=4000, quality=None, pictures=()
    )
    student = samplers.digits_stage(
        net,
        of_each("distribution_matching", teacher, (*held, "classifier"), True, **matching),
        peak=2e-4,
        steps=2500,
        quality=samplers.student_quality(in_steps=(1,)),
        initial={"stage": "learned"},
    )
    title = "Multi-student distillation in small"
    found = samplers.on_digits(title, SENTENCE, samplers.digits_teacher(large), student)
    return before_student(found, learned=learned)


VARIANTS = {"": published, "smaller": smaller, "mixture": mixture, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or ``smaller`` students; ``mixture`` on a known density, ``small``."""
    return chosen(VARIANTS, variant, __file__)
