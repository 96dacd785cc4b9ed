"""Which published forms a net has, and the form of those that have none."""

import inspect
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from published import NAMES, UNREAD, folder

from jaxdistill import models
from jaxdistill.models import pretrained
from jaxdistill.models.decoder_layers import LongContext
from jaxdistill.models.pretrained import own

IMAGE = jnp.linspace(0, 1, 2 * 8 * 8 * 3).reshape(2, 8, 8, 3)
TOKENS = jnp.arange(10).reshape(2, 5)
VIT = {"patch": 4, "width": 8, "depth": 2, "heads": 2}
TEXT = {"vocabulary": 11, "width": 8, "depth": 2, "heads": 2}
DECODER = {"decoder_width": 8, "decoder_depth": 1, "decoder_heads": 2}
TIME = {"image": IMAGE, "time": jnp.ones(2)}
# A net of every class, with settings that are not its defaults, and what it sees.
NETS = {
    "CLIP": (
        models.CLIP(image={**VIT, "classes": 4}, text={**TEXT, "positions": 8, "outputs": 4}),
        {"image": IMAGE, "tokens": TOKENS},
    ),
    "MAE": (models.MAE(**VIT, **DECODER, scan=True), {"image": IMAGE}),
    "MLP": (models.MLP(widths=(8, 4), classes=3, activation="relu"), {"image": IMAGE}),
    "ConvNeXt": (
        models.ConvNeXt(blocks=(1, 2), widths=(4, 8), classes=3, patch=2),
        {"image": IMAGE},
    ),
    "ConvNet": (models.ConvNet(width=4, depth=2, classes=3), {"image": IMAGE}),
    "CriticHead": (models.CriticHead(width=4), jnp.ones((2, 4, 4, 8))),
    "Decoder": (
        models.Decoder(**TEXT, experts=2, active=1, stretch=LongContext(2.0, 1.0, 4.0, 8)),
        {"tokens": TOKENS},
    ),
    "DiT": (models.DiT(**VIT), TIME),
    "Encoder": (models.Encoder(**VIT), IMAGE),
    "Mixer": (models.Mixer(patch=4, width=8, depth=2, classes=3), IMAGE),
    "MobileNetV3": (models.MobileNetV3(size="small", width=0.25, classes=3), {"image": IMAGE}),
    "ModernBert": (
        models.ModernBert(**TEXT, hidden=8, head="tokens", classes=2),
        {"tokens": TOKENS},
    ),
    "ResNet": (
        models.ResNet(blocks=(2, 2), widths=(4, 8), classes=3, stem_width=4, scan=True),
        {"image": IMAGE},
    ),
    "SentencePair": (
        models.SentencePair(
            models.TextEncoder(**TEXT, positions=8, head="sentence", top=2, first=False),
            hidden=4,
            classes=1,
        ),
        {"tokens": TOKENS, "mask": TOKENS >= 0, "types": jnp.arange(10).reshape(2, 5) % 5 // 3},
    ),
    "TextEncoder": (models.TextEncoder(**TEXT, positions=8, head="none"), {"tokens": TOKENS}),
    "TextTower": (models.TextTower(**TEXT, positions=8, outputs=4), {"tokens": TOKENS}),
    "TimeMLP": (models.TimeMLP(width=8, depth=1), {"image": jnp.ones((2, 2)), "time": jnp.ones(2)}),
    "UNet": (models.UNet(width=8, multipliers=(1, 2), depth=1, attention=(4,)), TIME),
    "ViT": (models.ViT(**VIT, classes=3, pool="cls_mean", registers=2), {"image": IMAGE}),
    "WideResNet": (models.WideResNet(depth=10, width=1, classes=3), IMAGE),
}


def started(module, inputs):
    """Variables none of which is what a net of these settings starts with."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), inputs)
    draw = np.random.default_rng(0)
    whole = jax.tree.map(lambda x: draw.uniform(0.1, 0.5, x.shape).astype(x.dtype), shapes)
    return whole.pop("params"), whole


def test_every_net_of_the_library_has_a_form():
    found = {name: getattr(models, name) for name in models.__all__}
    nets = {k for k, v in found.items() if inspect.isclass(v) and issubclass(v, nn.Module)}
    # An MLP inside a decoder.
    assert nets - {"SparseMlp"} == set(own.CLASSES) == set(NETS)


@pytest.mark.parametrize("name", NETS)
def test_a_net_comes_back_from_plain_data(name):
    module, _ = NETS[name]
    data = json.loads(json.dumps(own.described(module)))
    again = own.built(data)
    assert own.described(again) == own.described(module)
    for key, value in data["settings"].items():
        with pytest.raises(ValueError, match=r"must|unknown"):
            own.built({**data, "settings": {**data["settings"], key: object()}})
        with pytest.raises(ValueError, match=f"did you mean '{key}'"):
            own.built({**data, "settings": {**data["settings"], f"{key}x": value}})


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"class": "ViTT", "settings": {}}, "did you mean 'ViT'"),
        ({"class": "__import__", "settings": {}}, "unknown net of this library"),
        ({"class": ["ViT"], "settings": {}}, "unknown net of this library"),
        ({"class": "ViT", "settings": {"taps": ()}}, "unknown setting of ViT 'taps'"),
        ({"class": "ViT", "settings": {"patch": 4}}, "ViT needs 'width', 'depth', 'heads'"),
        ({"class": "ViT"}, "by its 'class' and its 'settings'"),
        (None, "by its 'class' and its 'settings'"),
    ],
)
def test_what_describes_no_net_is_refused(data, words):
    with pytest.raises(ValueError, match=words):
        own.built(data)


def shapes_of(inputs):
    """What a student's config.json says of its inputs."""
    named = inputs if isinstance(inputs, dict) else {"image": inputs}
    return {k: {"shape": ["b", *v.shape[1:]], "dtype": str(v.dtype)} for k, v in named.items()}


@pytest.mark.parametrize("name", [n for n in NETS if n not in ("CriticHead", "Encoder")])
def test_a_net_without_a_published_form_comes_back_from_a_folder(name, tmp_path):
    module, inputs = NETS[name]
    variables = started(module, inputs)
    about = {pretrained.OURS: {"inputs": shapes_of(inputs)}}
    pretrained.export(tmp_path, pretrained.OURS, module, variables, about=about)
    found = models.load(tmp_path)
    expected = module.apply({"params": variables[0], **variables[1]}, inputs)
    out = found.net.apply(found.params, found.state, inputs).out
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), out, expected)
    assert (found.architecture, found.new) == (pretrained.OURS, ())
    if name == "MLP":
        with pytest.raises(ValueError, match="do not fit the net"):
            models.load(tmp_path, classes=4)
        with pytest.raises(ValueError, match="did you mean 'dropout'"):
            models.load(tmp_path, dropot=0.1)
        assert models.load(tmp_path, classes=4, allow=("new head",)).new


