"""Own images: anybody's teacher taught to a small net on anybody's images, without labels.

No paper's recipe, but a start for most. A published teacher (ViT, DeiT, DINOv2, CLIP, SigLIP,
ResNet, ConvNeXt, MobileNetV3; a folder, or a name on the Hugging Face hub) and a folder of images,
which may lie in a folder for each class, in none, or both:

    python -m jaxdistill.main --config=configs/own_images.py --workdir=runs/own
        --config.teacher=facebook/dinov2-base --config.student=resnet18 --config.data.dir=<folder>

The student learns the teacher's features, and its logits where its head is of these classes, from
images as the teacher is used to see them. Where there are labels, a linear probe and nearest
neighbours measure it before and after, and it is fine-tuned with the labels that there are.
Without ``teacher`` a larger net is trained on the labels first. In minutes, on digits if no folder
is given:

    python -m jaxdistill.main --config=configs/own_images.py:small --workdir=runs/own_small

Expect the student's probe to come near that of its teacher. A step costs the teacher's forward pass
and the student's step, or the latter alone with ``--config.cached=True``.
"""

from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxdistill import published as networks
from jaxdistill.data import folders
from jaxdistill.presets import chosen, families, own, recipe
from jaxdistill.presets.images import LABELS, accuracy
from jaxdistill.presets.optimizers import adamw

# How images are seen where no published teacher says so.
SEEN = networks.Preprocessing(224, 256, False, (0.5,) * 3, (0.25,) * 3)
DIGITS = networks.Preprocessing(8, 8, False, (0.3,), (0.4,))
SETS = ("validation", "test")
FLAGS = ("teacher", "student", "loss", "logits", "cached", "steps", "size", "batch_size")


def published(student, **flags) -> dict:
    """At the scale of a GPU or more."""
    larger = {"net": "imagenet_resnet", "depth": 50}
    return built(SEEN, larger, 10_000, 256, student=student or "resnet18", **flags)


def small(data, student, labelled, **flags) -> dict:
    """Of minutes: few steps, and of digits and with smaller nets unless others are given."""
    net = {"net": "vit", "depth": 2, "heads": 2, "positions": "learned"}
    seen, student = SEEN, student or ("resnet18" if data.get("dir") else {**net, "width": 32})
    if not data.get("dir"):
        seen, data, labelled = DIGITS, {"name": "digits", "test": 0.2, **data}, labelled or 100
    flags |= {"data": data, "student": student, "labelled": labelled}
    return built(seen, {**net, "width": 64}, 300, 64, **flags)


