"""Targets give what their formulas say, and refuse what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses, targets
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import MLP
from jaxdistill.store import CODECS

KEY = jax.random.key(0)
A, B = (3 * jax.random.normal(k, (5, 4)) for k in jax.random.split(KEY))


def given(logits):
    return lambda sources, batch, key, step: {"out": logits}


def ask(function, batch=None, sources=None):
    return function(sources or {}, batch or {}, KEY, 0)


def test_an_ensemble_averages_probabilities_or_logits():
    members = {"a": given(A), "b": given(B)}
    weights = {"b": 1.0, "a": 3.0}
    found = ask(targets.ensemble(members, weights=weights))
    expected = 0.75 * jax.nn.softmax(A) + 0.25 * jax.nn.softmax(B)
    np.testing.assert_allclose(jnp.exp(found["out"]), expected, rtol=1e-5)
    np.testing.assert_array_equal(found["b/out"], B)
    mean = ask(targets.ensemble(members, average="logits"))["out"]
    np.testing.assert_allclose(mean, (A + B) / 2, rtol=1e-5, atol=1e-6)


def test_the_mean_of_teachers_teaches_as_all_of_them():
    """To a student KL to the mean of probabilities and the mean of KLs differ by a constant."""
    student = jnp.asarray(np.random.default_rng(5).normal(size=A.shape).astype(np.float32))
    mean = ask(targets.ensemble({"a": given(A), "b": given(B)}))["out"]
    ours = jax.grad(lambda s: losses.hinton_kd(s, mean).sum())(student)
    each = [jax.grad(lambda s, t=t: losses.hinton_kd(s, t).sum())(student) for t in (A, B)]
    np.testing.assert_allclose(ours, (each[0] + each[1]) / 2, atol=1e-6)


@pytest.mark.parametrize("average", ["probabilities", "logits"])
def test_every_sample_may_weigh_the_teachers_in_its_own_way(average):
    members = {"a": given(A), "b": given(B)}
    shares = np.array([[1, 0], [0, 2], [1, 1], [3, 1], [0.5, 0.5]], np.float32)
    own = targets.ensemble(members, weights="trust", average=average)
    found = ask(own, {"trust": jnp.asarray(shares)})["out"]
    for row, (a, b) in enumerate(shares / shares.sum(1, keepdims=True)):
        fixed = targets.ensemble(members, weights={"a": a, "b": b}, average=average)
        np.testing.assert_allclose(found[row], ask(fixed)["out"][row], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: targets.ensemble({}), "at least one member"),
        (lambda: targets.ensemble({"a": given(A)}, average="logit"), "did you mean 'logits'"),
        (lambda: targets.ensemble({"a": given(A)}, weights={"b": 1.0}), "weights are given for"),
        (
            lambda: targets.ensemble({"a": given(A)}, weights={"a": -1.0}),
            "number, 0 or more|0 or more",
        ),
        (lambda: targets.ensemble({"a": given(A)}, weights={"a": float("nan")}), "a=nan"),
        (lambda: targets.ensemble({"a": given(A)}, weights={"a": 0.0}), "not all be zero"),
        (lambda: targets.snapshot_every(2.5), "steps=2.5 must be a whole number"),
        (lambda: ask(targets.ensemble({"a": given(A)}, weights="trust")), "'trust'"),
        (lambda: ask(targets.ensemble({"a": given(A), "b": given(B[:, 1:])})), "different vocabul"),
        (
            lambda: ask(targets.ensemble({"a": given(A)}, weights="w"), {"w": jnp.ones((5, 2))}),
            r"a weight for each of 1 members, \[B, 1\], got \(5, 2\)",
        ),
        (lambda: targets.live(from_linen(MLP()), mode="evaluation"), "did you mean 'eval'"),
        (lambda: targets.cached({}, "teacher"), "stored output 'teacher/out'"),
        (lambda: targets.snapshot_every(0), "steps=0 must be a whole number, 1 or more"),
    ],
)
def test_what_does_not_fit_is_said(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_live_teacher_gives_its_taps_and_no_gradient():
    net = from_linen(MLP(widths=(6,)))
    images = jnp.ones((3, 2, 2, 1))
    variables = net.init(KEY, images)
    live = targets.live(net, inputs="image", taps=("hidden_0",))

    def total(variables):
        found = ask(live, {"image": images}, {"teacher": variables})
        return found["out"].sum() + found["hidden_0"].sum()

    found = ask(live, {"image": images}, {"teacher": variables})
    assert (found["out"].shape, found["hidden_0"].shape) == ((3, 10), (3, 6))
    assert all((g == 0).all() for g in jax.tree.leaves(jax.grad(total)(variables)))
    with pytest.raises(ValueError, match="unknown source of targets 'teacher'"):
        ask(live, {"image": images}, {"techer": variables})
    with pytest.raises(TypeError, match=r"the variables of .teacher. must be \(params, state\)"):
        ask(live, {"image": images}, {"teacher": variables[0]})


def test_cached_fields_become_what_the_codec_says():
    codec = CODECS["top_k"](jax.ShapeDtypeStruct((4,), jnp.float32), k=4)
    fields, _ = codec.encode(A, jax.random.split(KEY, 5))
    batch = {f"cached/teacher/out/{name}": value for name, value in fields.items()}
    found = ask(targets.cached({"teacher/out": codec}), batch)["out"]
    np.testing.assert_allclose(found, jax.nn.log_softmax(A), atol=1e-2)
    del batch["cached/teacher/out/ids"]
    with pytest.raises(ValueError, match=r"the batch has no 'cached/teacher/out/ids'"):
        ask(targets.cached({"teacher/out": codec}), batch)
