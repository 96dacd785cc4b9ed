"""Objectives that own more than a projector, by their formulas; frozen nets with one more head."""

import pathlib
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import connectors, losses, registry, targets
from jaxdistill.connectors.nets import Fusion
from jaxdistill.data import views
from jaxdistill.distiller import with_base
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.gradients import Whole
from jaxdistill.net import Forward

KEY = jax.random.key(0)
GOLDENS = pathlib.Path(__file__).parent / "goldens"


def draw(number, *shape):
    return jax.random.normal(jax.random.fold_in(KEY, number), shape)


STUDENT = {"low": draw(0, 6, 8, 8, 4), "high": draw(1, 6, 4, 4, 6), "pooled": draw(2, 6, 6)}
TEACHER = {"low": draw(3, 6, 8, 8, 5), "high": draw(4, 6, 4, 4, 10), "pooled": draw(5, 6, 10)}
TEACHER |= {
    f"params/{norm}/{part}": Whole(0.5 + jnp.abs(draw(6, width)))
    for norm, width in (("norm_a", 5), ("norm_b", 10))
    for part in ("scale", "bias")
}
BATCH = {"index": jnp.array([5, 1, 0, 3, 7, 2])}
BOTH = {"student": ("low", "high"), "target": ("low", "high")}
OBJECTIVES = {
    "contrastive": partial(connectors.contrastive, 8, width=4, negatives=5),
    "flow": partial(connectors.flow, **BOTH),
    "knowledge_review": partial(connectors.knowledge_review, **BOTH),
    "overhauled": partial(connectors.overhauled, **BOTH, norms=("norm_a", "norm_b")),
    "prime_aware": connectors.prime_aware,
    "simple_recipe": connectors.simple_recipe,
    "variational": partial(connectors.variational, student="high", target="high"),
}


def seen(student=STUDENT):
    return Forward(None, student, {}, {})


def value(objective, params, state, student=STUDENT, batch=BATCH, step=0):
    terms, kept = objective.terms(params, state, seen(student), TEACHER, batch, step=step)
    (term,) = terms.values()
    return term.total / term.count, kept


@pytest.mark.parametrize("name", OBJECTIVES)
def test_what_it_owns_learns_and_nothing_flows_into_the_teacher(name):
    objective = OBJECTIVES[name]()
    params, state = objective.init(KEY, seen(), TEACHER, BATCH)

    @jax.jit
    def step(params, student, state):
        loss = partial(value, objective, state=state)
        (before, kept), slopes = jax.value_and_grad(
            lambda p, s: loss(p, student=s), (0, 1), has_aux=True
        )(params, student)
        params, student = jax.tree.map(lambda x, g: x - 0.01 * g, (params, student), slopes)
        return params, student, kept, before, slopes

    student, first = STUDENT, None
    for _ in range(30):
        params, student, state, last, slopes = step(params, student, state)
        first = last if first is None else first
    assert np.isfinite(last)
    assert last < first
    moved = jax.tree.leaves(jax.tree.map(lambda g: float(np.abs(g).max()), slopes[0]))
    assert moved
    # A bias before a norm over the batch is the only part that changes nothing.
    assert sum(each > 0 for each in moved) >= 0.6 * len(moved)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padding_reaches_nothing(name):
    if name in ("knowledge_review", "overhauled", "simple_recipe", "prime_aware", "flow"):
        pytest.skip("statistics of a batch are those of all its rows")
    objective = OBJECTIVES[name]()
    params, state = objective.init(KEY, seen(), TEACHER, BATCH)
    batch = {**BATCH, "where": jnp.arange(6) < 4}
    dirty = {k: v.at[4:].set(jnp.nan) for k, v in STUDENT.items()}
    clean, _ = value(objective, params, state, batch=batch)
    given, kept = value(objective, params, state, dirty, batch)
    assert clean == given
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(kept) if leaf.dtype != KEY.dtype)


def test_variational_is_the_gaussian_of_the_loss():
    objective = connectors.variational(student="high", target="high", variance=2.0)
    params, state = objective.init(KEY, seen(), TEACHER, BATCH)
    mean = STUDENT["high"]
    for index in (1, 2, 3):
        mean = mean @ params["mean"][f"conv_{index}"]["kernel"]
        mean = jax.nn.relu(mean) if index < 3 else mean
    expected = 0.5 * (((mean - TEACHER["high"]) ** 2) / 2.0 + np.log(2.0)).mean()
    np.testing.assert_allclose(value(objective, params, state)[0], expected, rtol=1e-5)


