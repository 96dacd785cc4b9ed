"""The methods of distilling a classifier of images into a smaller one, as what a config says.

Each method is a function of the places where student and teacher are read to a :class:`Method`.
Weights are those of torchdistill's configs where it has the method (Matsubara, RRPR 2020 and
NLP-OSS 2023), otherwise those of mdistiller or RepDistiller (Tian et al., ICLR 2020). Where our
loss divides by another number than the public one, its weight makes up for that; hints are means,
where torchdistill has sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from jaxdistill._errors import unknown
from jaxdistill.presets.images import LABELS
from jaxdistill.presets.pairs import Form

Stage = dict[str, Any]
"""What a config says of a stage."""


class Method(NamedTuple):
    """How a student is distilled.

    Attributes:
        distil: what its stage says: an objective, and perhaps a view.
        first: the stages before it, in order, each without what all stages share. A stage that has
            a ``student`` trains a head on the teacher, and the last of these teaches; any other
            trains the student, which goes on from there.
        own: whether the teacher is a net of the student's own form.
    """

    distil: Stage
    first: dict[str, Stage] = {}  # noqa: RUF012 (nobody changes it)
    own: bool = False


class Soft(NamedTuple):
    """Plain distillation: the share of the soft labels, their temperature."""

    share: float = 0.9
    temperature: float = 4.0


Maker = Callable[[Form, Form, Soft], Method]
"""From teacher, student and plain distillation to a method."""


def labels(weight: float = 1.0, **settings: Any) -> dict[str, Any]:
    """The entry of the labels, by name.

    Example:
        >>> labels(0.1)["labels"]["weight"]
        0.1
    """
    return {"labels": {**LABELS["labels"], "weight": weight, **settings}}


def soft(weight: float, temperature: float, **settings: Any) -> dict[str, Any]:
    """The entry of the soft labels, by name.

    Example:
        >>> soft(0.9, 4.0)
        {'soft': {'loss': 'hinton_kd', 'temperature': 4.0, 'weight': 0.9}}
    """
    entry = {"loss": "hinton_kd", "temperature": temperature, "weight": weight}
    return {"soft": {**entry, **settings}}


def plain(kd: Soft, **where: Any) -> dict[str, Any]:
    """Labels and soft labels.

    Example:
        >>> list(plain(Soft()))
        ['labels', 'soft']
    """
    return {**labels(1 - kd.share, **where), **soft(kd.share, kd.temperature, **where)}


def each(loss: str, ours: tuple[str, ...], theirs: tuple[str, ...], **settings: Any) -> Any:
    """One entry of a loss for each pair of places.

    Example:
        >>> each("attention_transfer", ("a",), ("b",), weight=1000.0)
        {'attention_transfer_0': {'loss': 'attention_transfer', 'student': 'a', 'target': 'b',
         'weight': 1000.0}}
    """
    return {
        f"{loss}_{place}": {"loss": loss, "student": s, "target": t, **settings}
        for place, (s, t) in enumerate(zip(ours, theirs, strict=True))
    }


def _beside(entries: Mapping[str, Any]) -> Method:
    """Beside the labels."""
    return Method({"objective": {**labels(), **entries}})


def _pooled(loss: str, **settings: Any) -> Maker:
    def made(theirs: Form, ours: Form, kd: Soft) -> Method:
        return _beside(each(loss, (ours.pooled,), (theirs.pooled,), **settings))

    return made


def _maps(loss: str, last: int, **settings: Any) -> Maker:
    def made(theirs: Form, ours: Form, kd: Soft) -> Method:
        return _beside(each(loss, ours.maps[-last:], theirs.maps[-last:], **settings))

    return made


def _logits(*entries: Mapping[str, Any], ce: float = 1.0) -> Maker:
    def made(theirs: Form, ours: Form, kd: Soft) -> Method:
        found = {f"{entry['loss']}_{place}": entry for place, entry in enumerate(entries)}
        return Method({"objective": {**labels(ce), **found}})

    return made


def _then_plain(first: Callable[[Form, Form], dict[str, Any]]) -> Maker:
    """A stage of features alone, then plain distillation."""

    def made(theirs: Form, ours: Form, kd: Soft) -> Method:
        return Method({"objective": plain(kd)}, {"first": {"objective": first(theirs, ours)}})

    return made


def _hint(places: slice) -> Callable[[Form, Form], dict[str, Any]]:
    return lambda theirs, ours: each(
        "hint", ours.maps[places], theirs.maps[places], projector="convolution"
    )


def _boundaries(places: slice) -> Callable[[Form, Form], dict[str, Any]]:
    def made(theirs: Form, ours: Form) -> dict[str, Any]:
        found = each(
            "activation_boundary",
            ours.before[places],
            theirs.before[places],
            projector="convolution",
        )
        for back, entry in enumerate(reversed(found.values())):
            entry["weight"] = 3e-3 * 2.0**-back
        return found

    return made


def _flow(theirs: Form, ours: Form) -> dict[str, Any]:
    return {"fsp": {"loss": "fsp", "student": ours.maps, "target": theirs.maps}}


def _fsp(theirs: Form, ours: Form, kd: Soft) -> Method:
    return Method({"objective": labels()}, {"first": {"objective": _flow(theirs, ours)}})


def _kd(theirs: Form, ours: Form, kd: Soft) -> Method:
    return Method({"objective": plain(kd)})


def _tf_kd(theirs: Form, ours: Form, kd: Soft) -> Method:
    return Method({"objective": {**labels(0.9), **soft(0.1, 1.0)}}, own=True)


def _pad(theirs: Form, ours: Form, kd: Soft) -> Method:
    first = _pooled("hint", weight=15.0, projector="linear")(theirs, ours, kd)
    second = each("pad", (ours.pooled,), (theirs.pooled,))
    return _beside(second)._replace(first={"first": first.distil})


def _paraphrased(theirs: Form, share: float) -> dict[str, Stage]:
    """A stage that learns the factors of the teacher's last maps."""
    where = theirs.maps[-1]
    head = {"name": "paraphraser", "share": share}
    net = {"net": "extended", "stage": "teacher", "tap": where, "head": head}
    objective = {"again": {"loss": "hint", "student": "head", "target": where}}
    return {"paraphraser": {"student": net, "objective": objective}}


