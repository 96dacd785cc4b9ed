"""Features, probes and similarity on nets whose features are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill.evaluation import cka, features, linear_probe, nearest_neighbours
from jaxdistill.net import from_function

# Features are a rotation of the inputs, and the tokens of a grid.
NET = from_function(
    lambda key, x: ({"turn": jnp.eye(x.shape[-1])}, {}),
    lambda params, state, x, train, rng: (
        {"turned": x @ params["turn"]},
        {"grid": jnp.stack([x, 3 * x], 1), "constant": jnp.ones_like(x)},
        state,
    ),
)
RNG = np.random.default_rng(0)


def turn(size=4, seed=0):
    square = np.random.default_rng(seed).normal(size=(size, size))
    return ({"turn": jnp.asarray(np.linalg.qr(square)[0], jnp.float32)}, {})


IDENTITY = ({"turn": jnp.eye(4)}, {})


def batches(values, labels, size=8):
    """Padded batches, with NaN in the padding."""
    found = []
    for start in range(0, len(values), size):
        share = values[start : start + size]
        missing = size - len(share)
        found.append(
            {
                "image": np.pad(share, ((0, missing), (0, 0)), constant_values=np.nan),
                "label": np.pad(labels[start : start + size], (0, missing), constant_values=99),
                "where": np.arange(size) < len(share),
            }
        )
    return found


def clusters(count, noise=0.3, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    return (2 * np.eye(4)[labels] + noise * rng.normal(size=(count, 4))).astype(np.float32), labels


def test_features_leave_padding_out():
    values, labels = clusters(11)
    found = features(NET, IDENTITY, batches(values, labels), "out/turned")
    np.testing.assert_allclose(found.values, values, rtol=1e-6)
    np.testing.assert_array_equal(found.labels, labels)


@pytest.mark.parametrize(("pool", "factor"), [("mean", 2), ("first", 1)])
def test_pooling_of_positions(pool, factor):
    values, labels = clusters(5)
    found = features(NET, IDENTITY, batches(values, labels), "grid", pool=pool)
    np.testing.assert_allclose(found.values, factor * values, rtol=1e-6)
    flat = features(NET, IDENTITY, batches(values, labels), "grid", pool="flatten")
    np.testing.assert_allclose(flat.values, np.hstack([values, 3 * values]), rtol=1e-6)


def test_unknown_places_are_named():
    data = batches(*clusters(5))
    with pytest.raises(ValueError, match="did you mean 'grid'"):
        features(NET, IDENTITY, data, "gird")
    with pytest.raises(ValueError, match="did you mean 'mean'"):
        features(NET, IDENTITY, data, pool="men")
    with pytest.raises(ValueError, match="no batches"):
        features(NET, IDENTITY, [], "grid")


@pytest.mark.parametrize(
    ("make", "name"),
    [(linear_probe, "probe_accuracy"), (nearest_neighbours, "neighbours_accuracy")],
)
def test_probes_tell_clusters_apart_and_chance_from_constants(make, name):
    train, scored = batches(*clusters(30)), batches(*clusters(25, seed=1))
    evaluator = make(NET, train, read="out/turned")
    assert evaluator(turn(), {}, scored) == {name: 1.0}
    assert evaluator(turn(), {}, scored) == evaluator(IDENTITY, {}, scored)
    blind = make(NET, train, read="constant")(IDENTITY, {}, scored)
    assert blind[name] <= 9 / 25


def test_linear_probe_of_one_record_a_class():
    train = batches(*clusters(3, noise=0))
    assert linear_probe(NET, train, read="out/turned")(
        IDENTITY, {}, batches(*clusters(9, 0.1))
    ) == {"probe_accuracy": 1.0}


def test_linear_probe_is_what_scikit_learn_gives():
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, StratifiedKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, scored = clusters(40, 1.5), clusters(31, 1.5, seed=1)
    found = linear_probe(NET, batches(*train), read="out/turned", seed=3)(
        IDENTITY, {}, batches(*scored)
    )
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        {"logisticregression__C": [1e-3, 1e-2, 1e-1, 1.0, 10.0]},
        cv=StratifiedKFold(5, shuffle=True, random_state=3),
    )
    assert found["probe_accuracy"] == search.fit(*train).score(*scored)
    assert 0.4 < found["probe_accuracy"] < 1


def test_a_probe_of_parts_is_the_mean_of_probes_on_each():
    from sklearn.model_selection import StratifiedKFold

    (values, labels), scored = clusters(40, 1.5), batches(*clusters(31, 1.5, seed=1))
    found = linear_probe(NET, batches(values, labels), read="out/turned", seed=3, parts=4)
    parts = StratifiedKFold(4, shuffle=True, random_state=3).split(values, labels)
    single = [
        linear_probe(NET, batches(values[own], labels[own]), read="out/turned", seed=3)(
            IDENTITY, {}, scored
        )["probe_accuracy"]
        for _, own in parts
    ]
    assert found(IDENTITY, {}, scored)["probe_accuracy"] == pytest.approx(np.mean(single))
    assert len(set(single)) > 1
    few = linear_probe(NET, batches(values, labels), read="grid", parts=15)
    with pytest.raises(ValueError, match="too few for parts=15"):
        few(IDENTITY, {}, scored)


def test_neighbours_vote_by_cosine():
    # Long vectors are no nearer than short ones, and with a small temperature the nearest decides.
    train = np.array([[10, 0, 0, 0], [0, 0.1, 0, 0], [0, 0.1, 0.01, 0]], np.float32)
    scored = np.array([[0.1, 0.02, 0, 0], [1, 5, 0, 0]], np.float32)
    data, labels = batches(train, np.array([0, 1, 1])), np.array([0, 1])
    near = nearest_neighbours(NET, data, read="out/turned")(IDENTITY, {}, batches(scored, labels))
    assert near == {"neighbours_accuracy": 1.0}
    far = nearest_neighbours(NET, data, read="out/turned", temperature=100.0)
    assert far(IDENTITY, {}, batches(scored, labels)) == {"neighbours_accuracy": 0.5}


def test_a_probe_of_one_class_is_refused():
    values, labels = clusters(5)
    with pytest.raises(ValueError, match="two classes or more"):
        linear_probe(NET, batches(values, 0 * labels), read="grid")(IDENTITY, {}, [])


def counting():
    """The net above, and how often it was traced."""
    traced = []

    def apply(params, state, x, train, rng):
        traced.append(1)
        return x @ params["turn"], {}, state

    return from_function(lambda key, x: ({"turn": jnp.eye(x.shape[-1])}, {}), apply), traced


class Gone(list):
    """Batches that count how often somebody goes through them."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


