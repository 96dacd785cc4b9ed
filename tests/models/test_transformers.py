"""ViT and MAE against the mathematics in plain NumPy, and scanned blocks against unrolled ones."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import (
    MAE,
    Encoder,
    ViT,
    mae_size,
    random_masking,
    split_qkv,
    stack_blocks,
    unstack_blocks,
    vit_size,
)
from jaxdistill.models.blocks import Block

SMALL = {"patch": 2, "width": 8, "depth": 2, "heads": 2}
DECODER = {"decoder_width": 12, "decoder_depth": 1, "decoder_heads": 3}
IMAGE = jax.random.uniform(jax.random.key(1), (3, 4, 6, 2))
KEEP = random_masking(jax.random.key(2), batch=3, tokens=6, ratio=0.5).keep
INPUTS = {"image": IMAGE, "keep": KEEP}


def variables_of(net, inputs=INPUTS):
    """Variables of the right shapes at random, none of them at its neutral initial value."""
    shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)
    noise = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: jnp.asarray(0.3 * noise.normal(size=leaf.shape), leaf.dtype), shapes
    )


def run(net, variables, inputs=INPUTS, **options):
    """Output and captured intermediates."""
    apply = jax.jit(lambda v, x: net.apply(v, x, capture_intermediates=True, **options))
    out, captured = apply(variables, inputs)
    return out, captured["intermediates"]


# --- the mathematics, one image and one head at a time, in float64 -----------------------------


def linear(vectors, params):
    return vectors @ params["kernel"] + params["bias"]


def layer_norm(vectors, params):
    centred = vectors - vectors.mean(axis=-1, keepdims=True)
    variance = (centred**2).mean(axis=-1, keepdims=True)
    return centred / np.sqrt(variance + 1e-6) * params["scale"] + params["bias"]


def gelu(units):
    return units * 0.5 * (1 + np.vectorize(math.erf)(units / math.sqrt(2)))


def block(tokens, params, heads):
    qkv = linear(layer_norm(tokens, params["norm1"]), params["attn"]["qkv"])
    width = tokens.shape[1]
    size = width // heads
    mixed = np.zeros_like(tokens)
    for head in range(heads):
        own = slice(head * size, (head + 1) * size)
        query, key, value = (qkv[:, i * width : (i + 1) * width][:, own] for i in range(3))
        scores = np.exp(query @ key.T / math.sqrt(size))
        mixed[:, own] = scores / scores.sum(axis=1, keepdims=True) @ value
    tokens = tokens + linear(mixed, params["attn"]["proj"])
    hidden = gelu(linear(layer_norm(tokens, params["norm2"]), params["mlp"]["fc1"]))
    return tokens + linear(hidden, params["mlp"]["fc2"])


def position(width, row, column):
    quarter = width // 4
    waves = [
        wave(place / 10000 ** (i / quarter))
        for place in (column, row)
        for wave in (math.sin, math.cos)
        for i in range(quarter)
    ]
    return np.array(waves)


def mae(image, keep, params, heads, decoder_heads, patch=2):
    """Block outputs, normed tokens and predicted patches of one image."""
    columns = image.shape[1] // patch
    places = [divmod(index, columns) for index in range(image.shape[0] // patch * columns)]
    encoder, decoder = params["encoder"], params["decoder"]
    width = encoder["cls_token"].shape[-1]
    tokens = [encoder["cls_token"][0, 0]]
    for index in keep:
        row, column = places[index]
        pixels = image[row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        embedded = linear(pixels.ravel(), encoder["patch_embed"])
        tokens.append(embedded + position(width, row, column))
    tokens, outputs = np.stack(tokens), []
    while f"block_{len(outputs)}" in encoder:
        tokens = block(tokens, encoder[f"block_{len(outputs)}"], heads)
        outputs.append(tokens)
    normed = layer_norm(tokens, encoder["norm"])

    visible = linear(normed, decoder["embed"])
    canvas = [visible[0]]
    for index, (row, column) in enumerate(places):
        seen = [i for i, kept in enumerate(keep) if kept == index]
        content = visible[1 + seen[0]] if seen else decoder["mask_token"][0, 0]
        canvas.append(content + position(visible.shape[1], row, column))
    canvas = np.stack(canvas)
    for index in range(sum(name.startswith("block_") for name in decoder)):
        canvas = block(canvas, decoder[f"block_{index}"], decoder_heads)
    predicted = linear(layer_norm(canvas, decoder["norm"])[1:], decoder["pred"])
    return outputs, normed, predicted


# --- tests -------------------------------------------------------------------------------------


def test_mae_computes_what_its_paper_says():
    net = MAE(**SMALL, **DECODER)
    variables = variables_of(net)
    out, taps = run(net, variables)
    params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    for index in range(3):
        image = np.asarray(IMAGE[index], np.float64)
        outputs, normed, predicted = mae(image, np.asarray(KEEP[index]), params, 2, 3)
        for depth, expected in enumerate(outputs):
            found = taps["encoder"][f"block_{depth}"]["__call__"][0][index]
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["tokens"][index], normed, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["pixels"][index], predicted, rtol=1e-4, atol=1e-5)


def test_all_patches_visible_is_the_image_alone():
    net = MAE(**{**SMALL, **DECODER, "depth": 1})
    variables = variables_of(net)
    alone = jax.jit(net.apply)(variables, IMAGE)
    everything = {"image": IMAGE, "keep": jnp.tile(jnp.arange(6)[None], (3, 1))}
    given = jax.jit(net.apply)(variables, everything)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), alone, given)


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_vit_reads_its_features_from_the_encoder_of_an_mae(pool):
    net = ViT(**SMALL, classes=5, pool=pool)
    pretrained = variables_of(MAE(**SMALL, **DECODER))["params"]["encoder"]
    params = {**variables_of(net)["params"], "encoder": pretrained}
    logits, taps = run(net, {"params": params})
    tokens = taps["encoder"]["__call__"][0]
    pooled = tokens[:, 0] if pool == "cls" else tokens[:, 1:].mean(axis=1)
    np.testing.assert_allclose(taps["pooled"]["__call__"][0], pooled, rtol=1e-5, atol=1e-5)
    expected = linear(np.asarray(pooled), jax.tree.map(np.asarray, params["head"]))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_learned_positions_follow_the_visible_patches():
    net = Encoder(**SMALL, positions="learned", class_token=False)
    variables = variables_of(net, IMAGE)
    assert variables["params"]["pos_embed"].shape == (6, 8)
    # A transformer without positions commutes with permutations: so does one with them, if the ids
    # of patches carry their positions along.
    order = jnp.array([4, 2, 0, 5, 1, 3])
    apply = jax.jit(net.apply)
    plain = apply(variables, IMAGE)
    shuffled = apply(variables, IMAGE, jnp.tile(order[None], (3, 1)))
    np.testing.assert_allclose(shuffled, plain[:, order], rtol=1e-5, atol=1e-5)


def test_ids_beyond_the_image_give_nan():
    net = Encoder(**{**SMALL, "depth": 1})
    tokens = jax.jit(net.apply)(variables_of(net, IMAGE), IMAGE, KEEP.at[0, 0].set(6))
    assert jnp.isnan(tokens).all(axis=(1, 2)).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("patch", "size", "exact"),
    [(16, "tiny", 5_717_416), (16, "base", 86_567_656), (16, "large", 304_326_632)],
)
def test_vits_have_the_published_sizes(patch, size, exact):
    net = ViT(patch=patch, positions="learned", scan=True, **vit_size(size))
    assert count(net) == exact


@pytest.mark.parametrize(
    ("size", "tokens", "exact"), [("base", 197, 111_907_840), ("large", 197, 329_541_888)]
)
def test_maes_have_the_published_sizes(size, tokens, exact):
    # The published counts hold the fixed positions of encoder and decoder too.
    options = mae_size(size)
    fixed = tokens * (options["width"] + options["decoder_width"])
    assert count(MAE(scan=True, **options)) + fixed == exact


def count(net):
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 224, 224, 3)))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_initial_weights_are_xavier_uniform_in_both_forms():
    def initial(depth, scan):
        net = Encoder(patch=2, width=64, depth=depth, heads=2, scan=scan)
        return jax.jit(net.init)(jax.random.key(3), IMAGE)["params"]

    unrolled, scanned = initial(1, scan=False), unstack_blocks(initial(2, scan=True))
    for params in (unrolled, scanned):
        for layer in (params[name] for name in params if name.startswith("block_")):
            for kernel in (layer["attn"]["qkv"]["kernel"], layer["mlp"]["fc2"]["kernel"]):
                bound = math.sqrt(6 / sum(kernel.shape))
                assert 0.98 * bound < float(jnp.abs(kernel).max()) <= bound
                np.testing.assert_allclose(kernel.std(), bound / math.sqrt(3), rtol=0.03)
            assert not layer["attn"]["qkv"]["bias"].any()
    first, second = (scanned[f"block_{i}"]["mlp"]["fc1"]["kernel"] for i in (0, 1))
    assert not np.allclose(first, second)


def test_scanned_and_unrolled_agree_in_outputs_taps_and_gradients():
    taps = ("encoder/block_1", "encoder/block_2", "encoder/norm")
    unrolled = ViT(**{**SMALL, "depth": 3}, classes=3, drop_path=0.2)
    scanned = unrolled.clone(scan=True, remat=True).for_taps(taps)
    assert unrolled.for_taps(taps) is unrolled
    variables = variables_of(unrolled)
    stacked = stack_blocks(variables)
    initial = jax.eval_shape(scanned.init, jax.random.key(0), INPUTS)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(jnp.shape, initial)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), variables)

    def outputs(net, variables):
        def loss(variables):
            out, captured = net.apply(
                variables,
                INPUTS,
                train=True,
                rngs={"dropout": jax.random.key(5)},
                capture_intermediates=True,
            )
            found = captured["intermediates"]
            read = [found[a][b]["__call__"][0] for a, b in (tap.split("/") for tap in taps)]
            return (out**2).sum() + sum((one**2).sum() for one in read), (out, read)

        return jax.jit(jax.grad(loss, has_aux=True))(variables)

    grads, (out, read) = outputs(unrolled, variables)
    grads_scanned, (out_scanned, read_scanned) = outputs(scanned, stacked)

    def close(a, b):
        np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-4)

    jax.tree.map(close, (out, read), (out_scanned, read_scanned))
    jax.tree.map(close, stack_blocks(grads), grads_scanned)
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    assert all(bool(leaf.any()) for leaf in jax.tree.leaves(grads))


def test_what_is_not_read_is_not_computed():
    net = MAE(**{**SMALL, **DECODER, "depth": 4, "decoder_depth": 2})
    variables = variables_of(net)

    def compiled(net, variables, block):
        def tap(variables, inputs):
            _, captured = net.apply(variables, inputs, capture_intermediates=True)
            return captured["intermediates"]["encoder"][f"block_{block}"]["__call__"][0]

        return jax.jit(tap).lower(variables, INPUTS).compile()

    first, third = (compiled(net, variables, block).cost_analysis()["flops"] for block in (0, 2))
    assert 2.5 < third / first < 3

    scanned = net.clone(scan=True, depth=6).for_taps(["encoder/block_1", "encoder/block_3"])
    stacked = variables_of(scanned)
    loops = [compiled(scanned, stacked, block).as_text().count(" while(") for block in (1, 3)]
    assert loops == [1, 2]
    # Counted before XLA, which may make loops of other operations, as its flags say.
    whole = jax.jit(scanned.apply).lower(stacked, INPUTS).as_text()
    assert whole.count("stablehlo.while") == 4


def test_stochastic_depth_drops_whole_branches_and_keeps_the_mean():
    variables = variables_of(Encoder(**SMALL), IMAGE)
    deep = Encoder(**SMALL, drop_path=0.5)
    gates = deep.apply({}, 4096, True, rngs={"dropout": jax.random.key(0)}, method="_gates")
    assert set(np.unique(gates[0])) == {1.0}
    assert set(np.unique(gates[1])) == {0.0, 2.0}
    np.testing.assert_allclose(gates[1].mean(axis=1), 1.0, atol=0.05)

    # A block whose branches are gated off is the identity; the gates of an example are its own.
    layer = {"params": variables["params"]["block_0"]}
    tokens = jax.random.normal(jax.random.key(1), (2, 3, 8))
    gates = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    apply = jax.jit(Block(heads=2).apply)
    gated, whole = apply(layer, tokens, gates), apply(layer, tokens, jnp.ones((2, 2)))
    np.testing.assert_array_equal(gated[0], tokens[0])
    np.testing.assert_array_equal(gated[1], whole[1])


def test_evaluation_needs_no_randomness_and_ignores_drop_path():
    variables = variables_of(ViT(**SMALL))
    plain, dropping = ViT(**SMALL), ViT(**SMALL, drop_path=0.9)
    np.testing.assert_array_equal(run(plain, variables)[0], run(dropping, variables)[0])


def test_computes_in_bfloat16_with_float32_parameters():
    net = ViT(**{**SMALL, "depth": 1}, classes=3, dtype=jnp.bfloat16, drop_path=0.1)
    variables = variables_of(net)

    @jax.jit
    def step(variables):
        def loss(variables):
            return (net.apply(variables, INPUTS) ** 2).mean()

        return jax.value_and_grad(loss)(variables)

    loss, grads = step(variables)
    for tree in (variables, grads):
        assert {leaf.dtype for leaf in jax.tree.leaves(tree)} == {jnp.dtype("float32")}
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(grads))
    exact = jax.jit(net.clone(dtype=None).apply)(variables, INPUTS)
    np.testing.assert_allclose(loss, (exact**2).mean(), rtol=0.05)


@pytest.mark.parametrize("scan", [False, True])
def test_tokens_are_bfloat16_and_predictions_float32(scan):
    net = MAE(**SMALL, **DECODER, dtype=jnp.bfloat16, scan=scan, drop_path=0.1)
    variables = variables_of(net)

    def step(variables):
        return net.apply(variables, INPUTS, train=True, rngs={"dropout": jax.random.key(0)})

    out = jax.eval_shape(step, variables)
    assert (out["tokens"].dtype, out["pixels"].dtype) == (jnp.bfloat16, jnp.float32)
    out = jax.eval_shape(net.clone(dtype=None).apply, variables, {**INPUTS, "image": IMAGE})
    assert out["tokens"].dtype == jnp.float32


def test_fused_projection_splits_into_queries_keys_values():
    net = ViT(**SMALL, classes=3)
    variables = variables_of(net)
    _, taps = run(net, variables)
    qkv = taps["encoder"]["block_0"]["attn"]["qkv"]["__call__"][0]
    query, key, value = split_qkv(qkv, 2)
    np.testing.assert_array_equal(query.reshape(3, 4, 8), qkv[..., :8])
    np.testing.assert_array_equal(key[:, :, 1], qkv[..., 12:16])
    np.testing.assert_array_equal(value.reshape(3, 4, 8), qkv[..., 16:])


@pytest.mark.parametrize(("scan", "remat"), [(False, True), (True, False)])
def test_taps_through_the_linen_adapter(scan, remat):
    module = ViT(**SMALL, classes=3, scan=scan, remat=remat)
    net, params, state = from_linen(module), variables_of(module)["params"], {}
    tap = "encoder/block_0"
    forward = jax.jit(lambda p, x: net.apply(p, state, x, taps=(tap,)))(params, INPUTS)
    assert forward.out.shape == (3, 3)
    reference = ViT(**SMALL, classes=3)
    unrolled = {"params": unstack_blocks(params) if scan else params}
    _, taps = run(reference, unrolled)
    expected = taps["encoder"]["block_0"]["__call__"][0]
    np.testing.assert_allclose(forward.taps[tap], expected, rtol=1e-5, atol=1e-5)


def fails(net, inputs=INPUTS):
    return lambda: jax.eval_shape(net.init, jax.random.key(0), inputs)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (fails(ViT(**{**SMALL, "heads": 3})), "width of 8 does not divide by 3 heads"),
        (fails(MAE(**SMALL, **{**DECODER, "decoder_heads": 5})), "12 does not divide by 5"),
        (fails(ViT(**{**SMALL, "patch": 4})), "4x6 does not divide into patches of 4"),
        (fails(ViT(**SMALL), jnp.ones((4, 4, 2))), r"\(4, 4, 2\)"),
        (fails(ViT(**SMALL), {"image": IMAGE, "keep": KEEP[:2]}), r"\[3, K\].*\(2, 3\)"),
        (fails(ViT(**SMALL), {"image": IMAGE, "keep": jnp.zeros((3, 7), int)}), r"6: .*\(3, 7\)"),
        (fails(ViT(**SMALL), {"image": IMAGE, "keep": jnp.zeros((3, 2))}), "float32"),
        (fails(ViT(**SMALL, pool="man")), "did you mean 'mean'"),
        (fails(ViT(**SMALL, class_token=False)), "needs class_token"),
        (fails(ViT(**SMALL, positions="fix")), "positions='fix' .* did you mean 'fixed'"),
        (fails(ViT(**SMALL, drop_path=1.0)), "drop_path=1.0 must be"),
        (lambda: vit_size("bse"), "did you mean 'base'"),
        (lambda: mae_size("tiny"), "unknown MAE size 'tiny'"),
        (lambda: split_qkv(jnp.zeros((1, 2, 24)), 3), "8 does not divide by 3"),
        (lambda: ViT(**SMALL, scan=True).for_taps(["encoder/block_2"]), "did you mean"),
        (
            lambda: MAE(**SMALL, scan=True).for_taps(["encoder/block_1/attn"]),
            "tap 'encoder/block_1'",
        ),
        (lambda: stack_blocks({"block_0": {}, "block_2": {}}), r"0 to 1.*\[0, 2\]"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
