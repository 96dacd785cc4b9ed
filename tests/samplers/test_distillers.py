"""Distillers of samplers: right answers stay, a step is one program, what is frozen stays."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import models, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net
from jaxdistill.samplers import quality
from jaxdistill.settings import fault, keys

RING = samplers.ring(classes=2)
ADAM = optax.adam(1e-3)


def exact(frozen):
    return lambda x, sigma, label=None: samplers.denoise(RING, x, sigma, label)


def mlp(**settings):
    return from_linen(models.TimeMLP(width=8, depth=1, **settings))


def batch(count=8, takes=0):
    points, chosen = samplers.draw(jax.random.key(5), RING, max(takes, 1) * count)
    found = {"image": points.astype(jnp.float32), "label": RING.labels[chosen]}
    return jax.tree.map(lambda x: x.reshape(takes, count, *x.shape[1:]), found) if takes else found


def consistency(**settings):
    net = samplers.denoiser(mlp(), sigma_min=0.002)
    return samplers.consistency_training(net, ADAM, **{"steps": 40, "last": 40, **settings})


def continuous(**settings):
    net = mlp(classes=2 if settings.get("labels") else 0, guidance="scales" in settings)
    return samplers.continuous_consistency(net, ADAM, **{"teacher": exact, "warmup": 2, **settings})


def matching(**settings):
    net = samplers.denoiser(mlp(classes=2 if settings.get("labels") else 0))
    return samplers.distribution_matching(net, net, ADAM, ADAM, exact, **{"ratio": 2, **settings})


def paired(**settings):
    labels = settings.get("labels", False)
    making = samplers.flow_pairs(exact, 2, 2, labels=labels, in_steps=3)
    state = jax.jit(making.init)(jax.random.key(3), {}, batch())
    for _ in range(2):
        state, _ = jax.jit(making.step)(state, {}, batch())
    net = samplers.denoiser(mlp(classes=2 if labels else 0))
    loss = samplers.pair_loss(net, "pairs")

    def pairs(nets, frozen, key, count):
        return loss(nets, {"pairs": making.result(state)}, key, count)

    return matching(pairs=pairs, classes=2 if labels else 0, ratio=1, **settings)


def taught(**settings):
    net = samplers.denoiser(
        mlp(classes=2 if settings.get("labels") else 0, guidance="scales" in settings)
    )
    return samplers.denoising(net, ADAM, **settings)


def latent(**settings):
    net = samplers.denoiser(mlp(classes=2, guidance=True), sigma_min=0.002)
    return samplers.latent_consistency(
        net, ADAM, **{"teacher": exact, "scales": (1.0, 5.0), **settings}
    )


def sprint(**settings):
    labels = settings.get("labels", False)
    net = mlp(classes=2 if labels else 0, guidance="scales" in settings)
    trunk = samplers.denoiser(mlp(classes=2 if labels else 0), time="flow")
    inputs = {"image": jnp.ones((1, 2), jnp.float32), "sigma": jnp.ones(1, jnp.float32)}
    frozen = {"teacher": trunk.init(jax.random.key(9), inputs)}
    adversary = samplers.Adversary(taps=("block_0", "bottleneck"))
    features = samplers.features_of(trunk, "teacher", adversary.taps)
    return samplers.latent_adversarial(
        samplers.as_trigflow(net), ADAM, ADAM, exact, lambda _: features(frozen), HEAD,
        **{"consistency": samplers.Consistency(warmup=2), "adversary": adversary, **settings},
    )  # fmt: skip


HEAD = from_linen(models.CriticHead())
CASES = {
    "iCT": (consistency, {}),
    "iCT, averaged": (consistency, {"ema": 0.9}),
    "distilled consistency, averaged target": (
        consistency,
        {"teacher": exact, "target": "ema", "ema": 0.9, "first": 18, "last": 18},
    ),
    "sCM": (continuous, {}),
    "sCM from data": (continuous, {"teacher": None, "weighting": "tangent", "ema": 0.9}),
    "sCM without weights": (continuous, {"weighting": "none"}),
    "DMD": (matching, {}),
    "DMD2": (matching, {"head": HEAD, "labels": True, "classes": 2, "ema": 0.9}),
    "DMD2 in steps": (matching, {"levels": (80.0, 5.0, 1.0)}),
    "DMD with pairs": (paired, {}),
    "DMD with pairs, labels": (paired, {"labels": True, "ema": 0.9}),
    "SiD": (matching, {"matching": "identity", "levels": (2.5,)}),
    "sCM, guided": (continuous, {"labels": True, "scales": (1.0, 3.0)}),
    "SANA-Sprint": (sprint, {"ema": 0.9}),
    "SANA-Sprint, guided": (sprint, {"labels": True, "scales": (1.0, 3.0)}),
    "LCM": (latent, {"ema": 0.9}),
    "EDM": (taught, {"labels": True, "ema": 0.9}),
    "guidance": (taught, {"teacher": exact, "labels": True, "scales": (0.0, 4.0)}),
}


@pytest.mark.parametrize("case", CASES)
def test_steps_are_one_program_and_move_what_is_trained(case):
    make, settings = CASES[case]
    distiller = make(**settings)
    data = batch(takes=distiller.takes if distiller.takes > 1 else 0)
    state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
    before, traces = state, []

    @jax.jit
    def step(state):
        traces.append(1)
        return distiller.step(state, {}, data)

    for _ in range(3):
        state, metrics = step(state)
    assert len(traces) == 1
    assert int(state.step) == 3
    assert all(jnp.isfinite(total / count) for total, count in metrics.values())
    for name, params in state.params.items():
        moved = jax.tree.map(lambda a, b: (a != b).any(), params, before.params[name])
        assert any(jax.tree.leaves(moved)), name
    params, _ = distiller.result(state)
    ours = state.ema["net"][0] if state.ema else state.params["net"]
    jax.tree.map(np.testing.assert_array_equal, params, ours)
    # The shapes and types of a state never change.
    jax.tree.map(lambda a, b: a.dtype == b.dtype or pytest.fail(f"{a} {b}"), state, before)


def known(apply):
    """A denoiser without anything to learn but one number that is not used."""

    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(apply(inputs) + 0 * params["a"], {}, state, params)

    return Net(lambda key, inputs: ({"a": jnp.zeros(())}, {}), run)


def test_the_right_consistency_function_has_no_loss():
    one = samplers.mixture([1.0], np.zeros((1, 2)), [0.25])

    def teacher(frozen):
        return lambda x, sigma, label=None: samplers.denoise(one, x, sigma)

    def answer(inputs):  # the flow of a Gaussian to the least level
        sigma = inputs["sigma"][:, None]
        return inputs["image"] * jnp.sqrt((0.25 + 0.002**2) / (0.25 + sigma**2))

    losses = []
    for intervals in (20, 80):
        distiller = samplers.consistency_training(
            known(answer), ADAM, steps=10, teacher=teacher, first=intervals, last=intervals
        )
        state = jax.jit(distiller.init)(jax.random.key(0), {}, batch(64))
        _, metrics = jax.jit(distiller.step)(state, {}, batch(64))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    # What is left is the error of one step of Heun's method, of third order.
    assert losses[1] < 0.1 * losses[0]


def test_the_two_sides_of_a_pair_share_noise_and_dropout():
    seen = []

    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        told = jnp.zeros(2) if rng is None else jax.random.uniform(rng, 2)
        jax.debug.callback(lambda *x: seen.append(x), inputs["image"], inputs["sigma"], told)
        return Forward(inputs["image"] * params["a"], {}, state, params)

    net = Net(lambda key, inputs: ({"a": jnp.ones(())}, {}), run)
    distiller = samplers.consistency_training(net, ADAM, steps=10, last=20)
    data = batch()
    state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
    jax.effects_barrier()
    seen.clear()
    jax.jit(distiller.step)(state, {}, data)
    jax.effects_barrier()
    (x, sigma, rng), (y, other, again) = sorted(seen[:2], key=lambda each: -each[1].sum())
    assert (np.asarray(sigma) > np.asarray(other)).all()
    noise = [(np.asarray(p) - data["image"]) / s[:, None] for p, s in ((x, sigma), (y, other))]
    np.testing.assert_allclose(*noise, rtol=0.02, atol=0.02)
    np.testing.assert_array_equal(rng, again)


def test_a_generator_that_matches_is_left_alone():
    """Where the estimate says what the teacher says, nothing moves the generator."""
    net = samplers.denoiser(mlp())
    same = known(lambda inputs: samplers.denoise(RING, inputs["image"], inputs["sigma"]))
    distiller = samplers.distribution_matching(
        net, same, optax.sgd(1.0), optax.sgd(0.0), exact, ratio=1
    )
    state = jax.jit(distiller.init)(jax.random.key(0), {}, batch())
    after, metrics = jax.jit(distiller.step)(state, {}, batch())
    np.testing.assert_allclose(metrics["gradient"][0], 0, atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6),
        after.params["net"],
        state.params["net"],
    )


def test_the_spread_of_samples_is_measured():
    """That of a generator which says one thing alone is 0, that of one which says its noise 80."""
    for apply, spread in ((jnp.zeros_like, 0.0), (lambda x: x, 80.0)):
        net = known(lambda inputs, apply=apply: apply(inputs["image"]))
        distiller = samplers.distribution_matching(
            net, samplers.denoiser(mlp()), ADAM, ADAM, exact, ratio=1
        )
        state = jax.jit(distiller.init)(jax.random.key(0), {}, batch(512))
        _, metrics = jax.jit(distiller.step)(state, {}, batch(512))
        total, count = metrics["spread"]
        np.testing.assert_allclose(total / count, spread, rtol=0.1)


def test_a_teacher_that_is_a_net_is_read_and_not_moved():
    net = samplers.denoiser(mlp())
    inputs = {"image": jnp.ones((1, 2), jnp.float32), "sigma": jnp.ones(1, jnp.float32)}
    frozen = {"teacher": net.init(jax.random.key(7), inputs)}
    teacher = samplers.teacher_net(net, "teacher")
    distiller = samplers.distribution_matching(
        net, net, ADAM, ADAM, teacher, ratio=1, initial="teacher"
    )
    state = jax.jit(distiller.init)(jax.random.key(0), frozen, batch())
    for part in ("net", "fake"):
        jax.tree.map(np.testing.assert_array_equal, state.params[part], frozen["teacher"][0])
    slope = jax.jit(
        jax.grad(lambda frozen: distiller.step(state, frozen, batch())[1]["gradient"][0])
    )(frozen)
    assert not any(leaf.any() for leaf in jax.tree.leaves(slope))
    with pytest.raises(ValueError, match="'teacher'"):
        samplers.teacher_net(net, "techer")(frozen)


def test_a_batch_of_one():
    distiller = matching(head=HEAD)
    data = batch(1, takes=2)
    state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
    _, metrics = jax.jit(distiller.step)(state, {}, data)
    assert all(jnp.isfinite(total) for total, _ in metrics.values())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: consistency(target="averge"), "'ema'"),
        (lambda: consistency(target="ema"), "give ema"),
        (lambda: consistency(first=50), "grid grows"),
        (lambda: continuous(weighting="lerned"), "'learned'"),
        (lambda: continuous(scales=(2.0,)), "need a teacher, and labels"),
        (lambda: samplers.features_of(mlp(), "teacher", ()), "at least one feature"),
        (lambda: samplers.denoiser(mlp(), time="flow", sigma_min=0.002), "has no boundary"),
        (lambda: matching(matching="identty"), "'identity'"),
        (lambda: matching(ratio=0), "ratio"),
        (lambda: matching(levels=(1.0, 80.0)), "must fall"),
        (lambda: paired(levels=(80.0, 1.0)), "pairs are learnt in one step"),
        (lambda: samplers.flow_pairs(exact, 2, labels=True), "number of classes"),
        (lambda: samplers.flow_pairs(exact, 2, scale=2.0), "guidance needs labels"),
        (lambda: samplers.flow_pairs(exact, 2, solver="hoin"), "'heun'"),
        (lambda: samplers.flow_pairs(exact, 2, low=90.0), "high=80.0 above it"),
        (lambda: latent(teacher=None), "needs a teacher"),
        (lambda: latent(scales=(5.0, 1.0)), "lower one first"),
        (lambda: latent(low=80.0), "high=80.0 above it"),
        (lambda: matching(labels=True), "number of classes"),
        (lambda: matching(noise=samplers.Noise(low=2.0, high=1.0)), "high=1.0 above it"),
        (lambda: matching(noise=samplers.Noise(within=(0.5, 0.1))), "must rise"),
        (lambda: consistency(low=80.0), "low=80.0 must be above 0"),
        (lambda: taught(scales=(1.0, 2.0)), "need a teacher"),
        (lambda: taught(teacher=exact, labels=True, scales=(2.0, 1.0)), "lower one first"),
        (lambda: samplers.denoiser(mlp(), sigma_min=90.0), "below sigma_max=80.0"),
        (lambda: samplers.ring(modes=2, classes=3), "classes=3 share out 2 modes"),
        (lambda: samplers.variance_exploding(low=1.0, high=0.1), "high=0.1 above it"),
    ],
)
def test_refusals(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_net_with_statistics_is_refused():
    net = Net(lambda key, inputs: ({}, {"mean": jnp.ones(())}), lambda *_, **__: None)
    with pytest.raises(ValueError, match="no statistics"):
        samplers.denoising(net, ADAM).init(jax.random.key(0), {}, batch())


CONFIGURED = [
    *(samplers.denoising, samplers.consistency_training, samplers.continuous_consistency),
    *(
        samplers.distribution_matching,
        samplers.latent_adversarial,
        samplers.denoiser,
        samplers.ring,
        samplers.ddim,
    ),
    *(
        samplers.flow_pairs,
        samplers.latent_consistency,
        quality.sampler,
        quality.density_quality,
        quality.image_quality,
    ),
    *(samplers.degradation, samplers.backtracking, samplers.path_quality),
    *samplers.PATHS.values(),
]


@pytest.mark.parametrize("function", CONFIGURED, ids=lambda each: each.__name__)
def test_settings_have_domains_and_defaults_that_lie_in_them(function):
    for key, parameter in keys(function).items():
        assert fault(jnp.zeros(()), parameter.annotation) is not None, key
        if parameter.default is not parameter.empty:
            assert fault(parameter.default, parameter.annotation) is None, key


@jax.custom_vjp
def kernel(x):
    return x


kernel.defvjp(lambda x: (x, None), lambda _, slope: (slope,))


@pytest.mark.parametrize("function", [lambda x: kernel(x), lambda x: jax.jit(kernel)(x)])
def test_a_net_without_a_forward_mode_derivative_is_refused_in_a_sentence(function):
    def run(params, state, inputs, *, taps=(), train=False, rng=None):
        return Forward(function(inputs["image"]) * params["a"], {}, state, params)

    net = Net(lambda key, inputs: ({"a": jnp.ones(())}, {}), run)
    distiller = samplers.continuous_consistency(net, ADAM, exact)
    state = jax.eval_shape(distiller.init, jax.random.key(0), {}, batch())
    with pytest.raises(ValueError, match="differentiated in forward mode"):
        jax.eval_shape(distiller.step, state, {}, batch())
    x, ones = jnp.ones((8, 2)), jnp.ones(8)
    with pytest.raises(ValueError, match="differentiated in forward mode"):
        samplers.mean_velocity_target(lambda x, t, width: function(x), x, ones, ones, x)
