"""What every net promises, whatever it was made from."""

import subprocess
import sys

import chex
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import nnx

from jaxdistill.frameworks.equinox import from_equinox
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.frameworks.nnx import from_nnx
from jaxdistill.net import Net, TapError, from_function

WIDTH, BLOCKS = 8, 2


class LinenBlock(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        hidden = nn.BatchNorm(not train, momentum=0.9)(nn.Dense(WIDTH, name="dense")(x))
        return x + nn.Dropout(0.5, deterministic=not train)(hidden)


class LinenModel(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for i in range(BLOCKS):
            x = LinenBlock(name=f"block_{i}")(x, train)
        return nn.Dense(3, name="head")(x)


class NNXBlock(nnx.Module):
    def __init__(self, rngs):
        self.dense = nnx.Linear(WIDTH, WIDTH, rngs=rngs)
        self.norm = nnx.BatchNorm(WIDTH, momentum=0.9, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x):
        return x + self.dropout(self.norm(self.dense(x)))


class NNXModel(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([NNXBlock(rngs) for _ in range(BLOCKS)])
        self.head = nnx.Linear(WIDTH, 3, rngs=rngs)

    def __call__(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class EquinoxBlock(eqx.Module):
    dense: eqx.nn.Linear
    norm: eqx.nn.BatchNorm
    dropout: eqx.nn.Dropout

    def __init__(self, key):
        self.dense = eqx.nn.Linear(WIDTH, WIDTH, key=key)
        self.norm = eqx.nn.BatchNorm(WIDTH, "batch", mode="batch", momentum=0.9)
        self.dropout = eqx.nn.Dropout(0.5)

    def __call__(self, x, state, *, key=None):
        hidden, state = self.norm(self.dense(x), state)
        return x + self.dropout(hidden, key=key), state


class EquinoxModel(eqx.Module):
    blocks: list
    head: eqx.nn.Linear

    def __init__(self, key):
        *keys, last = jax.random.split(key, BLOCKS + 1)
        self.blocks = [EquinoxBlock(key) for key in keys]
        self.head = eqx.nn.Linear(WIDTH, 3, key=last)

    def __call__(self, x, state, *, key=None):
        for i, block in enumerate(self.blocks):
            x, state = block(x, state, key=None if key is None else jax.random.fold_in(key, i))
        return self.head(x), state


def function_init(key, inputs):
    keys = jax.random.split(key, BLOCKS + 1)
    shape = (inputs.shape[-1], WIDTH)
    params = {f"block_{i}": jax.random.normal(keys[i], shape) / 3 for i in range(BLOCKS)}
    params["head"] = jax.random.normal(keys[-1], (WIDTH, 3))
    return params, {f"block_{i}": jnp.zeros(WIDTH) for i in range(BLOCKS)}


def function_apply(params, state, inputs, *, train, rng):
    x, features, moved = inputs, {}, {}
    for i in range(BLOCKS):
        name = f"block_{i}"
        hidden = x @ params[name]
        mean = hidden.mean(0) if train else state[name]
        moved[name] = 0.9 * state[name] + 0.1 * mean if train else state[name]
        if train:
            hidden *= 2 * jax.random.bernoulli(jax.random.fold_in(rng, i), 0.5, hidden.shape)
        x = features[name] = x + jnp.tanh(hidden - mean[None])
    return x @ params["head"], features, moved


KINDS = {
    "linen": (lambda: from_linen(LinenModel()), "block_{}"),
    "nnx": (lambda: from_nnx(NNXModel), "blocks/{}"),
    "equinox": (lambda: from_equinox(EquinoxModel), "blocks/{}"),
    "function": (lambda: from_function(function_init, function_apply), "block_{}"),
}
INPUTS = jax.random.normal(jax.random.key(7), (6, WIDTH))
KEY, OTHER = jax.random.split(jax.random.key(0))


@pytest.fixture(params=KINDS, scope="module")
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def net(kind) -> Net:
    return KINDS[kind][0]()


@pytest.fixture(scope="module")
def variables(net):
    return jax.jit(net.init)(KEY, INPUTS)


@pytest.fixture(scope="module")
def tap(kind):
    return KINDS[kind][1].format


def only_strings_and_arrays(tree):
    if isinstance(tree, dict):
        return all(isinstance(k, str) and only_strings_and_arrays(v) for k, v in tree.items())
    return isinstance(tree, jax.Array)


def test_variables_are_nested_dicts_of_arrays_with_string_keys(variables):
    params, state = variables
    assert params
    assert state
    assert only_strings_and_arrays(params)
    assert only_strings_and_arrays(state)


def test_statistics_move_in_training_alone_and_keep_their_structure(net, variables):
    params, state = variables
    still = net.apply(params, state, INPUTS)
    chex.assert_trees_all_equal(still.state, state)
    chex.assert_trees_all_equal(still.params, params)
    moved = net.apply(params, state, INPUTS, train=True, rng=KEY).state
    chex.assert_trees_all_equal_shapes_and_dtypes(moved, state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(moved), strict=True):
        assert (before != after).any()
    again = net.apply(params, moved, INPUTS, train=True, rng=KEY).state
    chex.assert_trees_all_equal_shapes_and_dtypes(again, state)


def test_dropout_follows_the_key(net, variables):
    def run(rng):
        return net.apply(*variables, INPUTS, train=True, rng=rng).out

    np.testing.assert_array_equal(run(KEY), run(KEY))
    assert (run(KEY) != run(OTHER)).any()


def test_nothing_is_dropped_in_evaluation(net, variables):
    out = net.apply(*variables, INPUTS).out
    np.testing.assert_array_equal(out, net.apply(*variables, INPUTS, rng=KEY).out)


def test_taps_hold_what_was_asked_for(net, variables, tap):
    forward = net.apply(*variables, INPUTS, taps=[tap(0), tap(1), tap(0)])
    assert set(forward.taps) == {tap(0), tap(1)}
    assert forward.taps[tap(1)].shape == (6, WIDTH)
    np.testing.assert_array_equal(forward.out, net.apply(*variables, INPUTS).out)


def test_unknown_tap_names_the_nearest(net, variables, tap):
    with pytest.raises(TapError, match=f"did you mean '{tap(1)}'"):
        net.apply(*variables, INPUTS, taps=["x" + tap(1)])


def test_a_lone_string_is_no_list_of_taps(net, variables, tap):
    with pytest.raises(TypeError, match="sequence of paths"):
        net.apply(*variables, INPUTS, taps=tap(1))


def test_a_tap_at_mid_depth_runs_half_the_net(net, variables, tap):
    def flops(read):
        lowered = jax.jit(lambda p, s, x: read(p, s, x)).lower(*variables, INPUTS)
        return lowered.compile().cost_analysis()["flops"]

    whole = flops(lambda p, s, x: net.apply(p, s, x, taps=(tap(BLOCKS - 1),)).taps)
    half = flops(lambda p, s, x: net.apply(p, s, x, taps=(tap(BLOCKS // 2 - 1),)).taps)
    plain = flops(lambda p, s, x: net.apply(p, s, x).out)
    tapped = flops(lambda p, s, x: net.apply(p, s, x, taps=(tap(0),)).out)
    assert half == pytest.approx(whole / 2, rel=0.1)
    assert tapped == plain


def loss(net, variables, tap):
    def of(params):
        forward = net.apply(params, variables[1], INPUTS, taps=(tap,), train=True, rng=KEY)
        return (forward.out**2).sum() + forward.taps[tap].sum(), forward.state

    return of


def test_transformations_agree(net, variables, tap):
    of = loss(net, variables, tap(0))
    params = variables[0]
    (value, state), grads = jax.jit(jax.value_and_grad(of, has_aux=True))(params)
    chex.assert_trees_all_close((value, state), of(params), rtol=1e-5, atol=1e-6)
    ones = jax.tree.map(jnp.ones_like, params)
    slope = jax.jit(lambda p: jax.jvp(of, (p,), (ones,), has_aux=True)[1])(params)
    total = sum(jax.tree.leaves(jax.tree.map(jnp.sum, grads)))
    np.testing.assert_allclose(slope, total, rtol=1e-4)
    again = jax.jit(jax.grad(jax.checkpoint(of), has_aux=True))(params)[0]
    chex.assert_trees_all_close(again, grads, rtol=1e-4, atol=1e-5)


def test_seeds_are_vmapped(net, tap):
    keys = jax.random.split(KEY, 2)

    def run(key):
        params, state = net.init(key, INPUTS)
        return net.apply(params, state, INPUTS, taps=(tap(1),), train=True, rng=key)

    together = jax.jit(jax.vmap(run))(keys)
    last = jax.tree.map(lambda x: x[-1], together)
    chex.assert_trees_all_close(last, jax.jit(run)(keys[-1]), rtol=1e-4, atol=1e-5)


def test_shapes_without_values(kind, net, variables, tap):
    shapes = jax.eval_shape(net.init, KEY, INPUTS)
    chex.assert_trees_all_equal_shapes_and_dtypes(shapes, variables)
    # A net whose `init` never ran, as in a process that restores a checkpoint, applied for the
    # first time in a trace.
    fresh = KINDS[kind][0]()
    apply = jax.jit(fresh.apply, static_argnames=("taps", "train"))
    traced = apply(*variables, INPUTS, taps=(tap(0),), train=True, rng=KEY)
    eager = net.apply(*variables, INPUTS, taps=(tap(0),), train=True, rng=KEY)
    chex.assert_trees_all_close(traced, eager, rtol=1e-4, atol=1e-5)


def widen(x):
    return x.astype(jnp.float64) if jnp.issubdtype(x.dtype, jnp.inexact) else x


def test_float64_is_kept():
    with jax.enable_x64(True):
        inputs = jnp.ones((2, WIDTH), jnp.float64)
        for make, tap in KINDS.values():
            net, first = make(), tap.format(0)

            def run(key, net=net, first=first):
                variables = jax.tree.map(widen, net.init(key, inputs))
                return net.apply(*variables, inputs, taps=(first,), train=True, rng=key)

            forward = jax.eval_shape(run, jax.random.key(0))
            assert forward.out.dtype == forward.taps[first].dtype == jnp.float64


def test_importing_nets_loads_no_framework():
    code = "import sys, jaxdistill.net; print({'flax', 'equinox'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_without_equinox_the_extra_is_named():
    code = (
        "import sys; sys.modules['equinox'] = None\n"
        "try: from jaxdistill import from_equinox\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'jaxdistill[equinox]'" in done.stdout
