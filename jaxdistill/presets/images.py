"""Images: how they are seen in training and tests, and how a classifier is trained and measured."""

from __future__ import annotations

from typing import Any

from jaxdistill.presets.optimizers import adamw

IMAGENET = {"name": "normalise", "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
"""Images normalised by the mean and deviation of ImageNet."""
LABELS = {"labels": {"loss": "cross_entropy", "target": "batch/label"}}
"""An objective of labels alone."""


def random_crop(size: int = 224, **settings: Any) -> tuple[dict[str, Any], ...]:
    """A random part of an image, mirrored or not, as ImageNet is trained on.

    Example:
        >>> [step["name"] for step in random_crop(scale=(0.2, 1.0))]
        ['random_resized_crop', 'flip', 'normalise']
    """
    return {"name": "random_resized_crop", "size": size, **settings}, {"name": "flip"}, IMAGENET


def accuracy(**settings: Any) -> dict[str, Any]:
    """Top-1 accuracy on validation and test set, with whatever else is set.

    Example:
        >>> accuracy(every=50)["every"]
        50
    """
    return {"evaluator": "classification", "sets": ("validation", "test"), **settings}


def imagenet_accuracy(batch_size: int, size: int = 224, **settings: Any) -> dict[str, Any]:
    """Top-1 and top-5 accuracy on whole images of ``size`` pixels.

    Example:
        >>> imagenet_accuracy(1024)["top"]
        (1, 5)
    """
    whole = ({"name": "resize", "size": size}, IMAGENET)
    return accuracy(**settings, top=(1, 5), augment=whole, batch_size=batch_size)


def imagenet_resnet(
    depth: int, optimizer: dict[str, Any], batch_size: int, epoch: int, epochs: int, **settings: Any
) -> dict[str, Any]:
    """A stage in which a ResNet learns ImageNet from labels, unless the settings say otherwise; a
    checkpoint every epoch.

    Example:
        >>> imagenet_resnet(50, {"name": "sgd"}, 512, epoch=2477, epochs=100)["steps"]
        247700
    """
    return {
        "student": {"net": "imagenet_resnet", "depth": depth, "dtype": "bfloat16"},
        "objective": LABELS,
        "optimizer": optimizer,
        "view": {"augment": random_crop()},
        "batch_size": batch_size,
        "steps": epochs * epoch,
        "evaluate": {"accuracy": imagenet_accuracy(batch_size)},
        "checkpoint_every": epoch,
        **settings,
    }


CIFAR10 = {"name": "normalise", "mean": (0.4914, 0.4822, 0.4465), "std": (0.247, 0.2435, 0.2616)}
"""Images normalised by the mean and deviation of CIFAR-10."""
CIFAR100 = {"name": "normalise", "mean": (0.5071, 0.4867, 0.4408), "std": (0.2675, 0.2565, 0.2761)}
"""Those of CIFAR-100."""


def shifted_crop(normal: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """A part of an image of 32 pixels, padded by four, mirrored or not.

    Example:
        >>> [step["name"] for step in shifted_crop(CIFAR10)]
        ['random_crop', 'flip', 'normalise']
    """
    return {"name": "random_crop", "padding": 4}, {"name": "flip"}, normal


def cifar_stage(
    student: dict[str, Any],
    optimizer: dict[str, Any],
    normal: dict[str, Any],
    batch_size: int,
    epoch: int,
    epochs: int,
    **settings: Any,
) -> dict[str, Any]:
    """A stage in which a net learns images of 32 pixels from labels, unless the settings say
    otherwise; a checkpoint every ten epochs.

    Example:
        >>> cifar_stage({"net": "cifar_resnet"}, {}, CIFAR10, 128, epoch=352, epochs=200)["steps"]
        70400
    """
    return {
        "student": student,
        "objective": LABELS,
        "optimizer": optimizer,
        "view": {"augment": shifted_crop(normal)},
        "batch_size": batch_size,
        "steps": epochs * epoch,
        "evaluate": {"accuracy": accuracy(augment=(normal,))},
        "checkpoint_every": 10 * epoch,
        **settings,
    }


def classifier(
    student: dict[str, Any],
    steps: int,
    peak: float = 3e-3,
    warmup: int = 50,
    batch_size: int = 64,
    **settings: Any,
) -> dict[str, Any]:
    """A stage in which a net learns labels alone, by AdamW: a teacher, or a baseline.

    Example:
        >>> classifier({"net": "mlp", "widths": (64,)}, steps=600)["batch_size"]
        64
    """
    return {
        "student": student,
        "objective": LABELS,
        "optimizer": adamw(peak, warmup),
        "batch_size": batch_size,
        "steps": steps,
        "evaluate": {"accuracy": accuracy()},
        **settings,
    }
