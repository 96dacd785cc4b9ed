"""What the small files beside published weights say of a network; no weights are read, and no JAX.

``config.json`` says what it is, ``preprocessor_config.json`` (Transformers) or ``pretrained_cfg``
(timm) how images must be prepared for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jaxdistill._errors import unknown
from jaxdistill._hub import folder_of

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_PROCESSOR = "processor_config.json"
# What is fetched of a name on the hub to know what it is, and what its tokenizer is made of.
FILES = (CONFIG, PREPROCESSOR, _PROCESSOR)
TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt", "vocab.txt")

# Architectures of Transformers that see images, in which ``pooled`` is one vector an image.
_SEEING = (
    "ViTModel", "ViTForImageClassification", "DeiTModel", "DeiTForImageClassificationWithTeacher",
    "Dinov2Model", "Dinov2ForImageClassification", "Dinov2WithRegistersModel",
    "Dinov2WithRegistersForImageClassification", "CLIPModel", "CLIPVisionModel",
    "CLIPVisionModelWithProjection", "SiglipModel", "SiglipVisionModel",
    "ResNetForImageClassification", "ConvNextForImageClassification",
    "ConvNextV2ForImageClassification",
)  # fmt: skip
# Those of timm, by how their names begin.
_TIMM = ("vit_", "deit_", "resnet", "convnext", "mobilenetv3_")
# Those that write.
_WRITING = (
    "LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "GemmaForCausalLM", "Gemma2ForCausalLM", "Gemma3ForCausalLM", "GPT2LMHeadModel",
)  # fmt: skip
# What Pillow calls its ways to resample, as numbers in Transformers and as names in timm.
_RESAMPLE = {2: "bilinear", 3: "bicubic", "bilinear": "bilinear", "bicubic": "bicubic"}


class Preprocessing(NamedTuple):
    """How images are prepared for a network.

    Attributes:
        size: the side of what it sees, in pixels.
        resize: to which side an image is brought before its centre of ``size`` is cut.
        stretch: whether both sides are brought to that, else the shorter one.
        mean: what is taken off every channel of an image in [0, 1].
        std: what the rest is divided by.
        resample: ``"bilinear"`` or ``"bicubic"``.

    Example:
        >>> seen = Preprocessing(224, 256, False, (0.5,) * 3, (0.25,) * 3)
        >>> [step["name"] for step in seen.whole()]
        ['centre_crop', 'normalise']
    """

    size: int
    resize: int
    stretch: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: str = "bicubic"

    def normalise(self) -> dict[str, Any]:
        """Its statistics, as an operation of a view."""
        return {"name": "normalise", "mean": self.mean, "std": self.std}

    def whole(self) -> tuple[dict[str, Any], ...]:
        """What is done to an image of ``resize`` pixels, as operations of a view."""
        cut = ({"name": "centre_crop", "size": self.size},) if self.resize != self.size else ()
        return *cut, self.normalise()

    def data(self) -> dict[str, Any]:
        """What a folder of images is read as, as keys of ``config.data``."""
        fit = "stretch" if self.stretch else "cut"
        return {"image_size": self.resize, "fit": fit, "resample": self.resample}


class Published(NamedTuple):
    """A published network, as its small files describe it.

    Attributes:
        architecture: its name, of Transformers or of timm.
        sees: ``"image"``, ``"text"`` (it writes texts), or what is neither, ``"other"``.
        classes: of its head; 0 where it has none.
        class_names: where they are known.
        preprocessing: of its images; None where its files say nothing of it.
        vocabulary: how many tokens it knows, or None.
        depth: how many layers it has, where its config says so.
    """

    architecture: str
    sees: str
    classes: int = 0
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    vocabulary: int | None = None
    depth: int | None = None


def describe(path: Path | str, files: Sequence[str] = FILES) -> Published:
    """What the files beside published weights say.

    Args:
        path: a folder, or ``owner/name`` or ``owner/name@revision`` on the Hugging Face hub, of
            which these ``files`` alone are fetched.

    Raises:
        FileNotFoundError: without ``config.json``.
        ValueError: for files that are no JSON objects, name no architecture, or ask for a
            preprocessing that is not implemented.
        ImportError: for a name on the hub, without the extra ``hf``.
    """
    folder = folder_of(path, files)
    if not (folder / CONFIG).is_file():
        raise FileNotFoundError(
            f"{folder} holds no published network: it has no {CONFIG}, which says what the weights "
            "are"
        )
    config = _object(folder / CONFIG)
    name = config.get("architecture") or next(iter(config.get("architectures") or ()), None)
    if not isinstance(name, str):
        raise ValueError(f"{folder / CONFIG} names no architecture")
    timm = "architecture" in config
    classes, names = _timm_head(config) if timm else _head(config, name)
    return Published(
        name,
        _sees(name, timm),
        classes,
        names,
        preprocessing_of(folder),
        config.get("vocab_size"),
        config.get("num_hidden_layers", config.get("n_layer")),
    )


def image_teacher(path: Path | str) -> Published:
    """:func:`describe` of a network whose features of images can be learnt.

    Raises:
        ValueError: for any other, and for one whose preprocessing is not known.
    """
    found = describe(path)
    if found.sees != "image":
        kind = "writes texts" if found.sees == "text" else "is not of their families"
        possible = unknown("teacher of images", found.architecture, (*_SEEING, *_stars()))
        raise ValueError(f"{path} {kind}: {possible}")
    if found.preprocessing is None:
        raise ValueError(
            f"{path} does not say how images are prepared for it: it has no {PREPROCESSOR}, nor "
            f"'mean', 'std' and 'input_size' in the 'pretrained_cfg' of its {CONFIG}. Write one, "
            'e.g. {"size": 224, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]}'
        )
    return found


def text_teacher(path: Path | str) -> Published:
    """:func:`describe` of a decoder.

    Raises:
        ValueError: for any other network.
    """
    found = describe(path, (*FILES, *TOKENIZER))
    if found.sees != "text":
        kind = "sees images" if found.sees == "image" else "is no decoder"
        possible = unknown("teacher of texts", found.architecture, _WRITING)
        raise ValueError(f"{path} {kind} and cannot continue a text: {possible}")
    return found


def _stars() -> list[str]:
    return [f"{beginning}*" for beginning in _TIMM]


def _sees(name: str, timm: bool) -> str:
    if timm:
        return "image" if name.startswith(_TIMM) else "other"
    return "image" if name in _SEEING else "text" if name in _WRITING else "other"


def _head(config: Mapping[str, Any], name: str) -> tuple[int, tuple[str, ...]]:
    if "ForImageClassification" not in name:
        return 0, ()
    given = config.get("id2label")
    named = given if isinstance(given, Mapping) else {}
    count = int(config.get("num_labels", len(named) or 2))
    names = tuple(str(named.get(str(i), f"LABEL_{i}")) for i in range(count))
    return count, () if all(n == f"LABEL_{i}" for i, n in enumerate(names)) else names


def _timm_head(config: Mapping[str, Any]) -> tuple[int, tuple[str, ...]]:
    arguments = config.get("model_args") or {}
    count = arguments.get("num_classes", config.get("num_classes", 1000))
    return int(count), tuple(map(str, config.get("label_names") or ()))


def preprocessing_of(path: Path | str) -> Preprocessing | None:
    """How images are prepared for the network in a folder; None where its files say nothing of it.

    Raises:
        ValueError: for a preprocessing that is not implemented, naming file and key.
    """
    folder = Path(path)
    for name in (PREPROCESSOR, _PROCESSOR):
        if not (folder / name).is_file():
            continue
        said = _object(folder / name)
        said = said.get("image_processor", said)
        # Those of texts and of sounds have files of the same name.
        if "image_mean" in said or said.get("do_normalize") is False:
            return _told(folder / name, _transformers, said)
    if not (folder / CONFIG).is_file():
        return None
    config = _object(folder / CONFIG)
    said = {**config, **(config.get("pretrained_cfg") or {})}
    whole = "architecture" in config and all(key in said for key in ("mean", "std", "input_size"))
    return _told(folder / CONFIG, _timm, said) if whole else None


def _told(place: Path, read: Any, said: Mapping[str, Any]) -> Preprocessing:
    try:
        found = read(said)
    except (KeyError, TypeError, IndexError, AttributeError) as fault:
        raise ValueError(f"{place} describes no preprocessing of images: {fault!r}") from fault
    except ValueError as fault:
        raise ValueError(f"{place}: {fault}") from fault
    numbers = (*found.mean, *found.std)
    if len(found.mean) != len(found.std) or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{place}: mean {found.mean} and std {found.std} are no statistics")
    if min(found.std) <= 0 or not 1 <= found.size <= found.resize:
        raise ValueError(
            f"{place}: std {found.std} must be above 0, and {found.size} pixels be cut of as many "
            f"or more, not of {found.resize}"
        )
    return found


def _transformers(said: Mapping[str, Any]) -> Preprocessing:
    size, stretch = _side(said["size"])
    cut = said.get("do_center_crop", False)
    resize = size
    if (share := said.get("crop_pct")) is not None:
        # ConvNeXt's: small ones are cut of larger ones, large ones stretched.
        stretch = size >= 384
        resize = size if stretch else int(size / share)
    elif cut:
        stretch = stretch and isinstance(said["size"], Mapping)
        size = _side(said.get("crop_size", size))[0]
    elif stretch is False:
        raise ValueError("'size' is that of the shorter side, and nothing is cut: images must be")
    statistics = (said["image_mean"], said["image_std"]) if said.get("do_normalize", True) else None
    mean, std = statistics or ((0.0,) * 3, (1.0,) * 3)
    # What follows the scaling by 255 is stated of images in [0, 1] here.
    factor = 255.0 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale", True) else 255.0
    return Preprocessing(
        size,
        resize,
        bool(stretch),
        tuple(float(m) / factor for m in mean),
        tuple(float(s) / factor for s in std),
        _resampling(said.get("resample", 2)),
    )


def _side(size: Any) -> tuple[int, bool]:
    """A side in pixels, and whether both sides become that."""
    if not isinstance(size, Mapping):
        return int(size), True
    if "shortest_edge" in size:
        return int(size["shortest_edge"]), False
    if size["height"] != size["width"]:
        raise ValueError(f"images must be square, not {size['height']} x {size['width']} pixels")
    return int(size["height"]), True


def _timm(said: Mapping[str, Any]) -> Preprocessing:
    _, size, width = said["input_size"]
    if size != width:
        raise ValueError(f"images must be square, not {size} x {width} pixels")
    mode = said.get("crop_mode") or "center"
    if mode not in ("center", "squash"):
        raise ValueError(unknown("crop_mode", mode, ("center", "squash")))
    resize = math.floor(size / said.get("crop_pct", 0.875))
    mean, std = (tuple(map(float, said[key])) for key in ("mean", "std"))
    kind = _resampling(said.get("interpolation", "bicubic"))
    return Preprocessing(size, resize, mode == "squash", mean, std, kind)


def _resampling(kind: Any) -> str:
    if kind not in _RESAMPLE:
        raise ValueError(unknown("way to resample", kind, ("bilinear", "bicubic")))
    return _RESAMPLE[kind]


def statistics(augment: Sequence[Mapping[str, Any]] | None) -> tuple[tuple[float, ...], ...]:
    """What the operations of a view take off images in [0, 1] and divide the rest by, a number a
    channel; of no ``normalise`` 0 and 1, for any channel.

    Example:
        >>> statistics([{"name": "flip"}, {"name": "normalise", "mean": (0.5,), "std": (0.25,)}])
        ((0.5,), (0.25,))
    """
    mean, std = (0.0,), (1.0,)
    for step in augment or ():
        if step.get("name") == "normalise":
            size = max(len(mean), len(step["mean"]))
            mean, std, more, factor = (
                tuple(x) * (size if len(x) == 1 else 1)
                for x in (mean, std, step["mean"], step["std"])
            )
            mean = tuple(m + s * a for m, s, a in zip(mean, std, more, strict=False))
            std = tuple(s * f for s, f in zip(std, factor, strict=False))
    return mean, std


def contradiction(seen: Preprocessing, augment: Sequence[Mapping[str, Any]] | None) -> str:
    """In what the statistics of a view are not those that a network was trained with; empty if they
    are.

    Example:
        >>> seen = Preprocessing(8, 8, False, (0.5,), (0.5,))
        >>> contradiction(seen, (seen.normalise(),))
        ''
    """
    mean, std = statistics(augment)
    for own, theirs in ((mean, seen.mean), (std, seen.std)):
        own = own * len(theirs) if len(own) == 1 else own
        if len(own) != len(theirs) or any(
            abs(a - b) > 1e-3 * max(1.0, abs(b)) for a, b in zip(own, theirs, strict=True)
        ):
            return (
                f"the view normalises images by mean {_short(mean)} and std {_short(std)}, it was "
                f"trained with mean {_short(seen.mean)} and std {_short(seen.std)}: give the view "
                f"{seen.normalise()}"
            )
    return ""


def _short(numbers: Sequence[float]) -> str:
    return "(" + ", ".join(f"{number:g}" for number in numbers) + ")"


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as fault:
        raise ValueError(f"{path} is no JSON: {fault}") from fault
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold an object, it holds a {type(found).__name__}")
    return found


def transformers_preprocessor(seen: Preprocessing) -> dict[str, Any]:
    """The ``preprocessor_config.json`` that says the same.

    Example:
        >>> seen = Preprocessing(28, 32, False, (0.5,), (0.25,))
        >>> said = transformers_preprocessor(seen)
        >>> said["crop_size"], said["size"]
        ({'height': 28, 'width': 28}, {'shortest_edge': 32})
    """
    both = {"height": seen.resize, "width": seen.resize}
    side = {"height": seen.size, "width": seen.size}
    return {
        "do_resize": True,
        "size": both if seen.stretch else {"shortest_edge": seen.resize},
        "resample": {"bilinear": 2, "bicubic": 3}[seen.resample],
        "do_center_crop": not seen.stretch or seen.resize != seen.size,
        "crop_size": side,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(seen.mean),
        "image_std": list(seen.std),
    }


def timm_preprocessing(seen: Preprocessing) -> dict[str, Any]:
    """The entries of timm's ``pretrained_cfg`` that say the same.

    Example:
        >>> timm_preprocessing(Preprocessing(28, 32, False, (0.5,), (0.25,)))["crop_pct"]
        0.875
    """
    return {
        "input_size": [len(seen.mean), seen.size, seen.size],
        "crop_pct": seen.size / seen.resize,
        "crop_mode": "squash" if seen.stretch else "center",
        "interpolation": seen.resample,
        "mean": list(seen.mean),
        "std": list(seen.std),
    }
