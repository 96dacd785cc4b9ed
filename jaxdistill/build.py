"""The only place where names in a config become functions.

A config is data. Every name in it is looked up in one of the tables below, and every key is checked before anything
is computed: a misspelt one is refused with the nearest valid name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import optax

from jaxdistill import adapt, evaluation, losses, models, objective, targets
from jaxdistill._errors import unknown
from jaxdistill.data import augment, prepare, sources, split
from jaxdistill.net import Net, from_linen
from jaxdistill.training import optimizer

NETS: dict[str, Callable[..., Any]] = {
    "mlp": models.MLP,
    "cifar_resnet": models.cifar_resnet,
    "imagenet_resnet": models.imagenet_resnet,
    "vit": models.ViT,
    "mae": models.MAE,
}
LOSSES: dict[str, Callable[..., jax.Array]] = {
    entry.loss.__name__: entry.loss for entry in losses.catalogue()
}
PROJECTORS: dict[str, Callable[..., Net]] = {
    "linear": adapt.linear,
    "mlp": adapt.mlp,
    "convolution": adapt.convolution,
    "resize": adapt.resize,
}
AUGMENTATIONS: dict[str, Callable[..., Any]] = {
    "random_resized_crop": augment.random_resized_crop,
    "random_crop": augment.random_crop,
    "shift": augment.shift,
    "flip": augment.flip,
    "color_jitter": augment.color_jitter,
    "random_erasing": augment.random_erasing,
    "resize": augment.resize,
    "normalise": augment.normalise,
}
MIXES: dict[str, Callable[..., Any]] = {
    "mixup": augment.mixup,
    "cutmix": augment.cutmix,
    "mixup_or_cutmix": augment.mixup_or_cutmix,
}


def _adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8) -> optax.GradientTransformation:
    return optax.scale_by_adam(b1, b2, eps)


def _sgd(momentum: float = 0.0, nesterov: bool = False) -> optax.GradientTransformation:
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


OPTIMIZERS: dict[str, Callable[..., optax.GradientTransformation]] = {
    "adamw": _adam,
    "sgd": _sgd,
    "lion": optax.scale_by_lion,
}


def _warmup_cosine(peak: float, warmup: int, steps: int, end: float = 0.0) -> optax.Schedule:
    # Two steps of a smoke run are fewer than any warm-up.
    warmup = min(warmup, steps // 2)
    return optax.warmup_cosine_decay_schedule(0.0 if warmup else peak, peak, warmup, max(steps, 1), end)


def _step_decay(
    peak: float, milestones: Sequence[int], factor: float = 0.1
) -> optax.Schedule:
    return optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, factor))


def _linear(start: float, end: float, steps: int, begin: int = 0) -> optax.Schedule:
    return optax.linear_schedule(start, end, max(steps - begin, 1), begin)


def _cosine(start: float, end: float, steps: int) -> optax.Schedule:
    half = optax.cosine_decay_schedule(1.0, max(steps, 1))
    return lambda step: end + (start - end) * half(step)


def _exponential(start: float, rate: float, every: int = 1) -> optax.Schedule:
    return optax.exponential_decay(start, every, rate)


SCHEDULES: dict[str, Callable[..., optax.Schedule]] = {
    "warmup_cosine": _warmup_cosine,
    "step_decay": _step_decay,
    "linear": _linear,
    "cosine": _cosine,
    "exponential": _exponential,
    "snapshot_every": lambda every: targets.snapshot_every(every),
}


def _image_files(name: str, dir: str = "") -> tuple[sources.Source, sources.Source]:
    """MNIST and its like: ``train.npz`` and ``test.npz``, or the official idx files, in one folder."""
    from pathlib import Path

    if not dir:
        raise ValueError(
            f"data set {name!r} needs a folder: --config.data.dir=<folder with train.npz and test.npz, or with the "
            "official train-images-idx3-ubyte.gz and its three companions>"
        )
    read = sources.npz if (Path(dir) / "train.npz").exists() else sources.idx
    return read(dir, "train", name), read(dir, "test", name)


def _tfds(dataset: str, dir: str = "", image_size: int | None = None, test_split: str = "test"):
    directory = dir or None
    return (
        sources.tfds(dataset, "train", directory, image_size),
        sources.tfds(dataset, test_split, directory, image_size),
    )


def _folder(dir: str, image_size: int):
    return (
        sources.image_folder(f"{dir}/train", image_size),
        sources.image_folder(f"{dir}/test", image_size),
    )


# Each gives one source that is to be split, or a pair of the training and the official test set.
DATA: dict[str, Callable[..., Any]] = {
    "digits": sources.digits,
    "photographs": sources.photographs,
    "mnist": lambda dir="": _image_files("mnist", dir),
    "fashion_mnist": lambda dir="": _image_files("fashion_mnist", dir),
    "image_folder": _folder,
    "tfds": _tfds,
    "imagenet2012": lambda dir="", image_size=256: _tfds("imagenet2012", dir, image_size, "validation"),
}


def call(kind: str, table: Mapping[str, Callable[..., Any]], name: str, settings: Mapping[str, Any], **given: Any):
    """Calls what a name stands for with the settings of a config, after checking every key.

    Args:
        kind: what the table holds, for messages.
        table: names to functions.
        name: the name in the config.
        settings: its keywords in the config.
        given: what the caller has to offer; a function gets what it has a parameter for, unless it is in settings.

    Raises:
        ValueError: for an unknown name, an unknown key, or a key that is missing.
    """
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    function = table[name]
    parameters = inspect.signature(function).parameters
    for key in settings:
        if key not in parameters:
            raise ValueError(unknown(f"key of {kind} {name!r}", key, parameters))
    given = {key: value for key, value in given.items() if key in parameters and key not in settings}
    missing = [
        key
        for key, parameter in parameters.items()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        and key not in settings
        and key not in given
    ]
    if missing:
        raise ValueError(f"{kind} {name!r} needs {', '.join(map(repr, missing))}")
    return function(**given, **settings)


def without(settings: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    """A mapping less some keys, and less what is None."""
    return {key: value for key, value in settings.items() if key not in keys and value is not None}


def named(kind: str, settings: Mapping[str, Any], key: str = "name") -> str:
    """The name in a part of a config, with a clear error if there is none."""
    if key not in settings:
        raise ValueError(f"{kind} {dict(settings)} does not say which: it needs {key!r}")
    return settings[key]


def data(settings: Mapping[str, Any]) -> split.Splits:
    """The train, validation and test sets of ``config.data``."""
    name = named("data set", settings)
    own = {k: v for k, v in settings.items() if k not in ("name", "validation", "test") and v not in (None, "")}
    found = call("data set", DATA, name, own)
    train, test = found if isinstance(found, tuple) else (found, None)
    validation = settings.get("validation", 0.1)
    if test is not None:
        return split.splits(train, test, validation=validation)
    return split.splits(train, validation=validation, test=settings.get("test", 0.2))


def net(settings: Mapping[str, Any], info: Mapping[str, Any]) -> Net:
    """The net of a stage; ``classes`` and ``channels`` come from the data unless they are given."""
    name = named("net", settings, "net")
    given = {"classes": info.get("classes"), "channels": (info.get("image_shape") or (None,))[-1]}
    return from_linen(call("net", NETS, name, without(settings, "net"), **given))


def schedule(value: Any, steps: int) -> Any:
    """A number as it is; a dict that names a ``schedule`` as a function of the step."""
    if isinstance(value, Mapping) and "schedule" in value:
        return call("schedule", SCHEDULES, value["schedule"], without(value, "schedule"), steps=steps)
    return value


def transformation(settings: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """The optimizer of a stage."""
    by_path = inspect.signature(optimizer.by_path).parameters
    shared = {k: v for k, v in settings.items() if k in by_path and v is not None}
    name = named("optimizer", settings)
    scale_by = call("optimizer", OPTIMIZERS, name, without(settings, "name", *by_path))
    if "learning_rate" not in shared:
        raise ValueError(f"optimizer {name!r} needs 'learning_rate'")
    shared["learning_rate"] = schedule(shared["learning_rate"], steps)
    return optimizer.by_path(scale_by, **shared)


VIEW_KEYS = ("augment", "mix", "mask")


def view(settings: Mapping[str, Any] | None, info: Mapping[str, Any]) -> prepare.Prepare:
    """What is drawn before either net runs: augmentation, mixing of pairs, masking."""
    settings = settings or {}
    for key in settings:
        if key not in VIEW_KEYS:
            raise ValueError(unknown("key of a view", key, VIEW_KEYS))
    operations = [
        call("augmentation", AUGMENTATIONS, named("augmentation", spec), without(spec, "name"))
        for spec in settings.get("augment") or ()
    ]
    parts = [prepare.views(operations)]
    if mix := settings.get("mix"):
        function = _partial("mix", MIXES, named("mix", mix), without(mix, "name", "smoothing"))
        parts.append(prepare.mixed(function, info["classes"], smoothing=mix.get("smoothing", 0.0)))
    if mask := settings.get("mask"):
        parts.append(call("mask", {"patches": prepare.masked}, "patches", without(mask)))
    return prepare.chain(*parts)


def _partial(kind: str, table: Mapping[str, Callable[..., Any]], name: str, settings: Mapping[str, Any]):
    if name not in table:
        raise ValueError(unknown(kind, name, table))
    parameters = inspect.signature(table[name]).parameters
    for key in settings:
        if key not in parameters:
            raise ValueError(unknown(f"key of {kind} {name!r}", key, parameters))
    return lambda *arrays: table[name](*arrays, **settings)


MATCH_KEYS = ("loss", "student", "target", "weight", "where", "arguments", "projector")


def match(name: str, settings: Mapping[str, Any], steps: int) -> objective.Objective:
    """One entry of ``objective``: a loss between an array of the student and one of its targets."""
    loss_name = named(f"objective {name!r}", settings, "loss")
    if loss_name not in LOSSES:
        raise ValueError(unknown("loss", loss_name, LOSSES))
    loss = LOSSES[loss_name]
    parameters = inspect.signature(loss).parameters
    hyper = without(settings, *MATCH_KEYS)
    for key in hyper:
        if key not in parameters:
            raise ValueError(unknown(f"key of loss {loss_name!r}", key, [*parameters, *MATCH_KEYS]))
    arguments = dict(settings.get("arguments") or {})
    if "labels" in parameters and list(parameters).index("labels") > 1:
        arguments.setdefault("labels", "batch/label")
    projector = settings.get("projector")
    if projector:
        spec = {"name": projector} if isinstance(projector, str) else projector
        kind = named("projector", spec)
        if kind not in PROJECTORS:
            raise ValueError(unknown("projector", kind, PROJECTORS))
        extra = without(spec, "name")

        def projected(student_shape, target_shape):
            return PROJECTORS[kind](student_shape, target_shape, **extra)
    else:
        projected = None
    return objective.match(
        loss,
        name=name,
        student=settings.get("student", "out"),
        target=settings.get("target", "out"),
        weight=schedule(settings.get("weight", 1.0), steps),
        where=settings.get("where"),
        arguments=arguments,
        projector=projected,
        **{key: schedule(value, steps) for key, value in hyper.items()},
    )


def student_taps(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The taps of the student that an objective reads."""
    paths: list[str] = []
    for entry in entries.values():
        paths += [entry.get("student", "out"), *(entry.get("arguments") or {}).values()]
    return objective.taps_of(*paths)


