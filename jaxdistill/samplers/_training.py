"""What the distillers of samplers share: their state, and how they read a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import transplant
from jaxdistill.net import Net
from jaxdistill.objective import at

# What a teacher is: the frozen variables to a function (x, sigma [B], label [B] or None) -> data.
Teacher = Callable[[Mapping[str, Any]], Callable[..., jax.Array]]
Prepare = Callable[[Any, jax.Array], Any]


class State(NamedTuple):
    """The state of a distiller of samplers.

    Attributes:
        step: how many steps were done, int32.
        key: the key of the run; the randomness of a step is drawn from ``fold_in(key, step)``.
        params: of everything that is trained, by name; ``net`` is the student.
        opt: the optimizers' states, by the same names.
        ema: the running average of the student's parameters, or None.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, Any]
    opt: dict[str, Any]
    ema: Any


def teacher_net(net: Net, name: str) -> Teacher:
    """A trained denoiser as a teacher.

    Args:
        net: the denoiser.
        name: under which its ``(params, state)`` are in the frozen variables.
    """

    def teacher(frozen):
        if name not in frozen:
            raise ValueError(unknown("teacher in the frozen variables", name, frozen))
        return lambda x, sigma, label=None: net.apply(*frozen[name], noised(x, sigma, label)).out

    return teacher


def noised(x: jax.Array, sigma: jax.Array, label: Any = None, **more: Any) -> dict[str, Any]:
    """The inputs of a denoiser."""
    return {
        "image": x,
        "sigma": jnp.broadcast_to(sigma, x.shape[:1]),
        **({} if label is None else {"label": label}),
        **more,
    }


def read(
    batch: Any, key: jax.Array, prepare: Prepare | None, labels: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The data of a batch, as float, and its labels where they are used."""
    batch = prepare(batch, key) if prepare else batch
    image = jnp.asarray(batch.get("student", batch["image"]))
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    return image, jnp.asarray(batch["label"]) if labels else None


def begin(
    key: jax.Array, net: Net, inputs: Mapping[str, Any], frozen: Mapping[str, Any], initial: Any
) -> Any:
    """The parameters a denoiser starts from: its own, or those of an earlier one in their place.

    Raises:
        ValueError: for a net that keeps statistics: its passes are at different noise.
    """
    params, state = net.init(key, inputs)
    if jax.tree.leaves(state):
        raise ValueError("a denoiser keeps no statistics: take a net without batch statistics")
    if initial is None:
        return params
    if initial not in frozen:
        raise ValueError(unknown("initial denoiser", initial, frozen))
    # A copy: the step gives its buffers away.
    return jax.tree.map(jnp.copy, transplant(params, frozen[initial][0]))


def advance(
    tx: optax.GradientTransformation, params: Any, opt: Any, gradient: Any
) -> tuple[Any, Any]:
    """One update."""
    updates, opt = tx.update(gradient, opt, params)
    return optax.apply_updates(params, updates), opt


def averaged(ema: Any, average: Any, params: Any, step: jax.Array) -> Any:
    """The running average after a step, where there is one."""
    if ema is None:
        return None
    return optax.incremental_update(params, average, 1 - at(ema, step + 1))


def result(state: State) -> tuple[Any, Any]:
    """The student's variables, averaged where an average is kept."""
    return state.params["net"] if state.ema is None else state.ema, {}


def mean(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values per example as a metric."""
    return values.sum(), jnp.asarray(values.size, jnp.float32)
