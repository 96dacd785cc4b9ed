"""Truncation by hand, prompts of unlike lengths, stop tokens, mixtures, the donated cache."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from language.nets import bigram, context_free, decoder

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.language import Sampling, empty_cache, generate, log_probabilities
from jaxdistill.models import MLP

NONE = ({}, {})
PROBABILITIES = jnp.array([0.1, 0.4, 0.05, 0.3, 0.15])


@pytest.mark.parametrize(
    ("sampling", "wanted"),
    [
        (Sampling(), [0.1, 0.4, 0.05, 0.3, 0.15]),
        (Sampling(temperature=0.5), np.square(PROBABILITIES) / np.square(PROBABILITIES).sum()),
        (Sampling(temperature=0), [0, 1, 0, 0, 0]),
        (Sampling(top_k=2), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_k=9), [0.1, 0.4, 0.05, 0.3, 0.15]),
        # 0.4 and 0.3 do not reach 0.8: the token that does is the last.
        (Sampling(top_p=0.8), [0, 0.4 / 0.85, 0, 0.3 / 0.85, 0.15 / 0.85]),
        (Sampling(top_p=0.3), [0, 1, 0, 0, 0]),
        (Sampling(min_p=0.5), [0, 4 / 7, 0, 3 / 7, 0]),
        (Sampling(top_k=3, top_p=0.5), [0, 4 / 7, 0, 3 / 7, 0]),
    ],
)
def test_truncation_by_hand(sampling, wanted):
    logits = jnp.stack([jnp.log(PROBABILITIES) + 3, jnp.log(PROBABILITIES)[::-1]])
    found = jnp.exp(log_probabilities(logits, sampling))
    np.testing.assert_allclose(found[0], wanted, atol=1e-6)
    np.testing.assert_allclose(found[1], np.asarray(wanted)[::-1], atol=1e-6)


def test_of_equals_top_k_keeps_as_many_as_asked():
    found = jnp.exp(log_probabilities(jnp.zeros(4), Sampling(top_k=2)))
    np.testing.assert_allclose(found, [0.5, 0.5, 0, 0], atol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "words"),
    [
        (Sampling(temperature=-1), "temperature must be 0"),
        (Sampling(top_k=0), "top_k must be 1"),
        (Sampling(top_p=0.0), r"top_p must be in \(0, 1\]"),
        (Sampling(min_p=1.5), r"min_p must be in \[0, 1\]"),
    ],
)
def test_no_way_to_sample(sampling, words):
    with pytest.raises(ValueError, match=words):
        log_probabilities(jnp.zeros(3), sampling)


def test_greedy_text_is_what_the_net_says_when_it_reads_it():
    net, variables = decoder(scale=3.0)
    lengths = jnp.array([5, 2, 1])
    prompts = jax.random.randint(jax.random.key(1), (3, 5), 0, 23)
    written = jax.jit(partial(generate, net, new=6, sampling=Sampling(temperature=0), pad=22))(
        variables, prompts, lengths, jax.random.key(2)
    )
    assert written.lengths.tolist() == [11, 8, 7]
    assert not written.stopped.any()
    said = jnp.argmax(net.apply(*variables, written.tokens).out, axis=-1)
    for row, length in enumerate(lengths.tolist()):
        tokens = np.asarray(written.tokens[row])
        assert (tokens[:length] == np.asarray(prompts[row, :length])).all()
        assert (tokens[length : length + 6] == np.asarray(said[row, length - 1 : length + 5])).all()
        assert (tokens[length + 6 :] == 22).all()


def test_a_stop_token_ends_its_row_alone():
    # 0 -> 1 -> 2 -> 3 -> 4 -> 0 ...
    net = bigram(20 * jnp.eye(5)[jnp.array([1, 2, 3, 4, 0])])
    prompts, lengths = jnp.array([[0], [3]]), jnp.array([1, 1])
    written = generate(net, ({}, {}), prompts, lengths, jax.random.key(0), new=4, stop=(2,), pad=9)
    assert written.tokens.tolist() == [[0, 1, 2, 9, 9], [3, 4, 0, 1, 2]]
    assert written.lengths.tolist() == [3, 5]
    assert written.stopped.tolist() == [True, True]


def test_mixed_text_is_drawn_from_the_mixture():
    one, other = context_free(jnp.log(jnp.array([0.8, 0.2]))), context_free([-jnp.inf, 0, -jnp.inf])
    prompts, lengths = jnp.zeros((2000, 1), jnp.int32), jnp.ones(2000, jnp.int32)
    written = generate(
        one,
        ({}, {}),
        prompts,
        lengths,
        jax.random.key(0),
        new=5,
        mixed_with=(other, NONE, 0.25),
    )
    share = float((written.tokens[:, 1:] == 1).mean())
    wanted = 0.75 * 0.2 + 0.25
    assert abs(share - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / 10_000)


def test_the_cache_of_one_call_is_the_memory_of_the_next():
    net, variables = decoder()
    prompts, lengths = jnp.ones((2, 3), jnp.int32), jnp.array([3, 2])
    write = jax.jit(partial(generate, net, new=4), donate_argnames="cache")
    first = write(variables, prompts, lengths, jax.random.key(0), cache=empty_cache(net, 2, 7))
    kept = jax.tree.leaves(first.cache)
    again = write(variables, prompts, lengths, jax.random.key(0), cache=first.cache)
    assert all(x.is_deleted() for x in kept)
    assert (again.tokens == first.tokens).all()


@pytest.mark.parametrize(
    ("prompts", "lengths", "new", "words"),
    [
        ((2, 3), [1, 4], 2, "lengths must lie in 1..3"),
        ((2, 3), [0, 2], 2, "lengths must lie in 1..3"),
        ((2, 3), [1, 1, 1], 2, r"prompts must be \[B, P\]"),
        ((2, 0), [0, 0], 2, "a token to start from"),
        ((2, 3), [1, 1], 0, "new must be 1"),
    ],
)
def test_prompts_that_do_not_fit(prompts, lengths, new, words):
    net = context_free(jnp.zeros(2))
    with pytest.raises(ValueError, match=words):
        generate(
            net,
            ({}, {}),
            jnp.zeros(prompts, jnp.int32),
            jnp.array(lengths),
            jax.random.key(0),
            new=new,
        )


def test_a_net_without_a_cache_is_refused():
    net = from_linen(MLP(classes=3, widths=(4,)))
    broken = net._replace(init=lambda key, inputs: net.init(key, jnp.ones((1, 4))))
    with pytest.raises(ValueError, match="leaves no state 'cache'"):
        empty_cache(broken, 2, 3)