def test_deeper_stages_of_the_overhaul_count_twice_as_much():
    objective = OBJECTIVES["overhauled"](weight=1.0)
    params, state = objective.init(KEY, seen(), TEACHER, BATCH)
    whole = float(value(objective, params, state)[0])

    def alone(stage, norm):
        own = connectors.overhauled(student=(stage,), target=(stage,), norms=(norm,))
        named = {"to_0": params[f"to_{('low', 'high').index(stage)}"]}
        kept = {"to_0": state[f"to_{('low', 'high').index(stage)}"]}
        return float(value(own, named, kept)[0])

    assert whole == pytest.approx(alone("low", "norm_a") / 2 + alone("high", "norm_b"), rel=1e-5)


def test_fusion_is_the_published_one():
    with np.load(GOLDENS / "reviewkd_abf_mdistiller.npz") as file, jax.enable_x64(True):
        there = {k: jnp.asarray(v, jnp.float64) for k, v in file.items() if v.dtype.kind == "f"}

        def kernel(name):
            return there[name].transpose(2, 3, 1, 0)

        def last(x):
            return jnp.moveaxis(x, 1, -1)

        inside = {k.partition("__")[2]: k for k in there if k.startswith(("in__", "param__"))}
        maps, residual = last(there[inside["x"]]), last(there[inside["residual"]])
        middle, width = (there[inside[f"conv{i}_weight"]].shape[0] for i in (1, 2))
        net = Fusion(middle, width)
        variables = net.init(KEY, maps, residual, True)
        params = dict(variables["params"])
        params["conv_1"] = {"kernel": kernel(inside["conv1_weight"])}
        params["conv_2"] = {"kernel": kernel(inside["conv2_weight"])}
        params["gates"] = {
            "kernel": kernel(inside["att_weight"]),
            "bias": there[inside["att_bias"]],
        }
        given = {"params": params, "batch_stats": variables["batch_stats"]}
        (out, fused), _ = net.apply(given, maps, residual, True, mutable=["batch_stats"])
        np.testing.assert_allclose(jnp.moveaxis(out, -1, 1), there["out__y"], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(jnp.moveaxis(fused, -1, 1), there["out__x"], rtol=1e-9)


def test_banks_keep_a_row_for_every_record():
    objective = OBJECTIVES["contrastive"](momentum=0.0)
    params, state = objective.init(KEY, seen(), TEACHER, BATCH)
    assert state["bank"].student.shape == (8, 4)
    _, kept = value(objective, params, state)
    own = params["student"]
    rows = STUDENT["pooled"] @ own["kernel"] + own["bias"][None]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(kept["bank"].student[BATCH["index"]], rows, rtol=1e-5)
    untouched = jnp.array([4, 6])
    np.testing.assert_array_equal(kept["bank"].student[untouched], state["bank"].student[untouched])
    assert bool(kept["bank"].calibrated)
    # Negatives are drawn anew at every step, from a key that a checkpoint keeps.
    again, _ = value(objective, params, kept, step=1)
    repeated, _ = value(objective, params, kept, step=1)
    other, _ = value(objective, params, kept, step=2)
    assert again == repeated
    assert again != other


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("contrastive", {"examples": 6}, ["examples=6", "8"]),
        ("flow", {"target": ("low",)}, ["2", "1"]),
        ("knowledge_review", {"student": ()}, ["0", "2"]),
        ("overhauled", {"norms": ("norm_a",)}, ["a norm for each", "1"]),
        ("variational", {"target": "low"}, ["high"]),
        ("knowledge_review", {"target": ("high", "low")}, ["low"]),
        ("flow", {"student": ("low", "pooled")}, ["(6, 6)"]),
    ],
)
def test_what_does_not_fit_is_refused_before_training(name, settings, words):
    with pytest.raises(ValueError) as refusal:  # noqa: PT011
        OBJECTIVES[name](**settings).init(KEY, seen(), TEACHER, BATCH)
    for word in words:
        assert word in str(refusal.value)


def test_banks_need_numbered_records():
    with pytest.raises(ValueError, match="'index'"):
        OBJECTIVES["contrastive"]().init(KEY, seen(), TEACHER, {"image": jnp.ones(6)})
    with pytest.raises(ValueError, match="give 'examples'"):
        connectors.contrastive()