def target_paths(entries: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The names of targets that an objective reads."""
    paths = [entry.get("target", "out") for entry in entries.values()]
    for entry in entries.values():
        arguments = (entry.get("arguments") or {}).values()
        paths += [path.removeprefix("target/") for path in arguments if path.startswith("target/")]
    return tuple(path for path in dict.fromkeys(paths) if path and not path.startswith("batch/"))


TARGET_KEYS = {
    "live": ("stage", "mode"),
    "ema": ("mode",),
    "self": ("mode",),
    "ensemble": ("members", "weights", "average"),
    "merge": ("members",),
    "labels": ("key",),
}


def target(
    settings: Mapping[str, Any] | None, paths: Sequence[str], nets: Mapping[str, Net], student: Net
) -> Callable[..., dict[str, Any]]:
    """What a stage learns from.

    Args:
        settings: ``config.stages.<name>.targets``; None for a stage that learns from its batches alone.
        paths: the names of targets that the objective reads, see :func:`target_paths`.
        nets: the nets of earlier stages.
        student: the stage's own net.
    """
    if settings is None:
        return lambda sources, batch, key, step: {}
    kind = settings.get("kind", "live")
    if kind not in TARGET_KEYS:
        raise ValueError(unknown("kind of targets", kind, TARGET_KEYS))
    for key in without(settings, "kind"):
        if key not in TARGET_KEYS[kind]:
            raise ValueError(unknown(f"key of {kind!r} targets", key, TARGET_KEYS[kind]))
    mode = settings.get("mode") or "eval"
    if kind in ("ema", "self"):
        return targets.live(student, kind, inputs="teacher", taps=objective.taps_of(*paths), mode=mode)
    if kind == "live":
        stage = named("targets", settings, "stage")
        if stage not in nets:
            raise ValueError(unknown("earlier stage", stage, nets))
        return targets.live(nets[stage], stage, inputs="teacher", taps=objective.taps_of(*paths), mode=mode)
    if kind == "labels":
        return targets.labels(settings.get("key") or "label")
    members = {
        name: target(member, _under(name, paths), nets, student)
        for name, member in named("targets", settings, "members").items()
    }
    if kind == "merge":
        return targets.merge(members)
    return targets.ensemble(members, **without(settings, "kind", "members"))


def target_stages(settings: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The earlier stages whose results some targets need."""
    if not settings:
        return ()
    if "members" in settings:
        found = [name for member in settings["members"].values() for name in target_stages(member)]
        return tuple(dict.fromkeys(found))
    return (settings["stage"],) if settings.get("kind", "live") == "live" and "stage" in settings else ()


def _under(member: str, paths: Sequence[str]) -> tuple[str, ...]:
    return tuple(path.removeprefix(f"{member}/") for path in paths if path.startswith(f"{member}/"))


EVALUATORS: dict[str, Callable[..., Any]] = {
    "classification": evaluation.classification,
    "linear_probe": evaluation.linear_probe,
    "nearest_neighbours": evaluation.nearest_neighbours,
    "cka": evaluation.cka,
}
