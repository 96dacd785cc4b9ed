"""Low-rank adapters: their values, what they leave alone, and what they are refused for."""

import pathlib

import equinox
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx, traverse_util

import jaxdistill as jd
from jaxdistill import from_linen, lora, models
from jaxdistill.lora import students
from jaxdistill.objective import per_example
from jaxdistill.training.sharding import make_mesh

KEY = jax.random.key(0)
GOLDEN = pathlib.Path(__file__).parent / "goldens" / "lora_forward_distillation.npz"
IMAGES = jax.random.uniform(KEY, (2, 4, 4, 1))
TOKENS = jax.random.randint(KEY, (2, 5), 0, 11)
TIMED = {"image": IMAGES, "time": jnp.array([0.3, 0.9])}
DECODER = {"vocabulary": 11, "width": 8, "depth": 2, "heads": 2}
UNET = models.UNet(width=8, multipliers=(1,), depth=1, attention=(4,))
VIT = {"patch": 2, "width": 8, "depth": 2, "heads": 2, "classes": 3}


class OfFlax(nn.Module):
    """Attention with axes of heads, and convolutions along one axis, whole and in groups."""

    @nn.compact
    def __call__(self, x):
        x = nn.MultiHeadDotProductAttention(num_heads=2, qkv_features=8, name="attn")(x, x)
        x = nn.Conv(8, (3,), strides=2, name="whole")(x)
        x = nn.Conv(8, (3,), feature_group_count=2, name="grouped")(x)
        return nn.DenseGeneral((2, 3), axis=(-1, -2), name="both")(x)


def wide(shape):
    return jax.random.normal(KEY, shape)


# A net, what it sees, patterns, and how many adapters are added to kernels, not beside layers.
NETS = {
    "time_mlp": (models.TimeMLP(width=8, depth=1), TIMED, ("in/", "out/", "head"), 0),
    "unet": (UNET, TIMED, ("down", "in"), 0),
    "dit": (models.DiT(patch=2, width=8, depth=1, heads=2), TIMED, ("qkv", "proj"), 0),
    "convnet": (models.ConvNet(width=4, depth=1, classes=3), IMAGES, ("kernel",), 2),
    "flax": (OfFlax(), wide((2, 6, 8)), ("kernel",), 1),
    "vit": (models.ViT(**VIT), IMAGES, ("attn", "mlp", "head"), 0),
    "vit, scanned": (models.ViT(**VIT, scan=True), IMAGES, ("attn", "mlp", "head"), 0),
    "decoder": (models.Decoder(**DECODER), TOKENS, ("kernel",), 0),
    "decoder, scanned": (models.Decoder(**DECODER, scan=True), TOKENS, ("kernel", "embed"), 1),
    "experts": (models.Decoder(**DECODER, experts=2, scan=True), TOKENS, ("mlp",), 3),
}  # fmt: skip
# Attention of these takes its softmax in float32.
NARROW = ("unet", "dit", "flax", "vit", "vit, scanned")


def drawn(tree, scale=0.3):
    """Arrays at random in place of a start of zeros."""
    noise = np.random.default_rng(7)

    def moved(leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return leaf
        return jnp.asarray(np.asarray(leaf) + scale * noise.normal(size=leaf.shape), leaf.dtype)

    return jax.tree.map(moved, tree)


def started(module, inputs, at, **how):
    """A net with drawn weights, its variables, and an adapted one with drawn adapters."""
    net = from_linen(module)
    variables = drawn(jax.jit(net.init)(KEY, inputs), 0.1)
    student = lora.adapted(net, "teacher", at=at, **{"rank": 1, "scale": 0.7, **how})
    own = student({"teacher": variables})
    params, state = jax.jit(own.init)(jax.random.key(1), inputs)
    return net, variables, student, (drawn(params), state)


@pytest.mark.parametrize("name", NETS)
def test_beside_layers_is_the_same_as_in_their_weights(name, monkeypatch):
    module, inputs, at, within = NETS[name]
    beside = []
    found = students._Run._beside
    monkeypatch.setattr(
        students._Run, "_beside", lambda *args: beside.append(found(*args)) or beside[-1]
    )
    with jax.enable_x64(True):
        inputs = jax.tree.map(
            lambda x: x.astype(float) if jnp.issubdtype(x.dtype, jnp.floating) else x, inputs
        )
        if hasattr(module, "param_dtype"):
            module = module.clone(param_dtype=jnp.float64)
        net, variables, student, own = started(module, inputs, at)
        variables = jax.tree.map(lambda x: x.astype(float), variables)
        own = jax.tree.map(lambda x: x.astype(float), own)

        @jax.jit
        def outputs(variables, own):
            adapted = student({"teacher": variables})
            weights = lora.merged(variables[0], own[0], 0.7)
            return (
                adapted.apply(*own, inputs).out,
                net.apply(weights, variables[1], inputs).out,
                net.apply(*variables, inputs).out,
            )

        ours, theirs, base = outputs(variables, own)
        assert ours.dtype == theirs.dtype
        tolerance = 1e-5 if name in NARROW else 1e-12
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)
        assert abs(ours - base).max() > 1e-3
    assert len(traverse_util.flatten_dict(own[0])) // 2 - len(beside[-1]) == within


