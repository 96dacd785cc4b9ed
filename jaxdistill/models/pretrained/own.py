"""The form of nets that nobody else has a form for: the net as plain data, arrays by their paths.

A module is the name of its class and its settings. Only the classes of :data:`CLASSES` are made of
such data, and of them only with settings inside their domains: nothing is evaluated or imported.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from jaxdistill import settings
from jaxdistill._errors import unknown
from jaxdistill.models._common import check_settings
from jaxdistill.models.clip import CLIP, TextTower
from jaxdistill.models.convnet import ConvNet
from jaxdistill.models.convnext import ConvNeXt
from jaxdistill.models.decoder import Decoder
from jaxdistill.models.dit import DiT
from jaxdistill.models.encoder import Encoder
from jaxdistill.models.mae import MAE
from jaxdistill.models.mixer import Mixer
from jaxdistill.models.mlp import MLP
from jaxdistill.models.mobilenet import MobileNetV3
from jaxdistill.models.modern_bert import ModernBert
from jaxdistill.models.pretrained.family import Config, Family
from jaxdistill.models.resnet import ResNet
from jaxdistill.models.sentence_pair import SentencePair
from jaxdistill.models.text_encoder import TextEncoder
from jaxdistill.models.timed import TimeMLP
from jaxdistill.models.unet import CriticHead, UNet
from jaxdistill.models.vit import ViT
from jaxdistill.models.wide_resnet import WideResNet

_NETS = (
    CLIP, MAE, MLP, ConvNeXt, ConvNet, CriticHead, Decoder, DiT, Encoder, Mixer, MobileNetV3,
    ModernBert, ResNet, SentencePair, TextEncoder, TextTower, TimeMLP, UNet, ViT, WideResNet,
)  # fmt: skip
CLASSES: dict[str, type[nn.Module]] = {kind.__name__: kind for kind in _NETS}
# The entry of ``config.json`` that says what no other library wants to know.
OURS = "jaxdistill"
# Set by ``for_taps`` alone.
_NOT_SETTINGS = ("taps",)


def described(module: nn.Module) -> dict[str, Any]:
    """A net as plain data.

    Raises:
        ValueError: for a module of another class, and a setting that is no plain data.

    Example:
        >>> described(MLP(widths=(8,), classes=3))["settings"]["widths"]
        [8]
    """
    name = type(module).__name__
    if CLASSES.get(name) is not type(module):
        raise ValueError(unknown("net of this library", name, CLASSES))
    return {
        "class": name,
        "settings": {
            key: _plain(f"{name}: {key}", getattr(module, key))
            for key in settings.fields(type(module))
            if key not in _NOT_SETTINGS
        },
    }


def built(data: Any) -> nn.Module:
    """The net that such data describes.

    Raises:
        ValueError: for a class or a setting that is not known, a value outside its domain, and data
            of another form.

    Example:
        >>> built(described(MLP(widths=(8,), classes=3))) == MLP(widths=(8,), classes=3)
        True
    """
    if not isinstance(data, Mapping) or not isinstance(data.get("settings"), Mapping):
        raise ValueError("a net is described by its 'class' and its 'settings'")
    name = data.get("class")
    if not isinstance(name, str) or name not in CLASSES:
        raise ValueError(unknown("net of this library", name, CLASSES))
    own = settings.fields(CLASSES[name])
    found = {}
    for key, value in data["settings"].items():
        if key not in own or key in _NOT_SETTINGS:
            raise ValueError(unknown(f"setting of {name}", key, set(own) - {*_NOT_SETTINGS}))
        if own[key].annotation is nn.Module:
            if not isinstance(value, Mapping):
                raise ValueError(f"{name}: {key}={value!r} must be a net")
            found[key] = built(value)
            continue
        value, domain = _tuples(value), own[key].annotation
        if (wrong := settings.fault(value, domain)) is not None:
            raise ValueError(f"{name}: {key}={value!r} {wrong}")
        found[key] = settings.made(value, domain)
    missing = [k for k, p in own.items() if p.default is p.empty and k not in found]
    if missing:
        raise ValueError(f"{name} needs {', '.join(map(repr, missing))}")
    module = CLASSES[name](**found)
    check_settings(module)
    return module


def _module(config: Config) -> nn.Module:
    if config[OURS]["net"] is None:
        raise ValueError(
            "this student is no module of jaxdistill.models (but a sampler, a kernel machine, a "
            "net that shares weights, or a net of your own): jaxdistill.students.load runs its "
            "student.jaxexport, and jaxdistill.restore(<working directory>) gives its net"
        )
    return built(config[OURS]["net"])


def _inputs(config: Config) -> dict[str, tuple[tuple[int, ...], str]]:
    found = {}
    for name, about in config[OURS]["inputs"].items():
        kind = str(about["dtype"])
        if name == "inputs":  # an array alone, which nets take under its own name as well
            name = "tokens" if kind.startswith("int") else "image"
        found[name] = (1, *map(int, about["shape"][1:])), kind
    return found


def _plain(where: str, value: Any) -> Any:
    if isinstance(value, nn.Module):
        return described(value)
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): _plain(where, inner) for key, inner in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(where, inner) for inner in value]
    if isinstance(value, (type, np.dtype)):
        return jnp.dtype(value).name
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f"{where} is no plain data: {value!r}")


def _tuples(value: Any) -> Any:
    """JSON's lists as the tuples that settings are."""
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


FAMILY = Family(
    _module, None, _inputs, lambda module, variables: {OURS: {"net": described(module)}}
)
