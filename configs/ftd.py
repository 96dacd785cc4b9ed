"""FTD: matches trajectories through flat regions, where errors add up less.

Du et al., Minimizing the Accumulated Trajectory Error to Improve Dataset Distillation, CVPR 2023:
46.8, 66.6 and 73.8 % on CIFAR-10 with 1, 10 and 50 images per class, 25.2, 43.4 and 50.7 on
CIFAR-100, the averaged images being measured by nets that were trained on the others before. What
others measured afresh is 46.0, 65.3, 73.2 and 24.4, 42.5, 48.5.

CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/ftd.py --workdir=runs/ftd --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image per class; minutes:

    python -m jaxdistill.main --config=configs/ftd.py:small --workdir=runs/ftd_small
    python -m jaxdistill.claim --config=configs/ftd.py:small --seeds=5 --workdir=runs/ftd_claim

Whether its experts of digits are flatter; a minute a seed:

    python -m jaxdistill.claim --config=configs/ftd.py:followed --seeds=5
        --workdir=runs/ftd_followed

Compared with MTT on 10,000 images of Fashion-MNIST, by a small protocol of our own:

    python -m jaxdistill.claim --config=configs/ftd.py:order --seeds=3
        --workdir=runs/ftd_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import ONE_DEVICE, at, chosen, condense, recipe
from jaxdistill.presets.claims import above

STUDENTS = {"steps": 10, "rate": 0.02}
SENTENCE = "Experts that stay where it is flat are followed with less error."


def published(name: str) -> dict:
    hundred, augment = name == "cifar100", condense.augmentation(name)
    steps = 1000 * -(-100 * (10 if hundred else 1) // 256)
    protocol = {"steps": steps, "learning_rate": None, "augment": augment}
    flat = {"rho": 0.01, "alpha": 1.0 if hundred else 0.3}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller=condense.trajectories(
            each=10,
            epochs=2,
            students={"steps": 20 if hundred else 30, "rate": 0.01 if hundred else 0.001},
            window={"first": 0, "last": 40 if hundred else 20},
            ema=0.9995,
            augment=augment,
        ),
        optimizer=condense.parts(1000.0 if hundred else 100.0, 1e-5),
        steps=5000,
        checkpoint_every=500,
        evaluate={"fresh": condense.fresh_nets(5, protocol)},
    )
    return condense.published(
        f"FTD on {name}, 10 images per class",
        SENTENCE,
        name,
        {"experts": condense.published_experts(name, 50, flatness=flat), "distil": distil},
        whiten="channels" if "mnist" in name else "absolute",
    )


def small() -> dict:
    evaluate = condense.small_trajectories()
    window = {"first": 0, "last": 8}
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller=condense.trajectories(1, 2, STUDENTS, window=window, ema=0.98),
        optimizer=condense.parts(10.0, 1e-5),
        steps=300,
        evaluate=evaluate,
    )
    stages = {"experts": condense.small_experts(flatness=condense.FLAT), "distil": distil}
    return condense.small("FTD", SENTENCE, stages, evaluate)


def order() -> dict:
    """FTD beside MTT, with one image per class."""
    window = {"first": 0, "last": 4}
    distil = condense.synthetic(
        student=condense.MIDDLE,
        distiller=condense.trajectories(1, 1, STUDENTS, window=window, ema=0.98),
        optimizer=condense.parts(30.0, 1e-5),
        steps=200,
        evaluate=condense.middle_nets(),
    )
    last_images = at("stages/distil/distiller", ema=None)
    return condense.middle(
        title="FTD and MTT on Fashion-MNIST",
        sentence=SENTENCE,
        stages={"experts": condense.middle_experts(flatness=condense.FLAT), "distil": distil},
        claim={
            "sentence": "Nets on one image per class by FTD are above those by MTT.",
            "held_equal": (
                "steps and rate of the experts, and where students start",
                "start, steps and rates of the set, fresh nets and their training",
            ),
            "arms": {
                "ftd": {},
                "flat": last_images,
                "mtt": {**at("stages/experts/distiller", flatness=None), **last_images},
            },
            "contrasts": {
                "order": above("ftd", "mtt", "FTD is above MTT"),
                "experts": above("flat", "mtt", "flat experts alone are better"),
                "average": above("ftd", "flat", "averaged images alone are better"),
            },
        },
    )


def followed() -> dict:
    """What the paper explains itself by, on digits: whether experts are flatter, and how far
    students stray from them."""
    stages = small()["stages"]
    window = {"first": 0, "last": 8}
    strayed = {"evaluator": "strayed", "epochs": 2, "students": STUDENTS, "window": window}
    distil = {**stages["distil"], "evaluate": {"strayed": strayed}}
    experts = {**stages["experts"], "evaluate": {"sharpness": {"evaluator": "sharpness"}}}
    return recipe(
        "Flat experts of digits",
        SENTENCE,
        condense.DIGITS,
        {"experts": experts, "distil": distil},
        mesh=ONE_DEVICE,
        claim={
            "sentence": "FTD's experts are where it is flatter.",
            "metric": "experts/validation/sharpness",
            "held_equal": ("steps, batches and rate of the experts, and where they start",),
            "common": {"recipe": ("experts",)},
            "arms": {"flat": {}, "plain": {"stages/experts/distiller/flatness": None}},
            "contrasts": {"sharpness": above("plain", "flat", "flat experts are less sharp")},
        },
    )


VARIANTS = condense.data_sets(published, followed=followed, order=order, small=small)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