def _factors(**entries: Mapping[str, Any]) -> Maker:
    def made(theirs: Form, ours: Form, kd: Soft) -> Method:
        shared = {"student": ours.maps[-1], "target": "head/factor", "projector": "translator"}
        found = {name: {**shared, **entry} for name, entry in entries.items()}
        return _beside(found)._replace(first=_paraphrased(theirs, 0.5))

    return made


def _sskd(theirs: Form, ours: Form, kd: Soft) -> Method:
    turned, upright = {"turned": True}, {"where": "batch/upright"}
    head = {"name": "embedding", "width": 128}
    net = {"net": "extended", "stage": "teacher", "tap": theirs.pooled, "head": head}
    pretext = {"pretext": {"loss": "sskd_pretext", "student": "head"}}
    read = {"student": ours.pooled, "target": "head", "projector": "mlp"}
    transformed = {"loss": "sskd_transformed", "arguments": {"labels": "batch/image_label"}}
    objective = {
        **labels(1.0, **upright),
        **soft(0.9, 4.0, **upright),
        "similarity": {"loss": "sskd_similarity", "weight": 10.0, **read},
        "transformed": {**transformed, "weight": 2.7},
    }
    first = {"pretext": {"student": net, "objective": pretext, "view": turned}}
    return Method({"objective": objective, "view": turned}, first)


def _srd(theirs: Form, ours: Form, kd: Soft) -> Method:
    recipe = each("simple_recipe", (ours.pooled,), (theirs.pooled,))
    return _beside({**recipe, **soft(1.0, 1.0)})


def _kr(theirs: Form, ours: Form, kd: Soft) -> Method:
    loss = {"loss": "knowledge_review", "student": ours.maps, "target": theirs.maps}
    return _beside({"review": loss})


def _ofd(theirs: Form, ours: Form, kd: Soft) -> Method:
    loss = {"loss": "overhaul", "student": ours.before, "target": theirs.before}
    return _beside({"overhaul": {**loss, "norms": theirs.norms}})


def _dist_plus(theirs: Form, ours: Form, kd: Soft) -> Method:
    # Half the squared gap of two standardised vectors is one less their correlation.
    shared = {"normalise": "layer_norm", "projector": "convolution"}
    where = (ours.maps[-1:], theirs.maps[-1:])
    found = {"dist": {"loss": "dist", "weight": 2.0}}
    for name, axis in (("channels", (1, 2)), ("places", (-1,))):
        (entry,) = each("feature_match", *where, axis=axis, weight=1.0, **shared).values()
        found[name] = entry
    return _beside(found)


