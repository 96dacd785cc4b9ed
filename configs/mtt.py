"""MTT, and TESLA's gradient: a small set on which a few steps of training lead where epochs on all
images do.

Cazenavette et al., Dataset Distillation by Matching Training Trajectories, CVPR 2022: ConvNet-3
reaches 46.3, 65.3 and 71.6 % on CIFAR-10 with 1, 10 and 50 images per class, 24.3, 40.1 and 47.7
on CIFAR-100, the best of all evaluations on the test set. Cui et al., ICML 2023: `gradient` of
memory that does not grow with a student's steps, 48.5, 66.4, 72.6; it is another gradient.

CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/mtt.py --workdir=runs/mtt --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image per class; minutes:

    python -m jaxdistill.main --config=configs/mtt.py:small --workdir=runs/mtt_small
    python -m jaxdistill.claim --config=configs/mtt.py:small --seeds=5 --workdir=runs/mtt_claim

Its claim has an arm with TESLA's gradient, and one with smooth experts (Shen et al., Efficient
Dataset Distillation via Smooth Expert Trajectories, 2023).
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, condense
from jaxdistill.presets.claims import above

SENTENCE = "A few steps on a small set lead where epochs on all images do."


def published(name: str) -> dict:
    grey, hundred = "mnist" in name, name == "cifar100"
    augment = condense.augmentation(name)
    steps = 1000 * -(-100 * (10 if hundred else 1) // 256)
    protocol = {"steps": steps, "learning_rate": None, "augment": augment}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller=condense.trajectories(
            each=10,
            epochs=2,
            students={"steps": 20 if hundred else 30, "rate": 0.01 if hundred else 0.001},
            window={"first": 0, "last": 20},
            augment=augment,
        ),
        optimizer=condense.parts(1000.0 if hundred else 100.0, 1e-5),
        steps=5000,
        checkpoint_every=500,
        evaluate={"fresh": condense.fresh_nets(5, protocol)},
    )
    return condense.published(
        f"MTT on {name}, 10 images per class",
        SENTENCE,
        name,
        {"experts": condense.published_experts(name, epochs=50), "distil": distil},
        # CIFAR-100 with 10 images per class is the one that was not whitened.
        whiten="channels" if hundred or grey else "absolute",
    )


def small() -> dict:
    evaluate = condense.small_trajectories()
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller=condense.trajectories(
            each=1,
            epochs=2,
            students={"steps": 10, "rate": 0.02},
            window={"first": 0, "last": 8},
        ),
        optimizer=condense.parts(10.0, 1e-5),
        steps=300,
        evaluate=evaluate,
    )
    smooth_experts = at(
        "stages/experts/distiller",
        momentum=0.9,
        weight_decay=1e-3,
        learning_rate=0.003,
        decay=0.6,
        loss_ramp=5,
        gradient_penalty=2.0,
    )
    followed_by = {
        **at("stages/distil/distiller", waypoints="growing", images_from="clusters"),
        **at(
            "stages/distil/distiller/students",
            balance=True,
            perturb=1.0,
            momentum=0.9,
            rate=0.003,
        ),
    }
    return condense.small(
        "MTT",
        SENTENCE,
        {"experts": condense.small_experts(), "distil": distil},
        evaluate,
        arms={
            "stopped": at("stages/distil/distiller", gradient="stopped"),
            "smooth": {**smooth_experts, **followed_by},
        },
        contrasts={
            "stopped": above("stopped", "herding", "TESLA's gradient is above herding too"),
            "smooth": above("smooth", "herding", "so are smooth experts"),
        },
    )


VARIANTS = condense.data_sets(published, small=small)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
