"""What a student takes over from its teacher, exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import models

TOKENS = jnp.array([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
IMAGES = jax.random.uniform(jax.random.key(1), (2, 8, 8, 1))


def text(**changes):
    own = {"vocabulary": 11, "width": 12, "depth": 4, "heads": 3, "hidden": 10, "positions": 8}
    return models.TextEncoder(**{**own, "head": "classes", **changes})


def vit(**changes):
    own = {"patch": 4, "width": 12, "depth": 4, "heads": 3, "classes": 5, "positions": "learned"}
    return models.ViT(**{**own, **changes})


def decoder(**changes):
    own = {"vocabulary": 11, "width": 16, "depth": 4, "heads": 4, "groups": 2, "hidden": 10}
    return models.Decoder(**{**own, "bias": True, "qk_norm": True, **changes})


# A net, its input, and how a smaller one differs.
KINDS = {
    "text": (text, TOKENS, {"width": 8, "heads": 2, "hidden": 6}),
    "vit": (vit, IMAGES, {"width": 8, "heads": 2, "mlp_ratio": 2.0}),
    "decoder": (decoder, TOKENS, {"width": 8, "heads": 2, "groups": 1, "hidden": 6}),
}


def shapes(module, inputs):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), inputs)["params"])


@pytest.fixture(scope="module")
def started():
    # Biases and norms would start equal: only numbers of their own show which were taken.
    draw = np.random.default_rng(7)

    def drawn(x):
        return jnp.asarray(draw.normal(size=x.shape, scale=0.3).astype(np.float32))

    return {
        kind: jax.tree.map(drawn, shapes(make(), inputs))
        for kind, (make, inputs, _) in KINDS.items()
    }


def same_form(params, module, inputs):
    jax.tree.map(
        lambda a, b: np.testing.assert_equal(a.shape, b.shape), params, shapes(module, inputs)
    )


CHOSEN = {"first": (0, 1), "last": (2, 3), "spread": (0, 3), "every_second": (0, 2), (3, 1): (3, 1)}


@pytest.mark.parametrize("kind", KINDS)
def test_layers_are_the_teachers(kind, started):
    make, _, _ = KINDS[kind]
    params, name = started[kind], "layers" if kind == "decoder" else "block"
    for choice, numbers in CHOSEN.items():
        small = models.inherit(params, make(), make(depth=2), layers=choice)
        there, here = (tree.get("encoder", tree) for tree in (params, small))
        expected = {k: v for k, v in there.items() if not k.startswith(name)}
        expected |= {
            f"{name}_{own}": there[f"{name}_{number}"] for own, number in enumerate(numbers)
        }
        jax.tree.map(np.testing.assert_array_equal, here, expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_narrower_student_computes_what_is_left_of_its_teacher(kind, started):
    """Whatever else the teacher holds is put out of use: then both nets answer alike."""
    make, inputs, narrow = KINDS[kind]
    params, teacher = started[kind], make()
    # Heads and neurons alone: the width stays, so that norms see the same.
    changes = {k: v for k, v in narrow.items() if k in ("hidden", "mlp_ratio")}
    student = make(**changes)
    small = models.inherit(params, teacher, student)
    same_form(small, student, inputs)
    path = {"text": ("fc2",), "vit": ("mlp", "fc2"), "decoder": ("mlp", "down_proj")}[kind]
    count = {"text": 6, "vit": 24, "decoder": 6}[kind]

    def silenced(tree, path=path):
        if not isinstance(tree, dict):
            return tree
        if path[0] in tree and len(path) == 1:
            kernel = tree[path[0]]["kernel"].at[count:].set(0)
            return {**tree, path[0]: {**tree[path[0]], "kernel": kernel}}
        if path[0] in tree:
            return {**tree, path[0]: silenced(tree[path[0]], path[1:])}
        return {k: silenced(v, path) for k, v in tree.items()}

    whole = jax.jit(teacher.apply)({"params": silenced(params)}, inputs)
    ours = jax.jit(student.apply)({"params": small}, inputs)
    np.testing.assert_allclose(ours, whole, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_width_is_cut_in_every_array_alike(kind, started):
    make, inputs, narrow = KINDS[kind]
    params, teacher, student = started[kind], make(), make(depth=2, **narrow)
    same_form(models.inherit(params, teacher, student, layers="last"), student, inputs)
    scores = jax.jit(lambda p: models.importance(p, p, teacher))(params)
    best = models.inherit(params, teacher, student, layers="last", scores=scores)
    same_form(best, student, inputs)
    kept = np.sort(np.argsort(-np.asarray(scores["width"]), kind="stable")[:8])
    table, small = (tree.get("words", tree.get("embed_tokens")) for tree in (params, best))
    if table is None:
        table, small = ({"embedding": tree["encoder"]["pos_embed"]} for tree in (params, best))
    np.testing.assert_array_equal(small["embedding"], table["embedding"][:, kept])


def test_heads_are_taken_whole(started):
    """A head of query, key and value goes with its rows of the projection."""
    params, teacher = started["text"], text()
    student = text(width=8, heads=2)
    small = models.inherit(params, teacher, student)["block_1"]["attn"]
    there = params["block_1"]["attn"]
    wide = np.asarray(there["qkv"]["kernel"]).reshape(12, 3, 3, 4)[:8, :, :2].reshape(8, 24)
    np.testing.assert_array_equal(small["qkv"]["kernel"], wide)
    np.testing.assert_array_equal(small["proj"]["kernel"], there["proj"]["kernel"][:8, :8])
    # Rotary channels go in pairs, half a head apart.
    params, student = started["decoder"], decoder(head_width=2)
    small = models.inherit(params, decoder(), student)["layers_0"]["self_attn"]["k_proj"]["bias"]
    there = np.asarray(params["layers_0"]["self_attn"]["k_proj"]["bias"])
    np.testing.assert_array_equal(small, there[[0, 2, 4, 6]])


def test_scanned_nets_are_the_same(started):
    params = started["vit"]
    unrolled = models.inherit(params, vit(), vit(depth=2, mlp_ratio=2.0))
    scanned = models.inherit(
        models.stack_blocks(params), vit(scan=True), vit(depth=2, mlp_ratio=2.0, scan=True)
    )
    jax.tree.map(np.testing.assert_array_equal, scanned, models.stack_blocks(unrolled))


def test_planted_units_are_the_least_important(started):
    """A neuron whose output nobody reads is worth nothing, and goes first; so does a head."""
    net, params = text(), started["text"]
    dead = [1, 4, 7, 8]
    block = params["block_0"]
    fc2 = block["fc2"]["kernel"].at[jnp.array(dead)].set(0)
    proj = block["attn"]["proj"]["kernel"].at[4:8].set(0)
    attn = {**block["attn"], "proj": {**block["attn"]["proj"], "kernel": proj}}
    planted = {
        **params, "block_0": {**block, "attn": attn, "fc2": {**block["fc2"], "kernel": fc2}}
    }  # fmt: skip
    loss = jax.jit(
        jax.grad(lambda p: -jax.nn.log_softmax(net.apply({"params": p}, TOKENS))[:, 0].sum())
    )
    scores = models.importance(planted, loss(planted), net)
    np.testing.assert_array_equal(np.flatnonzero(scores["block_0/neurons"] == 0), dead)
    assert np.flatnonzero(scores["block_0/heads"] == 0).tolist() == [1]
    small = models.inherit(planted, net, text(hidden=6), scores=scores)
    kept = np.delete(np.arange(10), dead)
    np.testing.assert_array_equal(small["block_0"]["fc1"]["bias"], block["fc1"]["bias"][kept])


@pytest.mark.parametrize(("experts", "active"), [(4, 4), (4, 2), (3, 1)])
def test_upcycled_decoders_say_what_the_dense_one_did(experts, active, started):
    dense, params = decoder(), started["decoder"]
    sparse = decoder(experts=experts, active=active, sparse=(1, 3))
    grown = models.upcycle(params, sparse)
    for index in (1, 3):
        router = jax.random.normal(jax.random.key(index), (16, experts))
        grown[f"layers_{index}"]["mlp"]["router"] = {"kernel": router}
    same_form(grown, sparse, TOKENS)
    ours = jax.jit(sparse.apply)({"params": grown}, TOKENS)
    theirs = jax.jit(dense.apply)({"params": params}, TOKENS)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)


def test_a_mixture_is_its_formula():
    layer = models.SparseMlp(experts=3, active=2, hidden=5, activation=jax.nn.silu)
    x = jax.random.normal(jax.random.key(0), (2, 4, 6))
    variables = layer.init(jax.random.key(1), x)
    params = variables["params"]
    logits = np.asarray(x @ params["router"]["kernel"])

    def formula(params):
        kernels = [params[f"{n}_proj"]["kernel"] for n in ("gate", "up", "down")]
        each = [(jax.nn.silu(x @ g) * (x @ u)) @ d for g, u, d in zip(*kernels, strict=True)]
        best = np.argsort(-logits, axis=-1)[..., :2]
        out = jnp.take_along_axis(jnp.stack(each, -2), jnp.asarray(best)[..., None], -2)
        seen = jnp.take_along_axis(x @ params["router"]["kernel"], jnp.asarray(best), -1)
        return (jax.nn.softmax(seen)[..., None] * out).sum(-2)

    np.testing.assert_allclose(layer.apply(variables, x), formula(params), atol=1e-5)
    grads = [
        jax.jit(jax.grad(lambda p, f=f: jnp.square(f(p)).sum()))(params)
        for f in (formula, lambda p: layer.apply({"params": p}, x))
    ]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), *grads)

    def own(rows):
        return jax.grad(lambda p: jnp.square(layer.apply({"params": p}, rows)).sum())(params)

    mapped = jax.jit(jax.vmap(own))(jnp.stack([x, 2 * x]))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0], b, atol=1e-4), mapped, grads[1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p: models.layers_of("evry_second", 4, 2), "did you mean 'every_second'"),
        (lambda p: models.layers_of("every_second", 4, 3), "are 2 of the teacher's 4"),
        (lambda p: models.layers_of((0, 4), 4, 2), "layers are 0 to 3"),
        (lambda p: models.take_layers(p, (0, 9)), "block_9 among block_0 to block_3"),
        (lambda p: models.inherit(p, text(), text(hidden=20, depth=2)), "neurons: 10 there, 20"),
        (lambda p: models.inherit(p, text(), decoder()), "a Decoder cannot start from a TextEnc"),
        (lambda p: models.inherit(p, models.MLP((3,), 2), text()), "net to start from 'MLP'"),
        (lambda p: models.upcycle(p, decoder()), "experts=0"),
        (lambda p: decoder(experts=2, sparse=(4,)).sparse_layers(), "layers are 0 to 3"),
    ],
)
def test_what_is_refused(call, message, started):
    with pytest.raises(ValueError, match=message):
        call(started["text"])