# --- published forms ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n != "timm_mobilenet_large"])
def test_a_published_net_has_its_published_form(name):
    found = models.load(folder(name), allow=UNREAD)
    assert (
        found.architecture in pretrained.forms_of(found.module, (found.params, found.state)).there
    )


COMPUTED = {
    "mae": (models.MAE(**VIT, **DECODER), "ViTMAEForPreTraining"),
    "cls": (models.ViT(**VIT, classes=3), "ViTForImageClassification"),
    "mean": (models.ViT(**VIT, classes=3, pool="mean"), "timm:vit"),
    "no class token": (models.ViT(**VIT, classes=0, pool="mean", class_token=False), "timm:vit"),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_computed_positions_are_written_out(name, tmp_path):
    module, architecture = COMPUTED[name]
    variables = started(module, IMAGE)
    assert pretrained.forms_of(module, variables).there == ()
    written = pretrained.with_positions(module, variables, IMAGE.shape[1:])
    assert architecture in pretrained.forms_of(*written).there
    pretrained.export(tmp_path, architecture, *written)
    found = models.load(tmp_path)
    expected = module.apply({"params": variables[0], **variables[1]}, IMAGE)
    out = found.net.apply(found.params, found.state, IMAGE).out
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), out, expected)


@pytest.mark.parametrize(
    ("module", "inputs", "architecture", "words"),
    [
        (models.ViT(**VIT, positions="learned", classes=3, pool="mean"), IMAGE,
         "ViTForImageClassification", "pool='mean' in place of 'cls'"),
        (models.ViT(**VIT, positions="learned", classes=3, layer_scale=0.1), IMAGE,
         "ViTForImageClassification", "other arrays"),
        (models.ResNet(blocks=(1, 1), widths=(4, 8), classes=3, stem_width=4), IMAGE,
         "timm:resnet", "stem_width=4 in place of 64"),
        (models.TextEncoder(**TEXT, positions=8, types=0, head="masked"), TOKENS,
         "BertForMaskedLM", "kinds of tokens"),
        (models.TextEncoder(**TEXT, positions=8, pooled="relu", head="classes"), TOKENS,
         "BertForSequenceClassification", "pooled='relu' in place of 'tanh'"),
    ],
    ids=["pool", "scales", "stem", "types", "pooled"],
)  # fmt: skip
def test_what_a_form_cannot_say_is_not_written(module, inputs, architecture, words, tmp_path):
    variables = started(module, inputs)
    assert architecture not in pretrained.forms_of(module, variables).there
    with pytest.raises(ValueError, match=words):
        pretrained.export(tmp_path / "there", architecture, module, variables)
    assert not (tmp_path / "there").exists()
