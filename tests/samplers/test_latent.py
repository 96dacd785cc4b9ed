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