def built(seen, larger, most, batch, *, data, labelled, **flags) -> dict:
    """The recipe for a teacher and images; what is not said of them is read from their folders."""
    teacher, student, loss, logits, cached, steps, size, given = (flags[key] for key in FLAGS)
    steps, classes, where = steps or most, classes_of(data), data.get("dir", "")
    seen = seen._replace(size=size, resize=size) if size else seen
    own.refuse_untaught(teacher, where, classes)
    about = networks.image_teacher(teacher) if teacher else None
    seen = (about.preprocessing if about else None) or seen
    head, names = (about.classes, about.class_names) if about else (len(classes), classes)
    soft, tiny = own.reads_logits(logits, head, names, classes), seen.size == seen.resize <= 32
    # Where nothing is known of the images, they are said to have labels.
    labels, outputs = bool(classes) or not where, len(classes) or (head if soft else 0)
    net = own.image_student(student, seen.size, outputs if where or classes else None)
    learns = {
        "student": net,
        "targets": {"kind": "live", "stage": "teacher"},
        "objective": families.learnt(loss, net, about.architecture if about else larger),
        "optimizer": adamw(1e-3, min(steps // 10, 500), weight_decay=0.05),
        "view": {"augment": own.drawn(seen.size, seen.normalise(), small=tiny)},
        "batch_size": given or batch,
        "log_every": min(50, max(steps // 20, 1)),
    }
    if soft:
        learns["objective"]["logits"] = {"loss": "hinton_kd", "temperature": 2.0}
    whole = seen.whole()
    watched = own.measured(whole, labelled, SETS) if labels else own.alike(whole)
    stages = {"teacher": {"checkpoint": teacher, "view": learns["view"]}}
    if not teacher:
        stages["teacher"] = {
            **{**learns, "targets": None, "objective": LABELS, "steps": most},
            "student": own.image_student(larger, seen.size, net.get("classes")),
            "evaluate": {"accuracy": accuracy(augment=whole)},
        }
    # What the student is worth before it has learnt anything, and what its teacher is.
    stages["start"] = {**learns, "steps": 0, "evaluate": watched}
    stages["distil"] = {
        **learns,
        "steps": steps,
        "initial": {"stage": "start"},
        "evaluate": {name: {**spec, "teacher": not labels} for name, spec in watched.items()},
        "checkpoint_every": max(steps // 10, 1),
    }
    if cached:
        there = own.stored(4 if cached is True else cached, learns["objective"])
        stages["distil"]["targets"] = {**learns["targets"], "cached": there}
        stages["distil"]["evaluate"] = watched if labels else None
    order, asked = tuple(stages), {}
    if labels:
        known = {**learns, "targets": None, **own.labelled(labelled), "steps": steps}
        known["evaluate"] = {"accuracy": accuracy(augment=whole), **watched}
        stages |= with_labels(known, steps)
        order, asked = (*order, "finetune"), {"claim": own.claim()}
    return recipe(
        title=own.titled("Own images", teacher, student),
        sentence="A small net learns the features of a large one on one's own images.",
        data=read(data, seen, labels),
        stages=stages,
        order=order,
        **asked,
    )


def with_labels(known: dict, steps: int) -> dict:
    """The student tuned on the labels that there are, and what the claim compares its features
    with: the same net, of the same labels alone."""
    tuned = {**known, "steps": max(steps // 5, 1), "initial": {"stage": "distil"}}
    optimizer = adamw(3e-4, min(steps // 50, 100), weight_decay=0.05)
    return {"finetune": {**tuned, "optimizer": optimizer}, "labels": known}


def classes_of(data) -> tuple[str, ...]:
    """The classes of one's images, which are folders; those of digits are known."""
    if not data.get("dir") or data.get("labels") is False:
        return tuple("0123456789") if data.get("name") == "digits" else ()
    return folders.classes_in(folders.parts_of(data["dir"])["train"])


def read(data, seen, labels) -> dict:
    """How images are read, as the teacher's files say; what has no labels is hardly held out."""
    if data.get("name", "image_folder") != "image_folder":
        return dict(data)
    held_out = {"validation": 0.1, "test": 0.1} if labels else {"validation": 0.1, "test": 0.0}
    if data.get("dir") and len(folders.parts_of(data["dir"])) > 1:
        held_out["test"] = 0.0
    return {"name": "image_folder", "dir": "", **held_out, **seen.data(), **data}


VARIANTS = {"": published, "small": small}


def get_config(
    variant: str = "",
    *,
    teacher: str = "",
    student: str | Mapping[str, Any] | None = None,
    data: Mapping[str, Any] | None = None,
    loss: str = "cosine",
    logits: bool | None = None,
    labelled: int | None = None,
    cached: bool | int = False,
    steps: int | None = None,
    size: int | None = None,
    batch_size: int | None = None,
) -> ConfigDict:
    """The recipe for one's teacher, student and images, or with ``small`` one of minutes."""
    flags = {"teacher": teacher, "student": student, "data": dict(data or {}), "loss": loss}
    flags |= {"logits": logits, "labelled": labelled, "cached": cached, "steps": steps}
    flags |= {"size": size, "batch_size": batch_size}
    return chosen(VARIANTS, variant, __file__, **flags)