def test_what_several_evaluators_read_is_compiled_once_and_labelled_records_read_once():
    net, traced = counting()
    train = [Gone(batches(*clusters(24))) for _ in range(2)]
    both = linear_probe(net, train[0]), nearest_neighbours(net, train[1], neighbours=5)
    sets = [batches(*clusters(16, seed=seed)) for seed in (1, 2)]
    for weights in (turn(seed=3), turn(seed=4)):
        for evaluator in both:
            for data in sets:
                evaluator(weights, {}, data)
    assert len(traced) == 1
    assert [each.times for each in train] == [2, 2]


def test_weights_that_have_changed_are_read_anew():
    """Also where the array is the same one, which numpy allows."""
    values, labels = clusters(24)
    away = np.zeros((4, 4), np.float32)
    for first, second in (
        [turn(seed=3), ({"turn": jnp.asarray(away)}, {})],
        [({"turn": np.eye(4, dtype=np.float32)}, {})] * 2,
    ):
        evaluator = nearest_neighbours(NET, batches(values, labels), read="out/turned")
        good = evaluator(first, {}, batches(values, labels))
        if second is first:
            second[0]["turn"][:] = 0
        poor = evaluator(second, {}, batches(values, labels))
        fresh = nearest_neighbours(NET, batches(values, labels), read="out/turned")
        assert poor == fresh(second, {}, batches(values, labels)) != good


def test_cka_of_rotated_features_is_one():
    data = batches(*clusters(21))
    pairs = {"turned": ("out/turned", "out/turned"), "grid": ("grid", "out/turned")}
    found = cka(NET, NET, pairs=pairs)(turn(), {"teacher": turn(seed=1)}, data)
    assert found == pytest.approx({"cka_turned": 1.0, "cka_grid": 1.0}, abs=1e-5)


def test_debiased_cka_by_hand():
    """The U-statistic of Song et al. written as sums over distinct indices."""
    from itertools import permutations

    values = RNG.normal(size=(6, 4)).astype(np.float32)
    other = np.asarray(turn(seed=2)[0]["turn"]) * np.array([3.0, 1.0, 0.1, 0.0])
    found = cka(NET, NET, pairs={"x": ("out/turned", "out/turned")})(
        IDENTITY,
        {"teacher": ({"turn": jnp.asarray(other, jnp.float32)}, {})},
        batches(values, np.arange(6)),
    )

    def hsic(k, l):  # noqa: E741
        terms = [
            k[a, b] * (l[a, b] + l[c, d] - 2 * l[a, c]) for a, b, c, d in permutations(range(6), 4)
        ]
        return np.mean(terms)

    k, l = values @ values.T, (values @ other) @ (values @ other).T  # noqa: E741
    expected = hsic(k, l) / np.sqrt(hsic(k, k) * hsic(l, l))
    assert found["cka_x"] == pytest.approx(expected, abs=1e-5)


def test_unrelated_features_are_not_drawn_to_one():
    """With more dimensions than records the plain estimate is near 1; the debiased is near 0."""
    wide = from_function(
        lambda key, x: ({}, {}),
        lambda params, state, x, train, rng: (
            jax.random.normal(params["key"], (x.shape[0], 200)),
            {},
            state,
        ),
    )
    data = batches(*clusters(16), size=16)
    sides = [({"key": jax.random.key(seed)}, {}) for seed in (0, 1)]
    found = cka(wide, wide, pairs={"x": ("out", "out")})(sides[0], {"teacher": sides[1]}, data)
    assert abs(found["cka_x"]) < 0.2


def test_cka_reads_no_more_records_than_asked():
    values, labels = clusters(21)
    evaluator = cka(NET, NET, pairs={"x": ("out/turned", "grid")}, records=10)
    frozen = {"teacher": turn(seed=1)}

    def endless():
        yield from batches(values, labels)
        raise AssertionError("read too far")

    assert evaluator(IDENTITY, frozen, endless()) == evaluator(
        IDENTITY, frozen, batches(values[:10], labels[:10])
    )


def test_cka_settings():
    with pytest.raises(ValueError, match="student, teacher"):
        cka(NET, NET, pairs={"x": "out"})
    with pytest.raises(ValueError, match="at least 4"):
        cka(NET, NET, pairs={"x": ("grid", "grid")})(
            IDENTITY, {"teacher": turn()}, batches(*clusters(3))
        )
    assert cka(NET, None, pairs={"x": ("grid", "grid")})(IDENTITY, {}, []) == {}