def test_values_and_slopes_are_those_of_public_code():
    golden = np.load(GOLDEN)
    x, kernel = golden["in__x"], golden["param__W"].T
    with jax.enable_x64(True):
        base = {"kernel": jnp.asarray(kernel, float)}
        net = from_linen(nn.Dense(5, use_bias=False, param_dtype=float))
        student = lora.adapted(net, "teacher", at=("kernel",), rank=2, alpha=1.0)
        own = student({"teacher": (base, {})})

        def outputs(down, up):
            pair = {"kernel": {"down": down.T, "up": up.T}}
            weights = lora.merged(base, pair, 0.5)
            both = net.apply(weights, {}, jnp.asarray(x, float)).out
            return own.apply(pair, {}, jnp.asarray(x, float)).out, weights["kernel"].T, both

        given = [jnp.asarray(golden[f"param__{name}"], float) for name in ("down", "up")]
        found = outputs(*given)
        for value, name in zip(found, ("out", "merged_weight", "out_merged"), strict=True):
            np.testing.assert_allclose(value, golden[f"out__{name}"], rtol=1e-12)
        slopes = jax.grad(lambda *p: sum(each.sum() for each in outputs(*p)), (0, 1))(*given)
        for slope, name in zip(slopes, ("down", "up"), strict=True):
            np.testing.assert_allclose(slope, golden[f"grad__{name}"], rtol=1e-12)


SMALL, SEEN = models.TimeMLP(width=8, depth=1), TIMED


def test_it_starts_as_its_base_and_the_base_gets_no_slope():
    net, variables, student, _ = started(SMALL, SEEN, ("in/", "given"), rank=2)

    def out(variables, params):
        return (student({"teacher": variables}).apply(params, {}, SEEN).out ** 2).sum()

    params, state = student({"teacher": variables}).init(KEY, SEEN)
    start = student({"teacher": variables}).apply(params, state, SEEN).out
    np.testing.assert_array_equal(start, net.apply(*variables, SEEN).out)
    of_base, own = jax.grad(out, (0, 1), allow_int=True)(variables, params)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_base))
    flat = traverse_util.flatten_dict(own, sep="/")
    assert all(np.any(leaf) == path.endswith("up") for path, leaf in flat.items())
    zero = lora.adapted(net, "teacher", at=("in/",), rank=2, scale=0.0)({"teacher": variables})
    np.testing.assert_array_equal(zero.apply(drawn(params), {}, SEEN).out, start)


def test_merging_adding_and_taking_out():
    _, (params, _), _, (one, _) = started(SMALL, SEEN, ("in/", "head"), rank=2)
    other = drawn(lora.start(KEY, params, at=("head", "out/"), rank=1))
    whole = lora.merged(lora.merged(params, one, 0.7), other, -0.5)
    both = lora.together(params, [(one, 0.7), (other, -0.5)])
    near = lambda a, b: jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-6), a, b)  # noqa: E731
    near(lora.merged(params, both, 1.0), whole)
    near(lora.unmerged(lora.merged(params, one, 0.7), one, 0.7), params)
    assert both["head"]["kernel"]["down"].shape == (8, 3)
    # Onto another net of equal names, of which some may have no adapter.
    wider = from_linen(SMALL.clone(depth=2)).init(KEY, SEEN)[0]
    carried = lora.merged(wider, one, 0.7)
    near(carried["block_1"], wider["block_1"])
    assert not np.allclose(carried["head"]["kernel"], wider["head"]["kernel"])
    assert lora.numbers(one) == sum(leaf.size for leaf in jax.tree.leaves(one))
    # Stacked layers, as many as the rank: the axis of the rank is the second.
    stacked = {"layers": {"kernel": jnp.zeros((2, 3, 3))}}
    pair = drawn(lora.start(KEY, stacked, at=("kernel",), rank=2))
    twice = lora.merged(stacked, lora.together(stacked, [(pair, 1.0), (pair, 1.0)]), 1.0)
    near(twice, lora.merged(stacked, pair, 2.0))


