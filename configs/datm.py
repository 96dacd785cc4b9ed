"""DATM: matches experts where they are as difficult as a set of that size can learn.

Guo et al., Towards Lossless Dataset Distillation via Difficulty-Aligned Trajectory Matching, ICLR
2024: small sets learn from early epochs, large ones from late ones; labels are learned too. 46.9,
66.8 and 76.1 % on CIFAR-10 with 1, 10 and 50 images per class, 27.9, 47.2 and 55.0 on CIFAR-100,
the best of all evaluations on the test set.

CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/datm.py --workdir=runs/datm
        --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image per class; minutes:

    python -m jaxdistill.main --config=configs/datm.py:small --workdir=runs/datm_small
    python -m jaxdistill.claim --config=configs/datm.py:small --seeds=5 --workdir=runs/datm_claim

Early and late windows on digits, two minutes a seed, and on 10,000 images of Fashion-MNIST:

    python -m jaxdistill.claim --config=configs/datm.py:windows --seeds=5 --first_seed=100
    python -m jaxdistill.claim --config=configs/datm.py:order --seeds=3
        --workdir=runs/datm_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import ONE_DEVICE, at, chosen, condense, recipe
from jaxdistill.presets.claims import above

SENTENCE = "A set learns best from experts as difficult as its size allows."
# Labels are learned too, of images that experts get right.
STUDENTS = {"steps": 10, "rate": 0.02}
SOFT = {"soft": True, "images_from": "correct", "threshold": 1.0}


def published(name: str) -> dict:
    hundred, augment = name == "cifar100", condense.augmentation(name)
    # The window ends at first after 10 or 30 epochs, at last after 20 or 50.
    window = {"first": 0, "begin": 10, "last": 20, "grown": 1000}
    if hundred:
        window = {"first": 0, "begin": 30, "last": 50, "grown": 2000}
    steps = 1000 * -(-100 * (10 if hundred else 1) // 128)
    protocol = {"batch_size": 128, "steps": steps, "learning_rate": None, "augment": augment}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller=condense.trajectories(
            each=10,
            epochs=2,
            students={"steps": 80, "rate": 0.01, "batch_size": 1000 if hundred else 100},
            window=window,
            augment=augment,
            **SOFT,
        ),
        optimizer=condense.parts(*(1000.0, 1e-5, 10.0) if hundred else (100.0, 1e-5, 2.0)),
        steps=10_000,
        checkpoint_every=500,
        evaluate={"fresh": condense.fresh_nets(5, protocol)},
    )
    experts = condense.published_experts(name, epochs=100, flatness=condense.FLAT)
    return condense.published(
        f"DATM on {name}, 10 images per class",
        SENTENCE,
        name,
        {"experts": experts, "distil": distil},
        whiten="channels" if "mnist" in name else "absolute",
    )


def small() -> dict:
    evaluate = condense.small_trajectories()
    window = {"first": 0, "begin": 4, "last": 8, "grown": 100}
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller=condense.trajectories(1, 2, STUDENTS, window=window, **SOFT),
        optimizer=condense.parts(10.0, 1e-5, 2.0),
        steps=300,
        evaluate=evaluate,
    )
    stages = {"experts": condense.small_experts(flatness=condense.FLAT), "distil": distil}
    return condense.small("DATM", SENTENCE, stages, evaluate)


def order() -> dict:
    """Early and late windows for one and for ten images per class of Fashion-MNIST."""
    distil = condense.synthetic(
        student=condense.MIDDLE,
        distiller=condense.trajectories(1, 1, STUDENTS, window={"first": 0, "last": 3}, **SOFT),
        optimizer=condense.parts(30.0, 1e-5, 2.0),
        steps=200,
        evaluate=condense.middle_nets(),
    )
    stages = {"experts": condense.middle_experts(flatness=condense.FLAT), "distil": distil}
    title = "Windows of DATM on Fashion-MNIST"
    return condense.middle(title, SENTENCE, stages, crossing({"first": 4, "last": 7}, 300.0))


def windows() -> dict:
    """Early and late windows for one and for ten images per class of digits."""
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller=condense.trajectories(1, 2, STUDENTS, window={"first": 0, "last": 4}, **SOFT),
        optimizer=condense.parts(10.0, 1e-5, 2.0),
        steps=300,
        evaluate={"fresh": condense.fresh_nets(5, {"steps": 300, "learning_rate": 0.02})},
    )
    return recipe(
        "Windows of DATM on digits",
        SENTENCE,
        condense.DIGITS,
        {"experts": condense.small_experts(flatness=condense.FLAT), "distil": distil},
        mesh=ONE_DEVICE,
        claim={"metric": "distil/test/accuracy", **crossing({"first": 14, "last": 18}, 100.0)},
    )


def crossing(late_window: dict, rate: float) -> dict:
    """The claim that sets of one and of ten images per class want other windows, at other rates."""
    late = at("stages/distil/distiller", window=late_window)
    ten = at("stages/distil/distiller", each=10)
    ten |= at("stages/distil/distiller/students", batch_size=50)
    ten |= at("stages/distil/optimizer/images", learning_rate=rate)
    gain = {"ten, late": 1, "ten, early": -1, "one, late": -1, "one, early": 1}
    crosses = "late epochs gain on early ones from one image to ten"
    return {
        "sentence": "Small sets learn from early epochs, larger ones from late epochs.",
        "held_equal": (
            "the experts, and how many steps of theirs a student follows",
            "start, steps and rates of sets of one size, fresh nets and their training",
        ),
        "arms": {"one, early": {}, "one, late": late, "ten, early": ten, "ten, late": ten | late},
        "contrasts": {
            "one": above(
                "one, early", "one, late", "with one image per class early epochs are better"
            ),
            "ten": above(
                "ten, late", "ten, early", "with ten images per class late epochs are better"
            ),
            "crossing": {"sentence": crosses, "coefficients": gain},
        },
    }


VARIANTS = condense.data_sets(published, order=order, small=small, windows=windows)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
