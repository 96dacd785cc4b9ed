"""Nets from Linen modules: passing of training, what is state, loops over layers, sown values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import TapError

KEY, OTHER = jax.random.split(jax.random.key(0))
INPUTS = jax.random.normal(jax.random.key(1), (3, 4))


class Train(nn.Module):
    def __call__(self, x, train):
        return x + train


class Deterministic(nn.Module):
    def __call__(self, x, *, deterministic):
        return x + (not deterministic)


class RunningAverage(nn.Module):
    def __call__(self, x, use_running_average=None):
        return x + (not use_running_average)


@pytest.mark.parametrize("module", [Train(), Deterministic(), RunningAverage()])
def test_training_is_passed_by_the_keyword_the_module_has(module):
    net = from_linen(module)
    assert net.apply({}, {}, jnp.zeros(()), train=True).out == 1
    assert net.apply({}, {}, jnp.zeros(()), train=False).out == 0


def test_a_module_built_for_one_mode_stays_in_it():
    net = from_linen(nn.Dropout(0.5, deterministic=True))
    np.testing.assert_array_equal(net.apply({}, {}, INPUTS, train=True, rng=KEY).out, INPUTS)


def test_another_way_to_call():
    class Pair(nn.Module):
        @nn.compact
        def __call__(self, image, text, mode):
            return nn.Dense(2, name="head")(image + text) * (2.0 if mode == "fit" else 1.0)

    def call(module, inputs, train):
        return module(inputs["image"], inputs["text"], "fit" if train else "use")

    net = from_linen(Pair(), call=call)
    inputs = {"image": INPUTS, "text": INPUTS}
    params, state = net.init(KEY, inputs)
    used = net.apply(params, state, inputs, taps=("head",))
    fitted = net.apply(params, state, inputs, train=True)
    np.testing.assert_allclose(fitted.out, 2 * used.out)
    np.testing.assert_array_equal(used.taps["head"], used.out)


def test_one_key_serves_every_name():
    class Random(nn.Module):
        def __call__(self, x, train):
            return [jax.random.normal(self.make_rng(name)) for name in ("dropout", "droppath")]

    net = from_linen(Random())
    first, second = net.apply({}, {}, INPUTS, train=True, rng=KEY).out
    again, _ = net.apply({}, {}, INPUTS, train=True, rng=KEY).out
    other, _ = net.apply({}, {}, INPUTS, train=True, rng=OTHER).out
    assert first == again
    assert len({float(first), float(second), float(other)}) == 3


def test_what_is_merely_recorded_is_no_state():
    class Recorder(nn.Module):
        @nn.compact
        def __call__(self, x, train=False):
            self.sow("losses", "balance", x.sum())
            self.sow("intermediates", "seen", x)
            count = self.variable("memory", "count", jnp.zeros, ())
            if train:
                count.value += 1
            return self.perturb("bump", x)

    net = from_linen(Recorder())
    params, state = net.init(KEY, INPUTS)
    assert params == {}
    assert state.keys() == {"memory"}
    state = net.apply(params, state, INPUTS, train=True).state
    state = net.apply(params, state, INPUTS, train=True).state
    assert jax.tree.map(int, state) == {"memory": {"count": 2}}


class Decoder(nn.Module):
    @nn.compact
    def __call__(self, x):
        position = self.variable("cache", "position", jnp.zeros, (), jnp.int32)
        counted = self.variable("batch_stats", "count", jnp.zeros, ())
        if not self.is_initializing():
            position.value += 1
            counted.value += 1
        return x + position.value


def test_a_cache_moves_in_evaluation_too():
    net = from_linen(Decoder())
    params, state = net.init(KEY, INPUTS)
    after = net.apply(params, state, INPUTS).state
    assert jax.tree.map(int, after) == {"cache": {"position": 1}, "batch_stats": {"count": 0}}


def test_partitioned_parameters_are_plain_arrays():
    kernel = nn.with_partitioning(nn.initializers.ones, ("data", None))
    net = from_linen(nn.Dense(2, kernel_init=kernel))
    params, state = net.init(KEY, INPUTS)
    assert isinstance(params["kernel"], jax.Array)
    assert net.apply(params, state, INPUTS).out.shape == (3, 2)


def test_sown_values_are_tapped():
    net = from_linen(Layer())
    params, state = net.init(KEY, INPUTS)
    forward = net.apply(params, state, INPUTS, taps=("norm",))
    np.testing.assert_allclose(
        forward.taps["norm"], jnp.linalg.norm(forward.out[0], axis=-1), rtol=1e-6
    )


class Layer(nn.Module):
    @nn.compact
    def __call__(self, x, _=None):
        x = x + jnp.tanh(nn.Dense(4, name="dense")(x))
        self.sow("intermediates", "norm", jnp.linalg.norm(x, axis=-1))
        return x, None


class Scanned(nn.Module):
    kept: bool = True

    @nn.compact
    def __call__(self, x):
        axes = {"params": 0, "intermediates": 0} if self.kept else {"params": 0}
        loop = nn.scan(Layer, axes, split_rngs={"params": True}, length=3)
        return loop(name="layers")(x, None)[0]


def test_layers_of_a_loop_are_tapped_together_or_one_by_one():
    net = from_linen(Scanned())
    params, state = net.init(KEY, INPUTS)
    taps = ("layers", "layers[2]", "layers/dense", "layers/dense[1]", "layers/norm[0]")
    forward = net.apply(params, state, INPUTS, taps=taps)
    found = forward.taps
    assert found["layers/dense"].shape == (3, *INPUTS.shape)
    np.testing.assert_array_equal(found["layers/dense"][1], found["layers/dense[1]"])
    assert found["layers/norm[0]"].shape == (3,)
    # What a layer puts out is given as it is: here a pair.
    assert found["layers"][1] is None
    np.testing.assert_array_equal(found["layers"][0][2], forward.out)
    np.testing.assert_array_equal(found["layers[2]"][0], forward.out)


def test_faults_of_taps_in_loops():
    net = from_linen(Scanned())
    params, state = net.init(KEY, INPUTS)
    with pytest.raises(TapError, match="beyond the stack of layers, which is 3 deep"):
        net.apply(params, state, INPUTS, taps=("layers/dense[3]",))
    with pytest.raises(TapError, match="add 'intermediates': 0 to its variable_axes"):
        from_linen(Scanned(kept=False)).apply(params, state, INPUTS, taps=("layers/dense",))
    plain = from_linen(Layer())
    with pytest.raises(TapError, match="'dense' is a single layer"):
        plain.apply(*plain.init(KEY, INPUTS), INPUTS, taps=("dense[0]",))


def test_a_layer_called_twice_cannot_be_tapped():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, x):
            dense = nn.Dense(4, name="dense")
            return dense(dense(x))

    net = from_linen(Twice())
    with pytest.raises(TapError, match="'dense' fired 2 times"):
        net.apply(*net.init(KEY, INPUTS), INPUTS, taps=("dense",))


@pytest.mark.parametrize("lift", [nn.remat, nn.jit])
def test_taps_reach_into_lifted_layers(lift):
    class Lifted(nn.Module):
        @nn.compact
        def __call__(self, x):
            for i in range(2):
                x, _ = lift(Layer)(name=f"layer_{i}")(x)
            return x

    net = from_linen(Lifted())
    params, state = net.init(KEY, INPUTS)
    for tap in ("layer_0/dense", "layer_1/dense", "layer_0/dense"):
        assert net.apply(params, state, INPUTS, taps=(tap,)).taps[tap].shape == INPUTS.shape


class Splitting(nn.Module):
    """A loop over four layers that stops, for one tap, after the layer that is tapped."""

    stop: int | None = None

    @nn.nowrap
    def for_taps(self, taps):
        (tap,) = taps
        return self.clone(stop=int(tap.removeprefix("layer_")))

    @nn.compact
    def __call__(self, x):
        weights = self.param("weights", nn.initializers.normal(0.3), (4, 4, 4))
        if self.stop is not None:
            x = jax.lax.fori_loop(0, self.stop + 1, lambda i, x: jnp.tanh(x @ weights[i]), x)
            x = Named(name=f"layer_{self.stop}")(x)
            rest = range(self.stop + 1, 4)
        else:
            rest = range(4)
        for i in rest:
            x = jnp.tanh(x @ weights[i])
        return x


class Named(nn.Module):
    def __call__(self, x):
        return x


def test_a_module_arranges_itself_for_its_taps():
    net = from_linen(Splitting())
    params, state = net.init(KEY, INPUTS)
    plain = net.apply(params, state, INPUTS)
    tapped = net.apply(params, state, INPUTS, taps=("layer_1",))
    np.testing.assert_allclose(tapped.out, plain.out, rtol=1e-6)
    expected = jnp.tanh(jnp.tanh(INPUTS @ params["weights"][0]) @ params["weights"][1])
    np.testing.assert_allclose(tapped.taps["layer_1"], expected, rtol=1e-6)
