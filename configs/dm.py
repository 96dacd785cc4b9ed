"""DM: a set whose mean features in random nets are those of the real images of each class.

Zhao and Bilen, Dataset Condensation with Distribution Matching, WACV 2023: ConvNet-3 trained on it
reaches 26.0, 48.9 and 63.0 % on CIFAR-10 with 1, 10 and 50 images per class (random real ones:
14.4, 26.0, 43.4).

CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/dm.py --workdir=runs/dm --config.data.dir=<folder>

`:cifar100`, `:mnist` and `:fashion_mnist` are the published settings for these. Digits, one image
per class; about a minute:

    python -m jaxdistill.main --config=configs/dm.py:small --workdir=runs/dm_small
    python -m jaxdistill.claim --config=configs/dm.py:small --seeds=5 --workdir=runs/dm_claim
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, condense
from jaxdistill.presets.optimizers import sgd

SENTENCE = "The means of features in random nets are enough to make a small set."


def published(name: str, each: int = 10) -> dict:
    augment = condense.augmentation(name)
    protocol = {"steps": 1000 * -(-10 * each // 256), "batch_size": 256, "augment": augment}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller={"name": "match_features", "each": each, "real_batch": 256, "augment": augment},
        optimizer=sgd(1.0, 0.5),
        steps=20_000,
        checkpoint_every=1000,
        evaluate={"fresh": condense.fresh_nets(20, protocol)},
    )
    title = f"DM on {name}, {each} images per class"
    return condense.published(title, SENTENCE, name, {"distil": distil})


def small() -> dict:
    evaluate = condense.small_matching()
    mlp = {"student": {"net": "mlp", "widths": (64,)}, "name": "mlp", "sets": ("test",)}
    evaluate["mlp"] = {**evaluate["fresh"], **mlp}
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller={
            "name": "match_features",
            "each": 1,
            "real_batch": 64,
            "augment": ("crop", "scale", "rotate"),
        },
        optimizer=sgd(1.0, 0.5),
        steps=600,
        evaluate=evaluate,
    )
    return condense.small("DM", SENTENCE, {"distil": distil}, evaluate)


VARIANTS = condense.data_sets(published, small=small)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
