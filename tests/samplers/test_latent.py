"""Students that learn guidance, or a consistency function, as adapters on their teacher."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import config_files, lora, models, recipe, samplers
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net
from jaxdistill.samplers import agreement

RING = samplers.ring(classes=2)


def exact(frozen):
    return lambda x, sigma, label=None: samplers.denoise(RING, x, sigma, label)


def rows(count=64):
    points, chosen = samplers.draw(jax.random.key(5), RING, count)
    return [{"image": np.asarray(points), "label": np.asarray(RING.labels[chosen])}]


def saying(function):
    return Net(
        lambda key, inputs: ({}, {}),
        lambda params, state, inputs, **_: Forward(function(inputs), {}, state, params),
    )


def guided(inputs, scale):
    return samplers.guided_denoise(RING, inputs["image"], inputs["sigma"], inputs["label"], scale)


def plain(inputs):
    return samplers.denoise(RING, inputs["image"], inputs["sigma"], inputs["label"])


@pytest.mark.parametrize(
    ("student", "left"),
    [
        (lambda inputs: guided(inputs, inputs["guidance"]), 0.0),
        (plain, 1.0),
        # Half of the way: a quarter of the squares.
        (lambda inputs: (guided(inputs, inputs["guidance"]) + plain(inputs)) / 2, 0.25),
    ],
)
def test_which_share_of_guidance_a_pass_does_not_give(student, left):
    evaluator = agreement.guidance_left(saying(student), exact, scales=(1.0, 5.0))
    found = evaluator(({}, {}), {}, rows())
    assert found["guidance_left"] == pytest.approx(left, abs=1e-6)
    # Examples that pad a batch do not count.
    (batch,) = rows()
    padded = {name: np.concatenate([x, x[:8] + 1]) for name, x in batch.items()}
    padded["where"] = np.arange(72) < 64
    other = evaluator(({}, {}), {}, [padded])
    assert other["guidance_left"] == pytest.approx(left, abs=1e-6)


@pytest.mark.parametrize("scales", [(3.0, 1.0), (1.0, 1.0)])
def test_scales_without_guidance_are_refused(scales):
    with pytest.raises(ValueError, match="must rise, and not both be 1"):
        agreement.guidance_left(saying(plain), exact, scales=scales)


def test_a_student_of_adapters_starts_as_its_teacher_at_every_scale():
    net = samplers.denoiser(from_linen(models.TimeMLP(width=8, depth=1, classes=2, guidance=True)))
    (batch,) = rows(16)
    data = jax.tree.map(jnp.asarray, batch)
    teaching = samplers.denoising(net, optax.adam(1e-2), exact, labels=True)
    state = jax.jit(teaching.init)(jax.random.key(0), {}, data)
    for _ in range(3):
        state, _ = jax.jit(teaching.step)(state, {}, data)
    frozen = {"teacher": teaching.result(state)}
    weights = frozen["teacher"][0]
    assert weights["given"]["time"]["kernel"].any()
    assert not weights["given"]["guidance"]["kernel"].any()

    student = lora.adapted(net, "teacher", at=("block", "given"), rank=2)(frozen)
    distiller = samplers.denoising(
        student,
        optax.adam(1e-2),
        samplers.teacher_net(net, "teacher"),
        labels=True,
        scales=(1.0, 5.0),
    )
    state = jax.jit(distiller.init)(jax.random.key(1), frozen, data)
    left = agreement.guidance_left(student, samplers.teacher_net(net, "teacher"), scales=(1.0, 5.0))
    assert left(distiller.result(state), frozen, [batch])["guidance_left"] == 1.0
    step = jax.jit(distiller.step)
    for _ in range(30):
        state, _ = step(state, frozen, data)
    assert left(distiller.result(state), frozen, [batch])["guidance_left"] < 0.9
    # The scale is listened to.
    x, ones = data["image"], jnp.ones(16)
    inputs = {"image": x, "sigma": 0.3 * ones, "label": data["label"]}
    answers = [
        student.apply(*distiller.result(state), {**inputs, "guidance": scale * ones}).out
        for scale in (1.0, 5.0)
    ]
    assert (answers[0] != answers[1]).any()


@pytest.mark.parametrize("variant", ["mixture", "small"])
def test_a_tenth_of_the_numbers_is_trained_at_most(variant):
    with jax.enable_x64(False):
        traced = recipe.plan(config_files.load(f"lora_guidance:{variant}")).traced["student"]
    whole = traced.result[0]
    base = sum(leaf.size for leaf in jax.tree.leaves(whole["base"]["teacher"]))
    assert lora.numbers(whole["own"]) <= 0.1 * base


def sprint(constant, labels=False, rate=0.0, **adversary):
    """SANA-Sprint of a net that says one number, judged by the first coordinate itself."""
    net = Net(
        lambda key, inputs: ({"said": jnp.asarray(constant)}, {}),
        lambda params, state, inputs, **_: Forward(
            params["said"] * jnp.ones_like(inputs["image"]), {}, state, params
        ),
    )
    head = Net(
        lambda key, feature: ({"scale": jnp.ones(())}, {}),
        lambda params, state, feature, **_: Forward(
            params["scale"] * feature[:, :1], {}, state, params
        ),
    )
    adversary = samplers.Adversary(taps=("x",), mean=-30.0, std=0.1, pure=1.0, **adversary)
    return samplers.latent_adversarial(
        net,
        optax.sgd(rate),
        optax.sgd(1e-2),
        exact,
        lambda frozen: lambda x, sigma, label=None: (x,),
        head,
        labels=labels,
        adversary=adversary,
    )


@pytest.mark.parametrize(("labels", "misaligned"), [(False, True), (True, False), (True, True)])
def test_what_student_and_heads_pay(labels, misaligned):
    data = jax.tree.map(jnp.asarray, rows(256)[0])
    distiller = sprint(0.6, labels, misaligned=misaligned)
    state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
    after, metrics = jax.jit(distiller.step)(state, {}, data)
    found = {name: float(total / count) for name, (total, count) in metrics.items()}
    # From pure noise the sample is half of what the net says, sigma_data being 0.5.
    sample, real = 0.3, data["image"][:, 0]
    assert found["generator"] == pytest.approx(-sample, abs=2e-3)
    paid = (jax.nn.relu(1 - real).mean() + 1 + sample) / 2
    if labels and misaligned:
        other = (jax.nn.relu(1 - real).mean() + jax.nn.relu(1 + real).mean()) / 2
        paid = (paid + other) / 2
    assert found["critic"] == pytest.approx(float(paid), abs=2e-3)
    # The student's own update left the heads alone, and theirs left the student.
    assert float(after.params["net"]["said"]) == 0.6
    assert float(after.params["heads"]["x"]["scale"]) != 1.0


def test_the_adversary_pulls_the_student():
    """Along what the head reads: half of its weight a coordinate, as the sample is half of what the
    net says."""
    data = jax.tree.map(jnp.asarray, rows(64)[0])
    said = []
    for weight in (0.0, 1.0):
        distiller = sprint(0.6, weight=weight, rate=1.0)
        state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
        moved, _ = jax.jit(distiller.step)(state, {}, data)
        said.append(float(moved.params["net"]["said"]))
    assert said[1] - said[0] == pytest.approx(0.5, abs=2e-3)


def test_the_right_consistency_function_of_a_guided_flow_has_no_loss():
    """One Gaussian, whose guided flow is its flow: what is left is the error of DDIM's step."""
    one = samplers.mixture([1.0], np.zeros((1, 2)), [0.25])

    def teacher(frozen):
        return lambda x, sigma, label=None: samplers.denoise(one, x, sigma)

    def answer(inputs):
        sigma = inputs["sigma"][:, None]
        return inputs["image"] * jnp.sqrt((0.25 + 0.002**2) / (0.25 + sigma**2))

    net = Net(
        lambda key, inputs: ({"a": jnp.zeros(())}, {}),
        lambda params, state, inputs, **_: Forward(
            answer(inputs) + 0 * params["a"], {}, state, params
        ),
    )
    data = jax.tree.map(jnp.asarray, rows(256)[0])
    losses = []
    for points in (20, 80, 320):
        distiller = samplers.latent_consistency(
            net, optax.sgd(0.1), teacher, scales=(1.0, 5.0), points=points, c=1e-9
        )
        state = jax.jit(distiller.init)(jax.random.key(0), {}, data)
        _, metrics = jax.jit(distiller.step)(state, {}, data)
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    # A step of first order is off by its square: four times the points, a sixteenth of the error.
    assert losses[1] / losses[0] == pytest.approx(1 / 16, abs=0.04)
    assert losses[2] / losses[1] == pytest.approx(1 / 16, abs=0.02)


def test_every_number_is_as_far_off_by_itself():
    x, y = jnp.array([[3.0, 0.0], [0.0, -5.0]]), jnp.zeros((2, 2))
    np.testing.assert_allclose(samplers.smooth_absolute(x, y), [1.5, 2.5], atol=1e-3)
    np.testing.assert_array_equal(samplers.smooth_absolute(x, x), [0.0, 0.0])
    # Within c it is a square.
    small = samplers.smooth_absolute(jnp.array([[1e-3]]), jnp.zeros((1, 1)), c=1.0)
    np.testing.assert_allclose(small, [5e-7], rtol=1e-5)
