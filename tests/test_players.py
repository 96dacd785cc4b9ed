"""Several networks in turn: the same as written out by hand, and what does not fit is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill.players import Player, players

SGD, ADAM = optax.sgd(0.1, momentum=0.9), optax.adam(1e-2)
KEY = jax.random.key(3)


def init(key, frozen, batch):
    keys = jax.random.split(key, 3)
    shapes = {"net": (4, 2), "critic": (2, 1), "body": (3, 4)}
    nets = {
        part: (0.3 * jax.random.normal(own, shape), {})
        for own, (part, shape) in zip(keys, shapes.items(), strict=True)
    }
    nets["critic"] = (nets["critic"][0], {"seen": jnp.zeros(())})
    return nets


def values(nets, turn):
    hidden = jnp.tanh(turn.batch @ nets["body"][0])
    noise = 0.1 * jax.random.normal(turn.key, hidden.shape)
    return (jnp.tanh((hidden + noise) @ nets["net"][0]) @ nets["critic"][0])[:, 0]


def please(nets, turn):
    found = values(nets, turn)
    return -found.mean(), {"pleased": (found.sum(), float(len(found)))}


def judge(nets, turn):
    found = values(nets, turn)
    seen = nets["critic"][1]["seen"] + found.sum()
    value = (found**2).mean() + (turn.frozen["weight"] * nets["critic"][0] ** 2).sum()
    return value, {"judged": (found.sum(), float(len(found)))}, {"critic": {"seen": seen}}


def game(**settings):
    turns = {
        "net": Player(please, SGD, trains=("net", "body")),
        "critic": Player(judge, ADAM, updates=3, trains=("critic", "body")),
    }
    settings = {"ema": {"net": 0.5}, **settings}
    return players(turns, init, **settings)


FROZEN = {"weight": jnp.float32(0.3)}
BATCHES = jax.random.normal(jax.random.key(1), (3, 5, 3))


def by_hand(own_batches, steps):
    """The same, every update written out."""
    nets = {part: own for part, (own, _) in init(KEY, FROZEN, None).items()}
    seen = jnp.zeros(())
    ours, theirs = ("net", "body"), ("critic", "body")
    states = SGD.init({k: nets[k] for k in ours}), ADAM.init({k: nets[k] for k in theirs})
    average = nets["net"]

    def given(own):
        return {**{k: (v, {}) for k, v in {**nets, **own}.items()}}

    for step in range(steps):
        key = jax.random.fold_in(KEY, step)

        class Turn:
            frozen, batch = FROZEN, BATCHES[0]

        Turn.key = key
        grads = jax.grad(lambda own: please(given(own), Turn)[0])({k: nets[k] for k in ours})
        moves, first = SGD.update(grads, states[0])
        nets |= optax.apply_updates({k: nets[k] for k in ours}, moves)
        second = states[1]
        for place in range(3):
            Turn.key = jax.random.fold_in(key, place + 1)
            Turn.batch = BATCHES[place] if own_batches else BATCHES[0]

            def loss(own, seen=seen):
                found = given(own)
                found["critic"] = (found["critic"][0], {"seen": seen})
                value, _, moved = judge(found, Turn)
                return value, moved["critic"]["seen"]

            grads, seen = jax.grad(loss, has_aux=True)({k: nets[k] for k in theirs})
            moves, second = ADAM.update(grads, second)
            nets |= optax.apply_updates({k: nets[k] for k in theirs}, moves)
        states = first, second
        average = 0.5 * average + 0.5 * nets["net"]
    return nets, seen, average


@pytest.mark.parametrize("own_batches", [False, True])
def test_turns_are_those_written_out_by_hand(own_batches):
    distiller = game(own_batches=own_batches)
    assert distiller.takes == (3 if own_batches else 1)
    batch = BATCHES if own_batches else BATCHES[0]
    state = jax.jit(distiller.init)(KEY, FROZEN, batch)
    for _ in range(3):
        state, metrics = jax.jit(distiller.step)(state, FROZEN, batch)
    nets, seen, average = by_hand(own_batches, 3)
    assert int(state.step) == 3
    assert float(metrics["pleased"][1]) == 5
    assert float(metrics["judged"][1]) == 15
    for part, own in nets.items():
        np.testing.assert_allclose(state.params[part], own, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(state.state["critic"]["seen"], seen, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(distiller.result(state)[0], average, rtol=1e-5, atol=1e-6)


def test_a_result_of_several_parts_is_averaged_where_it_has_an_average():
    distiller = game(returns=("net", "body"), kind="images")
    state = distiller.init(KEY, FROZEN, BATCHES[0])
    state, _ = distiller.step(state, FROZEN, BATCHES[0])
    result = distiller.result(state)
    assert distiller.kind == "images"
    assert result.keys() == {"net", "body"}
    np.testing.assert_array_equal(result["net"][0], state.ema["net"][0])
    np.testing.assert_array_equal(result["body"][0], state.params["body"])


def test_averages_are_seen_but_not_learned_through():
    def near(nets, turn):
        return ((nets["net"][0] - turn.ema["net"][0] - 1) ** 2).sum(), {}

    def one(key, frozen, batch):
        return {"net": (jnp.zeros(2), {})}

    distiller = players({"net": Player(near, optax.sgd(0.5))}, one, ema={"net": 0.75})
    state = distiller.init(KEY, {}, None)
    state, _ = distiller.step(state, {}, None)
    np.testing.assert_allclose(state.params["net"], 1)
    np.testing.assert_allclose(state.ema["net"][0], 0.25)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"returns": "nett"}, "part to return 'nett': did you mean 'net'"),
        ({"ema": {"bodi": 0.9}}, "part to average 'bodi': did you mean 'body'"),
    ],
)
def test_parts_that_are_not_there_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        game(**settings).init(KEY, FROZEN, BATCHES[0])


def test_other_refusals():
    with pytest.raises(ValueError, match="'net' must make 1 or more updates, got 0"):
        players({"net": Player(please, SGD, updates=0)}, init)
    with pytest.raises(ValueError, match="part to train 'head'"):
        players({"net": Player(please, SGD, trains=("head",))}, init).init(KEY, {}, BATCHES[0])
    with pytest.raises(ValueError, match="nobody trains 'critic'"):
        players({"net": Player(please, SGD, trains=("net", "body"))}, init).init(
            KEY, {}, BATCHES[0]
        )
    whole = ("net", "critic", "body")
    twice = players(
        {"net": Player(please, SGD, trains=whole), "again": Player(please, SGD, trains=whole)},
        init,
    )
    with pytest.raises(ValueError, match="two players measure 'pleased'"):
        twice.step(twice.init(KEY, FROZEN, BATCHES[0]), FROZEN, BATCHES[0])