def _mlkd(theirs: Form, ours: Form, kd: Soft) -> Method:
    levels = (2.0, 3.0, 4.0, 5.0, 6.0)
    kinds = {"soft": "hinton_kd", "classes": "class_correlation", "batch": "batch_correlation"}
    return _beside(
        {
            f"{name}_{level:g}": {"loss": loss, "temperature": level, "weight": 1 / len(levels)}
            for level in levels
            for name, loss in kinds.items()
        }
    )


METHODS: dict[str, Maker] = {
    "kd": _kd,
    "tf_kd": _tf_kd,
    "logit_std": _logits({"loss": "standardised_kd", "temperature": 2.0, "weight": 9.0}, ce=0.5),
    "fitnets": _then_plain(_hint(slice(1, 2))),
    "l2": _pooled("hint", weight=15.0, projector="linear"),
    "pad": _pad,
    "at": _maps("attention_transfer", 2, weight=1000.0),
    "fsp": _fsp,
    "pkt": _pooled("pkt", weight=30000.0),
    "ft": _factors(factors={"loss": "factor_transfer", "weight": 1000.0}),
    "dab": _then_plain(_boundaries(slice(-1, None))),
    "rkd": _pooled("rkd", distance_weight=1.0, angle_weight=2.0),
    "vid": _maps("vid", 2),
    "cckd": _pooled("correlation_congruence", weight=0.003),
    "spkd": _maps("similarity_preserving", 1, weight=3000.0),
    "crd": _pooled("crd", weight=0.8),
    "sskd": _sskd,
    "kr": _kr,
    "kta": _factors(
        translated={"loss": "kta"},
        affinity={"loss": "affinity"},
    ),
    "ickd": _maps("ickd", 1, weight=2.0, projector="convolution"),
    "dist": _logits({"loss": "dist", "weight": 2.0}),
    "dist_plus": _dist_plus,
    "srd": _srd,
    "skd": _logits(
        {"loss": "hinton_kd", "temperature": 4.0, "weight": 1 / 16},
        {"loss": "direction_skd"},
    ),
    "hnd": _then_plain(_hint(slice(-1, None))),
    "ghnd": _then_plain(_hint(slice(None))),
    "dkd": _logits({"loss": "decoupled_kd", "temperature": 4.0, "non_target_weight": 8.0}),
    "nkd": _logits({"loss": "normalised_kd", "temperature": 1.0}),
    "mlkd": _mlkd,
    "nst": _maps("nst", 1, weight=50.0),
    "ofd": _ofd,
    "ab": _then_plain(_boundaries(slice(None))),
}
"""The methods by name."""


def stages(
    method: str,
    pair: tuple[Form, Form],
    kd: Soft,
    trained: Callable[[str, Stage], Stage],
    *,
    apart: bool = False,
) -> dict[str, Stage]:
    """The stages of a method, in order: its teacher first, ``distil`` last.

    Args:
        method: one of :data:`METHODS`.
        pair: teacher and student.
        kd: plain distillation.
        trained: from the name of a stage and what is special of it (net, objective, targets, view)
            to all that it says: steps, batches, rates, evaluation besides.
        apart: whether stages of a student and of a head bear the method's name, so that those of
            several methods stand side by side; the last one is called as the method then.

    Raises:
        ValueError: for an unknown method, with the nearest.
    """
    if method not in METHODS:
        raise ValueError(unknown("method", method, METHODS))
    theirs, ours = pair
    made = METHODS[method](theirs, ours, kd)
    teacher, form = ("own", ours) if made.own else ("teacher", theirs)
    found = {teacher: trained(teacher, {"student": form.net})}
    targets, initial = {"kind": "live", "stage": teacher}, None
    for name, stage in made.first.items():
        said = trained(name, {"student": ours.net, "targets": targets, **stage})
        name = f"{method}_{name}" if apart else name
        found[name] = said
        if "student" in stage:
            targets = {"kind": "live", "stage": name}
        else:
            initial = {"stage": name}
    own = {"student": ours.net, "targets": targets, **made.distil}
    own |= {"initial": initial} if initial else {}
    return {**found, method if apart else "distil": trained("distil", own)}
