"""SSLD: a student learns from a strong teacher without labels, on its own records and on those of
an unlabelled pool of which the teacher is most sure.

Cui et al., Beyond Self-Supervision, 2021: MobileNetV3-large rises from 75.2 to 79.0 % on ImageNet,
ResNet50-D from 79.1 to 83.0 %. The loss is half of KL both ways (called Jensen-Shannon there);
label smoothing is off; the four million images of a pool that the teacher is surest of are chosen
class by class.

A folder of images as pool and training set, a finished ResNet-152 as teacher:

    python -m jaxdistill.main --config=configs/ssld.py --workdir=runs/ssld
        --config.data.dir=<folder>

Digits, 100 of which count as the student's own, the rest being the pool; minutes:

    python -m jaxdistill.main --config=configs/ssld.py:small --workdir=runs/ssld_small
    python -m jaxdistill.claim --config=configs/ssld.py:small --seeds=8 --first_seed=100
        --workdir=runs/ssld_claim

There the pool adds 3.1 points and KL both ways loses 0.1 against one way, which both hold; that on
the same records the teacher beats labels is not shown.

The small one runs on MNIST and Fashion-MNIST too:

    --config.data.name=mnist --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, recipe
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import LABELS, classifier, imagenet_resnet
from jaxdistill.presets.optimizers import sgd, warmup_cosine

BOTH_WAYS = {"teacher": {"loss": "symmetric_kl", "weight": 1.0}}


def published() -> dict:
    epoch = 4882  # five million images in batches of 1024

    def stage(depth: int, epochs: int, rate: float, warmup: int, **settings) -> dict:
        optimizer = sgd(warmup_cosine(rate, warmup * epoch), weight_decay=7e-5)
        return imagenet_resnet(depth, optimizer, 1024, epoch, epochs, **settings)

    taught = {"targets": {"kind": "live", "stage": "teacher"}, "objective": BOTH_WAYS}
    return recipe(
        title="SSLD, ResNet-50",
        sentence="A ResNet-50 learns from a ResNet-152 without any label.",
        data={"name": "image_folder", "dir": "", "image_size": 256, "validation": 0.01},
        stages={
            "teacher": stage(152, 120, 0.4, 5, checkpoint=""),
            "distil": stage(50, 360, 0.4, 5, **taught),
            # On the labelled set alone, at a hundredth of the rate, with the same loss.
            "finetune": stage(
                50, 15, 0.004, 0, **taught, initial={"stage": "distil"}, pictures=("reliability",)
            ),
        },
    )


def small() -> dict:
    cached = {"views": 1, "outputs": {"out": {"codec": "dense"}}}
    own_records = at("stages/distil/records", selected=None)
    labels = {"recipe": ("distil",), **at("stages/distil", targets=None, objective=LABELS)}
    one_way = {"loss": "hinton_kd", "temperature": 1.0}
    return recipe(
        title="SSLD in small",
        sentence="A student learns without labels, on what its teacher is sure of.",
        data={"name": "digits", "dir": "", "validation": 0.15, "test": 0.2},
        stages={
            "teacher": classifier({"net": "cifar_resnet", "depth": 8}, steps=400),
            "distil": classifier(
                {"net": "mlp", "widths": (64, 64)},
                steps=1000,
                targets={"kind": "live", "stage": "teacher", "cached": cached},
                # 100 records of the student's own, and of the rest the surest of each class.
                records={"labelled": 100, "selected": 60},
                objective=BOTH_WAYS,
                pictures=("reliability",),
            ),
        },
        variants={"mnist": images(), "fashion_mnist": images()},
        claim={
            "sentence": "An unlabelled pool and a teacher are worth more than labels.",
            "metric": "distil/test/accuracy",
            "held_equal": ("net, steps, batch size, optimizer and learning rate of the student",),
            "arms": {
                "pool": {},
                "own records": own_records,
                "labels": {**labels, **own_records},
                "one way": at("stages/distil/objective", teacher=one_way),
            },
            "contrasts": {
                "pool": above("pool", "own records", "the pool adds to the student's own records"),
                "own records": above(
                    "own records", "labels", "on the same records the teacher beats labels"
                ),
                "both ways": above(
                    "pool",
                    "one way",
                    "KL both ways is at most a point below soft labels",
                    -0.01,
                    origin="two standard deviations of what seeds differ by",
                ),
            },
        },
    )


def images() -> dict:
    """What the small run becomes on MNIST and Fashion-MNIST."""
    records = {"labelled": 1000, "selected": 2000}
    return {
        "data/test": 0.0,
        **at("stages/teacher", steps=1500, batch_size=128),
        **at("stages/distil", steps=2000, batch_size=128, records=records),
        **at("stages/distil/student", widths=(128, 128)),
        **at("stages/distil/targets/cached", container="npy"),
    }


VARIANTS = {"": published, "small": small}


def get_config(variant: str = "") -> ConfigDict:
    """The published run, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
