"""Starting points for anybody's teacher and data: students by short names, what is measured.

A student is one of these names, or what a stage says of its net.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from jaxdistill._errors import listed, unknown
from jaxdistill._hub import shown
from jaxdistill.presets.claims import above
from jaxdistill.presets.images import LABELS

_Net = Mapping[str, Any]

_CONVNEXT = {
    "atto": ((2, 2, 6, 2), (40, 80, 160, 320)),
    "femto": ((2, 2, 6, 2), (48, 96, 192, 384)),
    "pico": ((2, 2, 6, 2), (64, 128, 256, 512)),
    "nano": ((2, 2, 8, 2), (80, 160, 320, 640)),
    "tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
}
_VIT = {"tiny": (192, 12, 3), "small": (384, 12, 6), "base": (768, 12, 12)}
IMAGE_STUDENTS: dict[str, dict[str, Any]] = {
    **{f"resnet{n}": {"net": "imagenet_resnet", "depth": n} for n in (18, 34, 50)},
    **{
        f"vit_{name}": {"net": "vit", "width": w, "depth": d, "heads": h, "positions": "learned"}
        for name, (w, d, h) in _VIT.items()
    },
    **{
        f"mobilenetv3_{size}{'' if width == 1.0 else '_050'}": {
            "net": "mobilenet",
            "size": size,
            "width": width,
        }
        for size in ("small", "large")
        for width in (0.5, 1.0)
    },
    **{
        f"convnext_{name}": {"net": "convnext", "blocks": blocks, "widths": widths}
        for name, (blocks, widths) in _CONVNEXT.items()
    },
}
"""Networks of images, in the sizes that others publish them in, for images of 224 pixels or so."""

_DECODERS = {
    "30m": (384, 12, 6, 2, 1536),
    "100m": (768, 12, 12, 4, 2048),
    "300m": (1024, 20, 16, 4, 3584),
    "1b": (2048, 16, 32, 8, 8192),
}
TEXT_STUDENTS: dict[str, dict[str, Any]] = {
    f"decoder_{name}": {
        "net": "decoder",
        "width": width,
        "depth": depth,
        "heads": heads,
        "groups": groups,
        "hidden": hidden,
        # Of many layers one loop, and nothing kept for the way back but what goes between them.
        **({"scan": True, "remat": True, "dtype": "bfloat16"} if width >= 1024 else {}),
    }
    for name, (width, depth, heads, groups, hidden) in _DECODERS.items()
}
"""Decoders with grouped queries, of about so many parameters."""
LAYERS = {"three_quarters": 3 / 4, "half": 1 / 2, "quarter": 1 / 4}
"""Students of a teacher's own form, with this share of its layers, from which they start."""


