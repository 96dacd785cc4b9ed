"""Losses between nets of any two families, by short names: one vector an image, or its places.

None of them needs a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxdistill._errors import listed, unknown

_Net = Mapping[str, Any]

_POOLED = {"student": "pooled", "target": "pooled"}
LOSSES: dict[str, dict[str, Any]] = {
    "cosine": {"loss": "hidden_cosine", "projector": "mlp"},
    "smooth_l1": {
        "loss": "feature_match",
        "normalise": "layer_norm",
        "sides": "teacher",
        "distance": "smooth_l1",
        "projector": "mlp",
    },
    "contrast": {"loss": "info_nce", "temperature": 0.1, "projector": "mlp"},
    "relations": {"loss": "rkd"},
    "similarity": {"loss": "similarity_preserving", "weight": 1000.0},
    "neighbourhood": {"loss": "pkt", "weight": 1000.0},
    "queue": {
        "loss": "similarity_queue",
        "size": 4096,
        "temperature": 0.1,
        "teacher_temperature": 0.05,
        "projector": "mlp",
    },
}
"""What brings one vector an image of the student to that of a teacher of any family, through a
projector; relations within a batch need none."""
LOSSES_OF_PLACES: dict[str, dict[str, Any]] = {
    "places": {"loss": "grid_cosine", "projector": "width"},
    "within": {"loss": "grid_similarity", "weight": 10.0},
}
"""What brings the places of an image, tokens or maps, to those of a teacher of any family and
grid."""

# Where nets have the features of places, by ``net`` of a config and by how published names begin.
_PLACES = {
    "vit": "encoder",
    "imagenet_resnet": "stage_4",
    "cifar_resnet": "stage_3",
    "convnext": "stage_4",
    "mobilenet": "last_conv",
}
_PUBLISHED_PLACES = {
    ("ViT", "DeiT", "Dinov2", "CLIP", "Siglip", "vit_", "deit_"): "encoder",
    ("ResNet", "resnet", "ConvNext", "convnext"): "stage_4",
    ("mobilenetv3_",): "last_conv",
}


def features(loss: str, weight: float = 1.0, places: tuple[str, str] | None = None) -> _Net:
    """An entry of an objective that matches features by a loss of :data:`LOSSES`, or by one of
    :data:`LOSSES_OF_PLACES`.

    Args:
        loss: its name.
        weight: by what its own weight is multiplied.
        places: the taps of student and teacher with the features of places.

    Raises:
        ValueError: for an unknown one, with the nearest.

    Example:
        >>> features("cosine")["projector"], features("relations", 0.5)["weight"]
        ('mlp', 0.5)
        >>> features("within", places=("stage_4", "encoder"))["target"]
        'encoder'
    """
    if loss not in LOSSES and loss not in LOSSES_OF_PLACES:
        raise ValueError(unknown("loss between features", loss, (*LOSSES, *LOSSES_OF_PLACES)))
    entry = {**_POOLED, **LOSSES.get(loss, {})}
    if loss in LOSSES_OF_PLACES:
        taps = dict(zip(("student", "target"), places or ("encoder", "encoder"), strict=True))
        entry = {**taps, **LOSSES_OF_PLACES[loss]}
    return {**entry, "weight": weight * entry.get("weight", 1.0)}


def learnt(loss: str, student: _Net, teacher: str | _Net) -> dict[str, _Net]:
    """The entries of an objective for one loss between features or several, each of weight one.

    Args:
        loss: the name, or names with ``+`` between them.
        student: what a stage says of the student's net.
        teacher: likewise, or the architecture of a published one.

    Raises:
        ValueError: for an unknown loss, and for one of places where a net has none.

    Example:
        >>> net = {"net": "imagenet_resnet", "depth": 18}
        >>> list(learnt("cosine+within", net, "Dinov2Model"))
        ['features', 'within']
        >>> learnt("within", net, "Dinov2Model")["features"]["student"]
        'stage_4'
    """
    found = {}
    for number, name in enumerate(loss.split("+")):
        places = None
        if name in LOSSES_OF_PLACES:
            places = (places_of(student, name), places_of(teacher, name))
        found["features" if number == 0 else name] = features(name, places=places)
    return found


def places_of(net: str | _Net, loss: str = "places") -> str:
    """The tap of a net with the features of places: tokens or maps.

    Args:
        net: what a stage says of it, or the architecture of a published one.
        loss: what reads them, for the message.

    Raises:
        ValueError: for a net that has none, or whose name is not known here.

    Example:
        >>> places_of("Dinov2Model"), places_of({"net": "mobilenet"})
        ('encoder', 'last_conv')
    """
    if isinstance(net, str):
        for names, tap in _PUBLISHED_PLACES.items():
            if net.startswith(names):
                return tap
        kind, known = net, tuple(name for names in _PUBLISHED_PLACES for name in names)
    else:
        kind, known = net.get("net", ""), tuple(_PLACES)
        if kind in _PLACES:
            return _PLACES[kind]
        if kind == "convnet":
            return f"relu_{net.get('depth', 3) - 1}"
    raise ValueError(
        f"loss {loss!r} compares places, and where {kind!r} has them is not known: take a net of "
        f"{listed(known, len(known))}, or say 'student' and 'target' of the objective's entry"
    )