def test_kernels_with_outputs_first_are_read_so():
    tree = {"layers": {"0": {"weight": jnp.zeros((3, 2, 5)), "bias": jnp.zeros((3, 1))}}}
    (kernel,) = lora.kernels(tree).values()
    assert (kernel.sizes(), kernel.stack) == ((10, 3), 0)
    pair = drawn(lora.start(KEY, tree, at=("weight",), rank=2))
    own = pair["layers"]["0"]["weight"]
    assert (own["down"].shape, own["up"].shape) == ((2, 5, 2), (2, 3))
    changed = lora.merged(tree, pair, 1.0)["layers"]["0"]["weight"]
    np.testing.assert_allclose(
        changed, jnp.einsum("ikr,ro->oik", own["down"], own["up"]), atol=1e-5
    )


def test_kernels_in_half_precision_are_rounded_once():
    kernel = jnp.ones((1, 1), jnp.bfloat16)
    pair = {"down": jnp.full((1, 1), 2.0**-9), "up": jnp.ones((1, 1))}
    seen = lora.merged({"kernel": kernel}, {"kernel": pair}, 3.0)["kernel"]
    assert seen.dtype == jnp.bfloat16
    assert float(seen[0, 0]) == 1 + 2.0**-7


@pytest.mark.parametrize("basis", ["up", "down"])
def test_a_frozen_basis_is_orthonormal_and_lies_in_the_state(basis):
    net, variables, student, (params, state) = started(SMALL, SEEN, ("in/",), rank=3, basis=basis)
    (bases,) = state.values()
    assert {path[-1] for path in traverse_util.flatten_dict(bases)} == {basis}
    assert basis not in {path[-1] for path in traverse_util.flatten_dict(params)}
    for leaf in jax.tree.leaves(bases):
        gram = leaf @ leaf.T if basis == "up" else leaf.T @ leaf
        np.testing.assert_allclose(gram, np.eye(3), atol=1e-5)
    adapted = student({"teacher": variables})
    forward = adapted.apply(params, state, SEEN)
    np.testing.assert_array_equal(
        forward.state[lora.BASES]["in"]["kernel"][basis], bases["in"]["kernel"][basis]
    )
    weights = lora.merged(variables[0], lora.adapters_of((params, state)), 0.7)
    np.testing.assert_allclose(forward.out, net.apply(weights, {}, SEEN).out, atol=1e-5)
    back = adapted.back((params, state))
    np.testing.assert_allclose(SMALL.apply(back, SEEN), forward.out, atol=1e-5)


def test_dropout_is_of_the_inputs_of_adapters():
    _, variables, student, own = started(SMALL, SEEN, ("head",), dropout=0.5)
    adapted = student({"teacher": variables})
    still = adapted.apply(*own, SEEN).out
    runs = [adapted.apply(*own, SEEN, train=True, rng=jax.random.key(i)).out for i in range(2)]
    assert abs(runs[0] - runs[1]).max() > 1e-3
    many = jax.jit(jax.vmap(lambda key: adapted.apply(*own, SEEN, train=True, rng=key).out))
    mean = many(jax.random.split(KEY, 4000)).mean(0)
    np.testing.assert_allclose(mean, still, atol=0.06 * float(abs(still).max() + 1))
    with pytest.raises(ValueError, match="no rng"):
        adapted.apply(*own, SEEN, train=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"at": ("attn",)}, r"unknown path of kernels.*'attn'.*Possible: .*'head/kernel'"),
        ({"at": ("heaad",)}, r"did you mean 'head/kernel'"),
        ({"at": ()}, "at least one pattern"),
        ({"at": "head"}, r"write \('head',\)"),
        ({"at": ("head",), "rank": 17}, "rank 17 .* for head/kernel, a matrix of 8 x 16: .*most 8"),
    ],
)
def test_what_no_adapter_can_be_made_for_is_refused(settings, words):
    params = from_linen(SMALL).init(KEY, SEEN)[0]
    with pytest.raises(ValueError, match=words):
        lora.start(KEY, params, **{"rank": 1, **settings})


