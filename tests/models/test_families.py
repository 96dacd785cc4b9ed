"""Every family of published nets under jit, vmap, grad, remat, scan and sharding."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from published import asked, case, folder, largest_error, opened, outputs
from safetensors.numpy import load_file

from jaxdistill import models
from jaxdistill.training.sharding import make_mesh

# One of those that run the same code; the others differ in sizes, names and heads.
NAMES = (
    "vit",
    "mae",
    "dinov2_registers",
    "clip",
    "siglip",
    "timm_resnet_d",
    "convnext2",
    "timm_mobilenet",
    "bert_classes",
    "electra",
    "modernbert_masked",
    "qwen3",
    "gemma2",
    "gemma3",
    "gpt2",
)
# No two blocks of it that follow each other are alike.
UNSCANNED = ("timm_mobilenet",)


def slices(mesh, tree):
    """Outputs of every matrix over ``model``, inputs over ``fsdp``, wherever they divide."""

    def one(leaf):
        even = [size % 2 == 0 for size in leaf.shape[-2:]]
        axes = [name if e else None for name, e in zip(("fsdp", "model"), even, strict=False)]
        found = PartitionSpec(*(None,) * (leaf.ndim - 2), *axes) if leaf.ndim > 1 else None
        return NamedSharding(mesh, found or PartitionSpec())

    return jax.tree.map(one, tree)


@pytest.mark.parametrize("name", NAMES)
def test_transformations_change_no_answer(name, tmp_path):
    there, mesh = case(name), make_mesh({"data": 2, "fsdp": 2, "model": 2})
    ways = {"remat": True} if name in UNSCANNED else {"remat": True, "scan": True}
    found = opened(name, **ways, shardings=partial(slices, mesh))
    cut = {axis for leaf in jax.tree.leaves(found.params) for axis in leaf.sharding.spec}
    assert cut == {None, "fsdp", "model"}

    taps, given, where = asked(found, there)
    traced = []

    @jax.jit
    def apply(params, state, inputs):
        traced.append(name)
        return found.net.apply(params, state, inputs, taps=tuple(taps.values()))

    def placed(x):
        axes = () if len(x) % 2 else ("data",)
        return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*axes)))

    apply(found.params, found.state, jax.tree.map(lambda x: placed(x[::-1].copy()), given))
    forward = apply(found.params, found.state, jax.tree.map(placed, given))
    assert len(traced) == 1
    arrays = {key: forward.taps[tap] for key, tap in taps.items()} | outputs(forward.out)
    for key, array in arrays.items():
        assert largest_error(array, there[key], where) < 1e-5, key

    # One example at a time gives what all of them give, and finite gradients.
    params, state = jax.device_get((found.params, found.state))
    few = min(map(len, given.values()))

    def squares(params, one):
        out = found.net.apply(params, state, jax.tree.map(lambda x: x[None], one)).out
        return sum(jnp.square(leaf).mean() for leaf in jax.tree.leaves(out)), outputs(out)

    slopes = jax.jit(jax.vmap(jax.grad(squares, has_aux=True), (None, 0)))
    grads, out = slopes(params, jax.tree.map(lambda x: x[:few], given))
    for key, array in out.items():
        theirs = there[key][:few] if key != "logits" else np.diag(there[key])
        mine = array[:, 0] if key != "logits" else array[:, 0, 0]
        error = largest_error(mine, theirs, None if where is None else where[:few])
        assert error < 1e-5, key
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(leaf).all(), path

    # Stacks are written as the layers they are of.
    models.export(tmp_path, found.architecture, found.module, (found.params, found.state))
    own, theirs = (load_file(path / "model.safetensors") for path in (tmp_path, folder(name)))
    for key, array in own.items():
        key = key.replace("decoder.decoder_layers.", "decoder.decoder_encoder.layer.")
        if key in theirs:
            np.testing.assert_array_equal(array, theirs[key].reshape(array.shape))
