"""The decoder against its formulas written out, its cache, its packing, its head, its loop."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language.nets import decoder

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import empty_cache
from jaxdistill.language.generation import prefill, read
from jaxdistill.models import Decoder, head_of, stack_blocks, unstack_blocks
from jaxdistill.models.decoder import soft_cap

KINDS = {
    "plain": {},
    "qwen2": {"bias": True, "tied": False, "theta": 1e6},
    "qwen3": {"qk_norm": True, "head_width": 6},
    "mistral": {"window": 3},
    "capped": {"attention_cap": 2.0, "logit_cap": 3.0, "activation": "gelu"},
}


def rms(x, scale):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-6) * scale


def turned(x, position, theta):
    half = len(x) // 2
    pairs = x[:half] + 1j * x[half:]
    pairs = pairs * np.exp(1j * position * theta ** (-np.arange(half) / half))
    return np.concatenate([pairs.real, pairs.imag])


def by_hand(p, tokens, heads, groups, head_width, *, theta=1e4, window=None, cap=None, gelu=False):
    """One text, token by token and head by head, in float64."""
    p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
    x = p["embed_tokens"]["embedding"][tokens]
    for name in sorted(key for key in p if key.startswith("layers_")):
        layer = p[name]
        own = layer["self_attn"]
        h = rms(x, layer["input_layernorm"]["scale"])
        parts = {}
        for kind, count in (("q", heads), ("k", groups), ("v", groups)):
            dense = own[f"{kind}_proj"]
            found = (h @ dense["kernel"] + dense.get("bias", 0)).reshape(len(h), count, head_width)
            if f"{kind}_norm" in own:
                found = rms(found, own[f"{kind}_norm"]["scale"])
            parts[kind] = found
        mixed = np.zeros((len(h), heads, head_width))
        for i in range(len(h)):
            for head in range(heads):
                group = head // (heads // groups)
                first = 0 if window is None else max(0, i - window + 1)
                query = turned(parts["q"][i, head], i, theta)
                scores = np.array(
                    [query @ turned(parts["k"][j, group], j, theta) for j in range(first, i + 1)]
                ) / np.sqrt(head_width)
                scores = scores if cap is None else cap * np.tanh(scores / cap)
                share = np.exp(scores - scores.max())
                mixed[i, head] = (share / share.sum()) @ parts["v"][first : i + 1, group]
        x = x + mixed.reshape(len(h), -1) @ own["o_proj"]["kernel"]
        h = rms(x, layer["post_attention_layernorm"]["scale"])
        gate = h @ layer["mlp"]["gate_proj"]["kernel"]
        if gelu:
            gate = gate / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (gate + 0.044715 * gate**3)))
        else:
            gate = gate / (1 + np.exp(-gate))
        x = (
            x
            + (gate * (h @ layer["mlp"]["up_proj"]["kernel"])) @ layer["mlp"]["down_proj"]["kernel"]
        )
    return rms(x, p["norm"]["scale"]) @ head_of(p)


@pytest.mark.parametrize("kind", KINDS)
def test_formulas_written_out(kind):
    settings = KINDS[kind]
    net, (params, state) = decoder(**settings)
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    # Scales and biases start at 1 and 0, which would hide an error.
    moved = [x + 0.3 * jax.random.normal(k, x.shape) for k, x in zip(keys, leaves, strict=True)]
    params = jax.tree.unflatten(tree, moved)
    tokens = np.array([3, 1, 4, 1, 5, 9, 2])
    out = jax.jit(lambda p, t: net.apply(p, state, t).out)(params, tokens[None])[0]
    hand = by_hand(
        params,
        tokens,
        4,
        2,
        settings.get("head_width", 4),
        theta=settings.get("theta", 1e4),
        window=settings.get("window"),
        cap=settings.get("attention_cap"),
        gelu=settings.get("activation") == "gelu",
    )
    np.testing.assert_allclose(out, soft_cap(hand, settings.get("logit_cap")), atol=2e-5)


@pytest.mark.parametrize("kind", ["plain", "mistral"])
def test_a_cache_changes_nothing(kind):
    net, variables = decoder(**KINDS[kind])
    tokens = jax.random.randint(jax.random.key(1), (3, 9), 0, 23)
    whole = jax.jit(net.apply)(*variables, tokens).out
    lengths = jnp.array([4, 1, 6])
    # Shorter prompts are filled up with what must never be seen.
    junk = jnp.where(jnp.arange(6)[None] < lengths[:, None], tokens[:, :6], 22)
    cache = jax.jit(lambda: prefill(net, variables, empty_cache(net, 3, 9), junk))()
    step = jax.jit(lambda cache, t, p: read(net, variables, cache, t, p))
    for number in range(3):
        at = lengths + number
        token = jnp.take_along_axis(tokens, at[:, None], axis=1)
        logits, cache = step(cache, token, at[:, None])
        wanted = jnp.take_along_axis(whole, at[:, None, None], axis=1)
        np.testing.assert_allclose(logits, wanted, atol=1e-5)


def test_packed_texts_do_not_see_each_other():
    net, variables = decoder(scale=2.0)
    first, second = jnp.array([[5, 6, 7]]), jnp.array([[8, 9]])
    packed = {
        "tokens": jnp.array([[5, 6, 7, 8, 9]]),
        "positions": jnp.array([[0, 1, 2, 0, 1]]),
        "segments": jnp.array([[1, 1, 1, 2, 2]]),
    }
    run = jax.jit(net.apply)
    out = run(*variables, packed).out
    apart = jnp.concatenate([run(*variables, t).out for t in (first, second)], axis=1)
    np.testing.assert_allclose(out, apart, atol=1e-5)


@pytest.mark.parametrize("tied", [True, False])
def test_hidden_states_times_the_head_are_the_logits(tied):
    net, (params, state) = decoder(tied=tied)
    forward = net.apply(params, state, jnp.array([[1, 2, 3]]), taps=("norm",))
    np.testing.assert_allclose(forward.taps["norm"] @ head_of(params), forward.out, atol=1e-5)


def test_recomputed_layers_have_the_same_gradient():
    tokens = jnp.array([[1, 2, 3, 4]])

    def gradient(remat):
        net, (params, state) = decoder(remat=remat)
        loss = jax.grad(lambda p: (net.apply(p, state, tokens).out ** 2).mean())
        return jax.jit(loss)(params)

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(True), gradient(False)
    )


def test_scanned_layers_are_the_unrolled_ones():
    """Outputs, taps, gradients, and what is written into a cache, packed texts among them."""
    settings = {"qk_norm": True, "window": 3, "depth": 3}
    plain, (params, _) = decoder(scale=2.0, **settings)
    scanned = from_linen(Decoder(23, 16, heads=4, groups=2, scan=True, remat=True, **settings))
    own, _ = jax.eval_shape(scanned.init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))
    stacked = stack_blocks(params)
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(lambda x: x.shape, own)
    jax.tree.map(np.testing.assert_array_equal, unstack_blocks(stacked), params)
    inputs = {
        "tokens": jnp.array([[5, 6, 7, 8, 9]]),
        "positions": jnp.array([[0, 1, 2, 0, 1]]),
        "segments": jnp.array([[1, 1, 1, 2, 2]]),
    }

    def answers(net, params, taps):
        def loss(params):
            found = net.apply(params, {}, inputs, taps=taps)
            return (found.out**2).mean(), (found.out, list(found.taps.values()))

        grads, (out, tapped) = jax.grad(loss, has_aux=True)(params)
        return (out, tapped), grads

    close = partial(np.testing.assert_allclose, atol=2e-5)
    taps = ("layers_1", "norm", "layers_2", "layers_1/mlp")
    one, grads = jax.jit(lambda p: answers(plain, p, taps))(params)
    taps = (*taps[:3], "layers/mlp[1]")
    two, own_grads = jax.jit(lambda p: answers(scanned, p, taps))(stacked)
    jax.tree.map(close, one, two)
    jax.tree.map(close, stack_blocks(grads), own_grads)

    def written(net, params):
        cache = prefill(net, (params, {}), empty_cache(net, 1, 6), jnp.array([[4, 2, 1]]))
        return read(net, (params, {}), cache, jnp.array([[3, 5]]), jnp.array([[3, 4]]))[0]

    close(jax.jit(partial(written, plain))(params), jax.jit(partial(written, scanned))(stacked))
    for tap, words in (("layers_3", "'layers_2'"), ("layers_1/mlp", r"'layers/mlp\[1\]'")):
        with pytest.raises(ValueError, match=words):
            scanned.apply(stacked, {}, inputs, taps=(tap,))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"groups": 3}, "4 heads do not divide by 3 groups"),
        ({"width": 18}, "a width of 18 does not divide by 4 heads"),
        ({"head_width": 5}, "heads of even width, not 5"),
        ({"activation": "gleu"}, "'gelu'"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        decoder(**settings)


def test_an_unknown_input_is_refused():
    net = from_linen(Decoder(vocabulary=5, width=8, depth=1, heads=2))
    with pytest.raises(ValueError, match="'tokens'"):
        net.init(jax.random.key(0), {"token": jnp.zeros((1, 2), jnp.int32)})
