"""DataDAM: a set whose attention maps and mean features in random nets are those of real images.

Sajedi et al., DataDAM: Efficient Dataset Distillation with Attention Matching, ICCV 2023: up to 6.5
points above the methods before it on CIFAR-100. The published code takes maps of the first power,
and batch statistics instead of the paper's instance norm; the default here is the paper's norm.

CIFAR-10, 10 images per class, from a folder with `train.npz` and `test.npz`:

    python -m jaxdistill.main --config=configs/datadam.py --workdir=runs/datadam
        --config.data.dir=<folder>

`:cifar100`, `:mnist`, `:fashion_mnist` are the others. Digits, one image per class; a minute:

    python -m jaxdistill.main --config=configs/datadam.py:small --workdir=runs/datadam_small
    python -m jaxdistill.claim --config=configs/datadam.py:small --seeds=5
        --workdir=runs/datadam_claim

Compared with DM on 10,000 images of Fashion-MNIST, by a small protocol of our own:

    python -m jaxdistill.claim --config=configs/datadam.py:order --seeds=3
        --workdir=runs/datadam_order --config.data.dir=<folder>
"""

from ml_collections import ConfigDict

from jaxdistill.presets import at, chosen, condense
from jaxdistill.presets.claims import above
from jaxdistill.presets.optimizers import sgd

SENTENCE = "Where random nets look on a small set can be where they look on all images."


def matched(each: int, attention: tuple[str, ...], augment: tuple[str, ...]) -> dict:
    """Attention in all layers but the last, whose features are matched as they are."""
    weights = {"attention_weight": 100.0, "feature_weight": 1.0, "power": 1.0}
    own = {"each": each, "attention": attention, "augment": augment}
    return {"name": "match_features", "real_batch": 64, **weights, **own}


def published(name: str, each: int = 10) -> dict:
    augment = condense.augmentation(name)
    protocol = {"steps": 1800 * -(-10 * each // 64), "batch_size": 64, "augment": augment}
    distil = condense.synthetic(
        student=condense.convnet(name),
        distiller=matched(each, ("relu_0", "relu_1"), augment),
        optimizer=sgd(1.0, 0.5),
        steps=20_000,
        checkpoint_every=1000,
        evaluate={"fresh": condense.fresh_nets(10, protocol)},
    )
    title = f"DataDAM on {name}, {each} images per class"
    return condense.published(title, SENTENCE, name, {"distil": distil})


def small() -> dict:
    evaluate = condense.small_matching()
    distil = condense.synthetic(
        student=condense.SMALL,
        distiller=matched(1, ("relu_0",), ("crop", "scale", "rotate")),
        optimizer=sgd(0.5, 0.5),
        steps=600,
        evaluate=evaluate,
    )
    return condense.small("DataDAM", SENTENCE, {"distil": distil}, evaluate)


def order() -> dict:
    """DataDAM beside DM, with 10 images per class, at the published rate of either."""
    distil = condense.synthetic(
        student=condense.MIDDLE,
        distiller=matched(10, ("relu_0",), condense.augmentation()),
        optimizer=sgd(1.0, 0.5),
        steps=200,
        evaluate=condense.middle_nets(),
    )
    return condense.middle(
        title="DataDAM and DM on Fashion-MNIST",
        sentence="Where nets look says more of images than their mean features do.",
        stages={"distil": distil},
        claim={
            "sentence": "Nets on ten images per class by DataDAM are above those by DM.",
            "held_equal": ("start, steps, real batches, fresh nets and their training",),
            "arms": {"datadam": {}, "dm": at("stages/distil/distiller", attention=())},
            "contrasts": {"order": above("datadam", "dm", "DataDAM is above DM")},
        },
    )


VARIANTS = condense.data_sets(published, order=order, small=small)


def get_config(variant: str = "") -> ConfigDict:
    """The published run on CIFAR-10 or another data set, or with ``small`` one of minutes."""
    return chosen(VARIANTS, variant, __file__)