def test_adapters_for_others_are_refused():
    net, variables, student, (params, state) = started(SMALL, SEEN, ("head",))
    other = {"haed": params["head"]}
    for refused in (
        lambda: lora.merged(variables[0], other, 1.0),
        lambda: student({"teacher": variables}).apply(other, state, SEEN),
    ):
        with pytest.raises(ValueError, match=r"'haed/kernel': did you mean 'head/kernel'"):
            refused()
    for down, up in (((9, 1), (1, 16)), ((8, 2), (1, 16)), ((8, 1), (1, 15))):
        pair = {"head": {"kernel": {"down": jnp.ones(down), "up": jnp.ones(up)}}}
        with pytest.raises(ValueError, match=r"head/kernel are not for a kernel of \(8, 16\)"):
            lora.merged(variables[0], pair, 1.0)
    half = {"head": {"kernel": {"down": jnp.ones((8, 1))}}}
    with pytest.raises(ValueError, match="'down' in place of 'down', 'up'"):
        lora.merged(variables[0], half, 1.0)
    with pytest.raises(ValueError, match="either 'alpha' or 'scale'"):
        lora.adapted(net, "teacher", at=("head",), alpha=1.0, scale=1.0)
    scanned = models.ViT(**VIT, scan=True)
    _, variables, student, own = started(scanned, IMAGES, ("attn",), dropout=0.5)
    with pytest.raises(ValueError, match="loop over layers: take dropout=0"):
        student({"teacher": variables}).apply(*own, IMAGES, train=True, rng=KEY)
    module, inputs, _, _ = NETS["convnet"]
    _, variables, student, own = started(module, inputs, ("kernel",), dropout=0.5)
    with pytest.raises(ValueError, match="cannot see what it reads: take dropout=0"):
        student({"teacher": variables}).apply(*own, inputs, train=True, rng=KEY)


def test_optimizer_and_result_hold_adapters_alone():
    net, variables, student, _ = started(SMALL, SEEN, ("in/", "head"), rank=2)

    def objective(forward, goal, batch):
        return {"l2": per_example(1.0, ((forward.out - goal["out"]) ** 2).reshape(2, -1).mean(-1))}

    distiller = jd.model_to_model(student, jd.targets.live(net), objective, optax.adam(1e-2))
    state = distiller.init(KEY, {"teacher": variables}, {"image": SEEN})
    params = from_linen(SMALL).init(KEY, SEEN)[0]
    assert lora.numbers(state.params["net"]) == sum(
        2 * sum(lora.kernels(params)[f"{path}/kernel"].sizes())
        for path in ("in", "block_0/in", "head")
    )
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt) if leaf.ndim)
    assert moments == 2 * lora.numbers(state.params["net"])
    assert distiller.result(state)[0] is state.params["net"]


def test_slices_on_a_mesh_give_the_same_adapters():
    net = from_linen(SMALL)
    images, times = np.tile(np.asarray(IMAGES), (2, 1, 1, 1)), np.linspace(0.1, 1, 4, dtype="f4")
    variables = drawn(net.init(KEY, SEEN), 0.1)
    student = lora.adapted(net, "teacher", at=("in/", "head"), rank=1)

    def objective(forward, goal, batch):
        gap = forward.out - batch["image"]
        return {"l2": per_example(1.0, (gap**2).reshape(4, -1).mean(-1))}

    def both(batch, key):
        return {**batch, "seen": {"image": batch["image"], "time": batch["time"]}}

    how = {"inputs": "seen", "prepare": both}
    distiller = jd.model_to_model(student, lambda *_: {}, objective, optax.sgd(0.1), **how)
    rules = ((r"/(down|up)$", "replicated"), ("kernel$", ("fsdp", "model")))
    ways = {"batch_size": 4, "log_every": 2, "quiet": True}
    frozen, data = {"teacher": variables}, {"image": images, "time": times}
    alone = jd.fit(distiller, frozen, data, 2, mesh=make_mesh(devices=jax.devices()[:1]), **ways)
    sizes = {"data": 2, "fsdp": 2, "model": 2}
    sliced = jd.fit(distiller, frozen, data, 2, mesh=make_mesh(sizes), rules=rules, **ways)
    near = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)  # noqa: E731
    jax.tree.map(near, alone.result[0], sliced.result[0])
    assert any(np.any(leaf) for leaf in jax.tree.leaves(sliced.result[0]["head"]["kernel"]["up"]))


def test_modules_of_other_frameworks():
    x = wide((4, 8))
    linear = jd.from_nnx(lambda rngs: nnx.Linear(8, 3, rngs=rngs))
    other = jd.from_equinox(lambda key: equinox.nn.Linear(8, 3, key=key))
    for net in (linear, other):
        variables = net.init(KEY, x)
        student = lora.adapted(net, "teacher", at=("kernel|weight",), rank=2, scale=0.5)
        adapted = student({"teacher": variables})
        params, state = adapted.init(KEY, x)
        own = drawn(params)
        merged = net.apply(lora.merged(variables[0], own, 0.5), variables[1], x).out
        np.testing.assert_allclose(adapted.apply(own, state, x).out, merged, atol=1e-5)
        module = adapted.back((own, state))
        found = module(x) if net is linear else jax.vmap(module)(x)
        np.testing.assert_allclose(found, merged, atol=1e-5)