def patch_of(size: int) -> int:
    """The side of a student's patches: at most 16 pixels, and at least 7 of them in a row.

    Example:
        >>> [patch_of(size) for size in (224, 518, 336, 96, 32, 28, 8)]
        [16, 14, 16, 12, 4, 4, 1]
    """
    found = [side for side in range(1, 17) if size % side == 0 and size // side >= 7]
    return max(found, default=1)


def image_student(given: str | _Net, size: int, classes: int | None) -> dict[str, Any]:
    """The net of a student of images.

    Args:
        given: one of :data:`IMAGE_STUDENTS`, or what a stage says of a net.
        size: the side of what it sees, in pixels.
        classes: of its head; 0 for none, None for as many as the data has.

    Raises:
        ValueError: for an unknown name, with the nearest.

    Example:
        >>> net = image_student("vit_tiny", 224, 10)
        >>> net["patch"], net["classes"]
        (16, 10)
    """
    net = _named(given, IMAGE_STUDENTS)
    if net.get("net") == "vit" and "patch" not in net:
        net["patch"] = patch_of(size)
    return net if classes is None else {**net, "classes": classes}


def text_student(
    given: str | _Net, teacher: str, vocabulary: int | None, depth: int | None
) -> dict[str, Any]:
    """The student of a decoder, as keys of a stage: its net, and what it starts from.

    Args:
        given: one of :data:`TEXT_STUDENTS`, what a stage says of a net, or one of :data:`LAYERS`:
            its teacher's form with so many of its layers, from which it starts.
        teacher: the published one, or empty.
        vocabulary: of the teacher, which it shares; that of the tokenizer if None.
        depth: the layers of the teacher, or None.

    Raises:
        ValueError: for an unknown name, with the nearest; for layers of a teacher that is not
            published; for a net of another vocabulary.

    Example:
        >>> text_student("half", "runs/llama", 32_000, 16)["student"]["changes"]
        {'depth': 8, 'remat': True}
        >>> text_student("decoder_300m", "", 32_000, None)["student"]["vocabulary"]
        32000
    """
    if isinstance(given, str) and given in LAYERS:
        if not teacher or not depth:
            raise ValueError(
                f"student {given!r} takes layers of a published teacher, --config.teacher=<folder, "
                f"or a name on the hub>; without one take {listed(list(TEXT_STUDENTS))}"
            )
        # What is within a layer is computed anew on the way back: else it takes most of the memory.
        changes = {"depth": max(round(LAYERS[given] * depth), 1), "remat": True}
        net = {"net": "published", "path": teacher, "changes": changes}
        return {"student": net, "initial": {"stage": "teacher", "layers": "spread"}}
    net = _named(given, TEXT_STUDENTS, LAYERS)
    if vocabulary and net.get("vocabulary", vocabulary) != vocabulary:
        raise ValueError(
            f"the student knows {net['vocabulary']} tokens and its teacher {vocabulary}: they must "
            "be the same, as they are given the same text"
        )
    return {"student": {**net, "vocabulary": vocabulary} if vocabulary else net}


def _named(given: str | _Net, students: Mapping[str, _Net], others: Any = ()) -> dict[str, Any]:
    if not isinstance(given, str):
        return dict(given)
    if given not in students:
        raise ValueError(unknown("student", given, (*students, *others)))
    return dict(students[given])


def titled(what: str, teacher: str, student: str | _Net) -> str:
    """What a report is called: a folder by its name, a name on the hub as it is.

    Example:
        >>> titled("Own images", "/data/dinov2", "resnet18")
        'Own images, dinov2 to resnet18'
    """
    smaller = student if isinstance(student, str) else "a net of its own"
    return f"{what}, {shown(teacher) or 'a teacher trained here'} to {smaller}"


def refuse_untaught(teacher: str, where: str, classes: Sequence[str]) -> None:
    """Refuses images without labels where there is no teacher: nothing could be learnt.

    Raises:
        ValueError: saying what to give.
    """
    if where and not classes and not teacher:
        raise ValueError(
            f"{where} has no folder of images for each class, so that no teacher can be trained on "
            "it: give a published one, --config.teacher=<folder, or a name on the hub>"
        )


def reads_logits(wanted: bool | None, head: int, names: Sequence[str], own: Sequence[str]) -> bool:
    """Whether a student learns from the logits of a teacher too.

    Args:
        wanted: what is asked for; None where they are of use: where the teacher tells apart the
            classes that the folders are.
        head: how many classes the teacher tells apart, 0 if it has no head.
        names: what they are called, empty if that is not known.
        own: the classes of the images, empty if they have none.

    Raises:
        ValueError: for logits of a teacher without a head, and of one with other classes.

    Example:
        >>> reads_logits(None, 2, (), ("cat", "dog")), reads_logits(None, 1000, (), ("cat", "dog"))
        (True, False)
        >>> reads_logits(True, 1000, (), ("cat", "dog"))
        Traceback (most recent call last):
        ValueError: logits=True, but the teacher's head is of other classes: it has 1000, the images
        have 2 ('cat', 'dog'); learn its features alone (logits=False)
    """
    same = bool(own) and head == len(own) and (not names or tuple(names) == tuple(own))
    if not wanted:
        return same and wanted is None
    if not head:
        raise ValueError("logits=True, but the teacher has no head: it gives features alone")
    if own and not same:
        theirs = f" ({listed(names, 3)})" if names else ""
        raise ValueError(
            f"logits=True, but the teacher's head is of other classes: it has {head}{theirs}, the "
            f"images have {len(own)} ({listed(own, 3)}); learn its features alone (logits=False)"
        )
    return True


def measured(whole: Sequence[_Net], few: int | None, sets: Sequence[str]) -> dict[str, Any]:
    """A linear probe and nearest neighbours on pooled features.

    Args:
        whole: what is done to an image that is looked at as a whole.
        few: how many labels they may know; None for all, or as many as they can be fitted to.
        sets: the sets that they are measured on.

    Example:
        >>> sorted(measured((), None, ("validation",)))
        ['neighbours', 'probe']
    """
    shared = {"read": "pooled", "augment": tuple(whole), "sets": tuple(sets)}
    known = {"labelled": few} if few else {}
    return {
        "probe": {"evaluator": "linear_probe", **(known or {"most": 5000}), **shared},
        "neighbours": {"evaluator": "nearest_neighbours", **(known or {"most": 50_000}), **shared},
    }


def alike(whole: Sequence[_Net]) -> dict[str, Any]:
    """How alike the features of student and teacher are, which needs no labels.

    Example:
        >>> list(alike(()))
        ['alike']
    """
    pairs = {"pooled": ("pooled", "pooled")}
    return {"alike": {"evaluator": "cka", "pairs": pairs, "augment": tuple(whole)}}


def drawn(size: int, normalise: _Net, *, small: bool = False) -> tuple[_Net, ...]:
    """What is drawn of an image in training: a part of it, mirrored or not; of a small one that
    fills its frame where it is.

    Example:
        >>> [step["name"] for step in drawn(224, {"name": "normalise"})]
        ['random_resized_crop', 'flip', 'normalise']
    """
    if small:
        return {"name": "shift", "pixels": 1}, normalise
    crop = {"name": "random_resized_crop", "size": size, "scale": (0.35, 1.0)}
    return crop, {"name": "flip"}, normalise


def stored(views: int, objective: Mapping[str, _Net]) -> dict[str, Any]:
    """The outputs of a teacher that an objective reads, written once, for so many views of every
    image.

    Example:
        >>> stored(4, {"features": {"loss": "hidden_cosine", "target": "pooled"}})["outputs"]
        {'pooled': {'codec': 'dense', 'dtype': 'bfloat16'}}
    """
    codec = {"codec": "dense", "dtype": "bfloat16"}
    read = dict.fromkeys(entry.get("target", "out") for entry in objective.values())
    return {"views": views, "outputs": {name: dict(codec) for name in read}}


def labelled(few: int | None) -> dict[str, Any]:
    """The records whose label is known, all or a few of them, as ``records`` of a stage, and what
    is learnt from them.

    Example:
        >>> labelled(None)["records"]
        {'labelled': 'all'}
    """
    return {"records": {"labelled": few or "all"}, "objective": LABELS}


def claim() -> dict[str, Any]:
    """What own images claim: features learnt without labels are worth more than few labels.

    Example:
        >>> list(claim()["arms"])
        ['distilled', 'labels']
    """
    probe = "a probe on the distilled student beats one on the same student trained on its labels"
    return {
        "sentence": "Features of a teacher, learnt without labels, are worth more than few labels.",
        "metric": "last/test/probe_accuracy",
        "held_equal": ("net, steps, batches, views, optimizer and labels of the student",),
        "arms": {
            "distilled": {"recipe": ("teacher", "start", "distil")},
            "labels": {"recipe": ("labels",)},
        },
        "contrasts": {"probe": above("distilled", "labels", probe, 0.03)},
    }
