"""DC and DSA: a set whose gradients are those of real images, class by class, while a net is
trained on it.

Zhao, Mopuri, Bilen, Dataset Condensation with Gradient Matching, ICLR 2021, and Zhao and Bilen,
Dataset Condensation with Differentiable Siamese Augmentation, ICML 2021. ConvNet-3, one image per
class: MNIST 91.7 (DC) and 88.7 (DSA), Fashion-MNIST 70.5 and 70.6, CIFAR-10 28.3 and 28.8 %.

The default is DSA on CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/dc.py --workdir=runs/dsa --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others; the latter two with one image per class, DC
where `augment` is empty:

    python -m jaxdistill.main --config=configs/dc.py:mnist --workdir=runs/dc_mnist
        --config.data.dir=<folder> --config.stages.distil.distiller.augment="()"
        --config.stages.distil.distiller.images_from=noise

Digits, one image per class, by DC; about a minute:

    python -m jaxdistill.main --config=configs/dc.py:small --workdir=runs/dc_small
    python -m jaxdistill.claim --config=configs/dc.py:small --seeds=5 --workdir=runs/dc_claim
"""

from ml_collections import ConfigDict

from jaxdistill.presets import chosen, condense
from jaxdistill.presets.optimizers import sgd

SENTENCE = "Gradients on a small set can be those on all images."
# Steps with one net, and the net's own between them, by images per class.
LOOPS = {1: (1, 1), 10: (10, 50), 20: (20, 25), 30: (30, 20), 40: (40, 15), 50: (50, 10)}


def published(name: str) -> dict:
    each = 1 if "mnist" in name else 10
    outer, inner = LOOPS[each]
    augment, batches = condense.augmentation(name), -(-10 * each // 256)
    # 300 epochs for DC, which is not augmented.
    protocol = {"steps": 1000 * batches, "augment": augment}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller={
            "name": "match_gradients",
            "each": each,
            "outer": outer,
            "inner": inner * batches,
            "real_batch": 256,
            "augment": augment,
            "images_from": "random",
        },
        optimizer=sgd(0.1, 0.5),
        steps=1000 * outer,
        checkpoint_every=200,
        evaluate={"fresh": condense.fresh_nets(20, protocol)},
    )
    title = f"DSA on {name}, {each} images per class"
    return condense.published(title, SENTENCE, name, {"distil": distil})


def small() -> dict:
    evaluate = condense.small_matching()
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller={
            "name": "match_gradients",
            "each": 1,
            "real_batch": 64,
            "images_from": "random",
        },
        optimizer=sgd(0.1, 0.5),
        steps=600,
        evaluate=evaluate,
    )
    return condense.small("DC", SENTENCE, {"distil": distil}, evaluate)


VARIANTS = condense.data_sets(published, small=small)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
