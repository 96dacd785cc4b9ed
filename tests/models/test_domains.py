"""Settings of nets: each has a domain, and a net refuses what lies outside of it."""

import typing

import jax
import jax.numpy as jnp
import pytest

from jaxdistill import models, settings
from jaxdistill.models.unet import CriticHead

IMAGE = jnp.ones((2, 8, 8, 3))
TIMED = {"image": IMAGE, "time": jnp.ones(2)}
TOKENS = jnp.ones((2, 5), int)
SMALL = {"width": 8, "depth": 1, "heads": 2}
TOWERS = {"image": {"patch": 4, **SMALL}, "text": {"vocabulary": 11, **SMALL}}
# A small net of every kind, and inputs for it.
NETS = {
    models.MLP: ({"widths": (4,)}, IMAGE),
    models.ConvNet: ({"width": 4, "depth": 1}, IMAGE),
    models.ResNet: ({"blocks": (1,), "widths": (4,), "large_images": False}, IMAGE),
    models.ConvNeXt: ({"blocks": (1,), "widths": (4,)}, IMAGE),
    models.MobileNetV3: ({"size": "small", "width": 0.1}, IMAGE),
    models.ViT: ({"patch": 4, **SMALL}, IMAGE),
    models.MAE: ({"patch": 4, **SMALL, "decoder_width": 8, "decoder_heads": 2}, IMAGE),
    models.Encoder: ({"patch": 4, **SMALL}, IMAGE),
    models.Decoder: ({"vocabulary": 11, **SMALL}, TOKENS),
    models.TextEncoder: ({"vocabulary": 11, **SMALL}, TOKENS),
    models.TextTower: ({"vocabulary": 11, **SMALL}, TOKENS),
    models.ModernBert: ({"vocabulary": 11, **SMALL, "hidden": 8}, TOKENS),
    models.TimeMLP: ({"width": 8, "depth": 1}, TIMED),
    models.UNet: ({"width": 8, "multipliers": (1,), "depth": 1}, TIMED),
    models.DiT: ({"patch": 4, **SMALL}, TIMED),
    CriticHead: ({}, IMAGE),
}
SETTINGS = [
    (kind, name, key.annotation)
    for kind in NETS
    for name, key in settings.keys(kind).items()
    if name != "taps"  # what is tapped, and no setting
]


def shapes(kind, **changes):
    own, inputs = NETS[kind]
    net = kind(**{**own, **changes})
    return jax.eval_shape(net.init, jax.random.key(0), inputs)


@pytest.mark.parametrize("kind", NETS)
def test_the_nets_themselves_are_in_order(kind):
    assert jax.tree.leaves(shapes(kind))


@pytest.mark.parametrize(("kind", "name", "domain"), SETTINGS)
def test_what_is_outside_of_a_domain_is_refused(kind, name, domain):
    wrong = [value for value in (-2.5, "nosuch", 1e400) if settings.fault(value, domain)]
    assert wrong, f"{name} takes anything"
    for value in wrong:
        with pytest.raises(ValueError, match=rf"{name}={value!r} must be"):
            shapes(kind, **{name: value})


@pytest.mark.parametrize("function", [models.cifar_resnet, models.imagenet_resnet])
def test_functions_that_make_nets_have_domains(function):
    keys = settings.keys(function)
    assert "depth" in keys
    assert not [name for name, key in keys.items() if key.annotation is typing.Any]


def test_types_of_numbers_have_names_or_are_types():
    for dtype in ("bfloat16", jnp.bfloat16, jnp.dtype("float16"), None):
        shapes(models.MLP, dtype=dtype)
    with pytest.raises(ValueError, match="dtype='int8' must be 'bfloat16'"):
        shapes(models.MLP, dtype=jnp.int8)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (models.ViT, {"heads": 3}, "width of 8 does not divide by 3 heads: possible are 1, 2, 4"),
        (models.ViT, {"patch": 3}, "8x8 does not divide into patches of 3: possible are 1, 2, 4"),
        (models.MAE, {"decoder_heads": 3}, "width of 8 does not divide by 3 heads"),
        (models.DiT, {"heads": 5}, "width of 8 does not divide by 5 heads"),
        (models.Decoder, {"heads": 5}, "width of 8 does not divide by 5 heads"),
        (models.Decoder, {"groups": 3}, "2 heads do not divide by 3 groups: possible are 1, 2"),
        (models.TextEncoder, {"heads": 5}, "width of 8 does not divide by 5 heads"),
        (models.UNet, {"attention": (8,), "heads": 3}, "width of 8 does not divide by 3 heads"),
        (models.UNet, {"multipliers": (1, 1, 1, 1, 1)}, "8 x 8 cannot be halved 4 times"),
        (models.ConvNet, {"depth": 4}, "too small for 4 blocks"),
        (models.ResNet, {"widths": (4, 8)}, "1 stages but 2 widths"),
    ],
)
def test_what_does_not_go_together_is_refused(kind, changes, message):
    with pytest.raises(ValueError, match=message):
        shapes(kind, **changes)
