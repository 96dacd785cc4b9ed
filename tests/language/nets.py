"""Nets of language small enough to know what they must say."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.models import Decoder
from jaxdistill.net import Net, from_function


def bigram(table) -> Net:
    """A net whose logits are a row of a table, by the last token; its cache holds nothing real."""
    table = jnp.asarray(table)

    def init(key, inputs):
        state = {}
        if "slots" in inputs:
            state["cache"] = jnp.zeros(inputs["slots"].shape)
        return {}, state

    def apply(params, state, inputs, *, train, rng):
        tokens = inputs["tokens"] if isinstance(inputs, dict) else inputs
        return table[tokens], {}, state

    return from_function(init, apply)


def context_free(log_probs) -> Net:
    """A net that says the same of every next token."""
    log_probs = np.asarray(log_probs)
    return bigram(np.tile(log_probs, (64, 1)))


def decoder(seed: int = 0, dtype=jnp.float32, scale: float = 1.0, **settings):
    """A small decoder and its variables."""
    settings = {"vocabulary": 23, "width": 16, "depth": 2, "heads": 4, "groups": 2} | settings
    net = from_linen(Decoder(**settings, param_dtype=dtype))
    params, state = jax.jit(net.init)(jax.random.key(seed), jnp.zeros((1, 3), jnp.int32))
    # Larger weights: what is said depends on the context, and does not repeat itself at once.
    return net, (jax.tree.map(lambda x: scale * x, params), state)
