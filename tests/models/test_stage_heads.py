"""Stage heads against numbers of the published ones, and what they refuse."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.models.stage_heads import PatchMerging, SeparableConvolution, stage_head

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"


def golden(name):
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["case"] == name
        return {
            key: jnp.asarray(file[key], jnp.float64)
            for key in file.files
            if file[key].dtype.kind == "f"
        }


def near(ours, theirs):
    error = np.abs(np.asarray(ours) - np.asarray(theirs)).max()
    assert error <= 1e-9 * np.abs(np.asarray(theirs)).max(), error


def last(x):
    return jnp.moveaxis(x, 1, -1)


def kernel(x):
    """Torch's [out, in, height, width] as Flax's."""
    return x.transpose(2, 3, 1, 0)


def test_separable_convolutions_are_the_published_ones():
    with jax.enable_x64(True):
        there = golden("ofa_sepconv")
        params = {}
        for index, places in ((1, (0, 1, 2)), (2, (4, 5, 6))):
            deep, point, norm = places
            params[f"depthwise_{index}"] = {"kernel": kernel(there[f"param__dw{deep}"])}
            params[f"pointwise_{index}"] = {"kernel": kernel(there[f"param__pw{point}"])}
            params[f"norm_{index}"] = {
                "scale": there[f"param__bn{norm}_w"],
                "bias": there[f"param__bn{norm}_b"],
            }
        net = SeparableConvolution(6)
        state = net.init(jax.random.key(0), last(there["in__x"]))["batch_stats"]

        def total(x):
            variables = {"params": params, "batch_stats": state}
            out, _ = net.apply(variables, last(x), True, mutable=["batch_stats"])
            return out.sum(), jnp.moveaxis(out, -1, 1)

        slope, out = jax.grad(total, has_aux=True)(there["in__x"])
        near(out, there["out__out"])
        near(slope, there["grad__x"])


def test_patches_merge_in_the_published_order():
    with jax.enable_x64(True):
        there = golden("ofa_patch_merging")
        params = {
            "norm": {"scale": there["param__ln_w"], "bias": there["param__ln_b"]},
            "reduction": {"kernel": there["param__red_w"].T},
        }

        def total(x):
            out = PatchMerging(8).apply({"params": params}, x)
            return out.sum(), out

        slope, out = jax.grad(total, has_aux=True)(there["in__x"])
        near(out, there["out__out"])
        near(slope, there["grad__x"])


SHAPES = {
    "maps of the second of three stages": ((4, 8, 8, 6), {"stage": 2, "stages": 3, "width": 16}),
    "maps of the last stage": ((4, 4, 4, 6), {"stage": 3, "stages": 3, "width": 16}),
    "tokens behind a class token": ((4, 17, 8), {"stage": 1, "width": 8, "front": 1}),
    "merged tokens": ((4, 64, 8), {"stage": 4, "width": 16, "grid": 4}),
    "merged twice": ((4, 65, 8), {"stage": 4, "width": 8, "front": 1, "grid": 2}),
    "vectors": ((4, 8), {"stage": 1, "width": 8}),
}


@pytest.mark.parametrize("name", SHAPES)
def test_features_of_every_family_become_logits(name):
    shape, settings = SHAPES[name]
    net = stage_head(shape, (4, 10), **settings)
    features = jax.random.normal(jax.random.key(0), shape)
    params, state = net.init(jax.random.key(1), features)
    out = net.apply(params, state, features, train=True).out
    assert out.shape == (4, 10)
    assert np.isfinite(out).all()
    # What is learned is used: no part of the head is left without a gradient.
    slopes = jax.grad(lambda p: (net.apply(p, state, features, train=True).out ** 2).sum())(params)
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(slopes))


@pytest.mark.parametrize(
    ("shape", "settings", "words"),
    [
        ((4, 8, 8, 6), {"stage": 5, "width": 16}, ["stage 5", "4"]),
        ((4, 16, 8), {"stage": 1, "width": 8, "front": 1}, ["16 tokens", "'front'"]),
        ((4, 16, 8), {"stage": 1, "width": 6}, ["width=6", "4 heads"]),
        ((4, 17, 8), {"stage": 1, "width": 16, "front": 1}, ["width=8"]),
        ((4, 9, 8), {"stage": 1, "width": 8, "grid": 1}, ["3 tokens"]),
        ((4, 2, 8, 8, 6), {"stage": 1, "width": 8}, ["maps", "tokens", "vectors"]),
    ],
)
def test_what_does_not_fit_is_refused(shape, settings, words):
    def made():
        net = stage_head(shape, (4, 10), **settings)
        return jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))

    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        made()
    for word in words:
        assert word in str(refusal.value)