def test_a_frozen_net_with_a_head_trains_the_head_alone():
    base = from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))
    images = draw(7, 5, 3)
    frozen = {"teacher": base.init(KEY, images)}
    student = connectors.extended(base, "teacher", "layers_0", from_linen(nn.Dense(6)))
    net = student(frozen)
    own, state = net.init(jax.random.key(1), images)
    assert jax.tree.map(jnp.shape, own) == {"bias": (6,), "kernel": (4, 6)}

    def loss(own, frozen):
        forward = student(frozen).apply(own, state, images, taps=("head", "layers_0"))
        return (forward.taps["head"] ** 2).sum() + (forward.out**2).sum()

    into_head, into_base = jax.grad(loss, (0, 1))(own, frozen)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(into_head))
    assert all(np.abs(x).max() == 0 for x in jax.tree.leaves(into_base))
    # As a teacher it is the net that it was, with one more feature.
    whole = with_base(student, ("teacher",))
    variables = {"own": own, "base": frozen}, state
    forward = whole.apply(*variables, images, taps=("head",))
    np.testing.assert_array_equal(forward.out, base.apply(*frozen["teacher"], images).out)
    features = base.apply(*frozen["teacher"], images, taps=("layers_0",)).taps["layers_0"]
    expected = features @ own["kernel"] + own["bias"][None]
    np.testing.assert_allclose(forward.taps["head"], expected, rtol=1e-5)


def test_a_paraphraser_is_an_autoencoder_and_its_factor_a_tap():
    net = from_linen(connectors.Paraphraser(share=0.5))
    maps = draw(8, 2, 4, 4, 6)
    params, state = net.init(KEY, maps)
    forward = net.apply(params, state, maps, taps=("factor",), train=True)
    assert forward.out.shape == maps.shape
    assert forward.taps["factor"].shape == (2, 4, 4, 3)
    translated = connectors.translator(maps.shape, (2, 4, 4, 3))
    assert translated.apply(*translated.init(KEY, maps), maps).out.shape == (2, 4, 4, 3)
    with pytest.raises(ValueError, match="one grid"):
        connectors.translator(maps.shape, (2, 8, 8, 3))


def test_turned_images_lie_side_by_side():
    image = jnp.arange(2 * 4.0).reshape(2, 2, 2, 1)
    batch = {"image": image, "label": jnp.array([3, 1]), "index": jnp.array([7, 9])}
    found = views.turned(batch, KEY)
    turns = [np.rot90(image[1, ..., 0], turn) for turn in range(4)]
    np.testing.assert_array_equal(found["student"][4:, ..., 0], np.stack(turns))
    assert found["label"].tolist() == [3] * 4 + [1] * 4
    assert found["image_label"].tolist() == [3, 1]
    assert found["index"].tolist() == [7] * 4 + [9] * 4
    assert found["upright"].tolist() == [True, False, False, False] * 2
    # As the losses read them.
    logits = draw(9, 8, 5)
    assert float(losses.sskd_transformed(logits, logits, found["image_label"])) == 0
    with pytest.raises(ValueError, match="square"):
        views.turned({"image": jnp.ones((2, 3, 2, 1))}, KEY)


def test_targets_hold_parameters_of_their_teacher():
    net = from_linen(nn.Dense(2))
    images = draw(10, 4, 3)
    frozen = {"teacher": net.init(KEY, images)}
    goal = targets.live(net, params=("kernel",))(frozen, {"image": images}, KEY, 0)
    np.testing.assert_array_equal(goal["params/kernel"].value, frozen["teacher"][0]["kernel"])
    with pytest.raises(ValueError, match="did you mean 'kernel'"):
        targets.live(net, params=("kernl",))(frozen, {"image": images}, KEY, 0)


def test_parameters_are_in_no_cache():
    entry = {"loss": "overhaul", "student": ("a",), "target": ("b",), "norms": ("norm",)}
    paths = registry.target_paths({"overhaul": entry})
    assert paths == ("b", "params/norm/scale", "params/norm/bias")
    with pytest.raises(ValueError, match="take 'cached' out"):
        registry.stored({"kind": "live", "stage": "teacher"}, paths)


def test_a_loss_of_the_student_alone_asks_for_no_target():
    assert registry.target_paths({"pretext": {"loss": "sskd_pretext", "student": "head"}}) == ()
    # An objective with parts of its own reads what it says by itself.
    assert registry.target_paths({"contrast": {"loss": "crd"}}) == ("pooled",)
    assert registry.student_taps({"contrast": {"loss": "crd"}}) == ("pooled",)
