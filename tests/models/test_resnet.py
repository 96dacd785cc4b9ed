"""Residual networks: published shapes and counts, and the arithmetic of one block."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.models import ResNet, cifar_resnet, imagenet_resnet
from jaxdistill.models.resnet import ResidualBlock


def parameters(net, side):
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, side, side, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


@pytest.mark.parametrize(
    ("depth", "millions", "exact"),
    [(20, 0.27, 269_722), (32, 0.46, 464_154), (44, 0.66, 658_586), (56, 0.85, 853_018)],
)
def test_cifar_networks_have_the_published_sizes(depth, millions, exact):
    found = parameters(cifar_resnet(depth=depth), 32)
    assert found == exact
    assert round(found / 1e6, 2) == millions


@pytest.mark.parametrize(
    ("depth", "multiplier", "shortcut", "exact"),
    [(20, 1, "conv", 278_324), (8, 4, None, 1_233_540), (32, 4, None, 7_433_860)],
)
def test_networks_of_distillation_papers_for_100_classes(depth, multiplier, shortcut, exact):
    assert (
        parameters(
            cifar_resnet(depth=depth, width_multiplier=multiplier, classes=100, shortcut=shortcut),
            32,
        )
        == exact
    )


@pytest.mark.parametrize(
    ("depth", "exact"),
    [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)],
)
def test_imagenet_networks_have_the_published_sizes(depth, exact):
    assert parameters(imagenet_resnet(depth=depth), 64) == exact


def test_maps_of_the_imagenet_network():
    def features(image):
        net = imagenet_resnet(depth=50)
        return net.init_with_output(jax.random.key(0), image, capture_intermediates=True)[1]

    captured = jax.eval_shape(features, jnp.zeros((2, 224, 224, 3)))["intermediates"]
    assert captured.pop("__call__")[0].shape == (2, 1000)
    shapes = {name: captured[name]["__call__"][0].shape for name in captured}
    assert shapes == {
        "stem": (2, 112, 112, 64),
        "stage_1": (2, 56, 56, 256),
        "stage_2": (2, 28, 28, 512),
        "stage_3": (2, 14, 14, 1024),
        "stage_4": (2, 7, 7, 2048),
        "pooled": (2, 2048),
        "head": (2, 1000),
    }
    assert captured["stage_3"]["block_5"]["__call__"][0].shape == (2, 14, 14, 1024)


def convolve(maps, kernel, stride):
    """A padded convolution as a sum over kernel positions."""
    size, half = kernel.shape[0], kernel.shape[0] // 2
    padded = np.pad(maps, ((0, 0), (half, half), (half, half), (0, 0)))
    rows, columns = (-(-extent // stride) for extent in maps.shape[1:3])
    total = 0
    for i in range(size):
        for j in range(size):
            window = padded[:, i : i + stride * rows : stride, j : j + stride * columns : stride]
            total = total + window[:, :rows, :columns] @ kernel[i, j]
    return total


def normalize(maps, params, stats):
    scaled = (maps - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return scaled * params["scale"] + params["bias"]


def variables_of(net, *inputs):
    """Variables of the right shapes at random, all positive, as variances must be."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), *inputs)
    noise = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(noise.uniform(0.1, 0.9, leaf.shape), leaf.dtype), shapes
    )


@pytest.mark.parametrize("shortcut", ["pad", "conv"])
@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_strided_block_by_hand(bottleneck, shortcut):
    block = ResidualBlock(width=4, stride=2, bottleneck=bottleneck, shortcut=shortcut)
    maps = np.random.default_rng(1).normal(size=(2, 6, 5, 2)).astype(np.float32)
    variables = variables_of(block, maps)
    params, stats = (jax.tree.map(np.asarray, variables[k]) for k in ("params", "batch_stats"))
    strides = [1, 2, 1] if bottleneck else [2, 1]
    branch = maps
    for index, stride in enumerate(strides, start=1):
        branch = convolve(np.maximum(branch, 0) if index > 1 else branch,
                          params[f"conv_{index}"]["kernel"], stride)  # fmt: skip
        branch = normalize(branch, params[f"norm_{index}"], stats[f"norm_{index}"])
    if shortcut == "pad":
        border = (branch.shape[-1] - 2) // 2
        straight = np.pad(maps[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (border, border)))
    else:
        straight = convolve(maps, params["shortcut_conv"]["kernel"], 2)
        straight = normalize(straight, params["shortcut_norm"], stats["shortcut_norm"])
    found = jax.jit(block.apply)(variables, maps)
    np.testing.assert_allclose(found, np.maximum(branch + straight, 0), rtol=1e-4, atol=1e-4)


def test_training_moves_the_statistics_by_a_tenth_and_gradients_are_finite():
    net = ResNet(blocks=(1,), widths=(4,), classes=3, stem_width=4, dtype=jnp.bfloat16)
    image = jax.random.uniform(jax.random.key(1), (4, 16, 16, 3))
    variables = variables_of(net, image)
    # Convolutions of one sign overwhelm the statistics that the test wants to see move.
    variables["params"]["stem"]["conv"]["kernel"] -= 0.5

    @jax.jit
    def step(params):
        def loss(params):
            state = {**variables, "params": params}
            collections = ["batch_stats", "intermediates"]
            out, moved = net.apply(
                state, image, train=True, mutable=collections, capture_intermediates=True
            )
            return (out**2).sum(), (out, moved)

        return jax.grad(loss, has_aux=True)(params)

    grads, (out, moved) = step(variables["params"])
    for tree in (grads, moved["batch_stats"]):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert out.dtype == jnp.float32
    taps = moved["intermediates"]
    assert taps["stage_1"]["__call__"][0].dtype == jnp.bfloat16
    inside = np.asarray(taps["stem"]["conv"]["__call__"][0], np.float32)
    found, before = moved["batch_stats"]["stem"]["norm"], variables["batch_stats"]["stem"]["norm"]
    for name, now in (("mean", inside.mean((0, 1, 2))), ("var", inside.var((0, 1, 2)))):
        np.testing.assert_allclose(found[name], 0.9 * before[name] + 0.1 * now, rtol=5e-3)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_zero_init_residual_starts_the_last_scale_at_zero(bottleneck):
    def scales(zero):
        block = ResidualBlock(width=4, bottleneck=bottleneck, zero_init_residual=zero)
        params = block.init(jax.random.key(0), jnp.ones((1, 2, 2, 4)))["params"]
        return [params[name]["scale"] for name in sorted(params) if name.startswith("norm_")]

    *inner, last = jax.jit(scales, static_argnums=0)(True)
    assert all((scale == 1).all() for scale in inner)
    assert (last == 0).all()
    assert (jax.jit(scales, static_argnums=0)(False)[-1] == 1).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: cifar_resnet(depth=21), "depth=21: .* the nearest are 20 and 26"),
        (lambda: cifar_resnet(depth=2), "depth=2: .* the nearest are 8"),
        (lambda: cifar_resnet(depth=20, width_multiplier=0), "width_multiplier=0"),
        (lambda: imagenet_resnet(depth=51), "unknown ResNet depth '51'.*'50'"),
        (
            lambda: cifar_resnet(depth=8, shortcut="cnov").init(
                jax.random.key(0), jnp.ones((1, 8, 8, 3))
            ),
            "did you mean 'conv'",
        ),
        (
            lambda: cifar_resnet(depth=8).init(jax.random.key(0), jnp.ones((8, 8, 3))),
            r"\(8, 8, 3\)",
        ),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
