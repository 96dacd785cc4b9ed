"""What the distillers of samplers share: how they read a batch, and where their nets start."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.distiller import entry, transplant
from jaxdistill.lora import BASES
from jaxdistill.net import Net
from jaxdistill.samplers.denoisers import noised
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import over

Prepare = Callable[[Any, jax.Array], Any]


def read(
    batch: Any, key: jax.Array, prepare: Prepare | None, labels: bool
) -> tuple[jax.Array, jax.Array | None]:
    """The data of a batch, as float, and its labels where they are used."""
    batch = prepare(batch, key) if prepare else batch
    image = jnp.asarray(batch.get("student", batch["image"]))
    image = image.astype(jnp.promote_types(image.dtype, jnp.float32))
    return image, jnp.asarray(batch["label"]) if labels else None


def withheld(label: jax.Array | None, key: jax.Array, share: float) -> jax.Array | None:
    """Labels, of which a share is withheld: -1 stands for no label."""
    if label is None:
        return None
    return jnp.where(jax.random.uniform(key, label.shape) < share, -1, label)


def starting(
    nets: Mapping[str, Net],
    prepare: Prepare | None,
    labels: bool,
    initial: str | Mapping[str, str | None] | None,
    *,
    guidance: bool = False,
    jumps: bool = False,
) -> Callable[..., dict[str, tuple[Any, Any]]]:
    """``(key, frozen, batch) -> {name: variables}`` of denoisers: their own, or those of an earlier
    stage, the same for all or one for each.

    Raises:
        ValueError: when it is called, for a net that keeps statistics: its passes are at different
            noise.
    """

    def init(key, frozen, batch):
        image, label = read(batch, key, prepare, labels)
        ones = jnp.ones(len(image))
        further = {name: ones for name, used in (("guidance", guidance), ("until", jumps)) if used}
        inputs = noised(image, ones, label, **further)
        found = {}
        for place, (name, net) in enumerate(nets.items()):
            own_key = jax.random.fold_in(key, place) if place else key
            own = initial.get(name) if isinstance(initial, Mapping) else initial
            found[name] = _begin(own_key, net, inputs, frozen, own)
        return found

    return init


def _begin(key: jax.Array, net: Net, inputs: Any, frozen: Mapping[str, Any], initial: Any) -> Any:
    params, state = net.init(key, inputs)
    if jax.tree.leaves({name: each for name, each in state.items() if name != BASES}):
        raise ValueError("a denoiser keeps no statistics: take a net without batch statistics")
    if initial is None:
        return params, state
    earlier = entry("initial denoiser", initial, frozen)[0]
    # A copy: the step gives its buffers away.
    return jax.tree.map(jnp.copy, transplant(params, earlier)), state


def drawn_scale(key: jax.Array, scales: Sequence[float], data: jax.Array) -> jax.Array | None:
    """A scale of guidance for every example, one of those given; None where there are none."""
    if not scales:
        return None
    return jax.random.choice(key, jnp.asarray(scales, data.dtype), data.shape[:1])


def guide(say: Callable[..., jax.Array], label: Any, scale: Any) -> Callable[..., jax.Array]:
    """A teacher of ``(x, sigma, label)`` for labels, guided where there is a scale."""
    if scale is None:
        return lambda x, sigma: say(x, sigma, label)

    def guided_say(x, sigma):
        return guided(say(x, sigma, label), say(x, sigma, jnp.full_like(label, -1)), scale)

    return guided_say


def given(label: Any, scale: Any) -> dict[str, Any]:
    """What a net is told besides the image and its noise."""
    said = {"label": label, "guidance": scale}
    return {name: each for name, each in said.items() if each is not None}


def flow_step(
    say: Callable[..., jax.Array], x: jax.Array, upper: jax.Array, lower: jax.Array
) -> jax.Array:
    """A step of Heun's method along a denoiser's flow, each example between levels of its own."""

    def velocity(x, sigma):
        return (x - say(x, sigma)) / over(sigma, x)

    gap, here = over(lower - upper, x), velocity(x, upper)
    return x + gap * (here + velocity(x + gap * here, lower)) / 2


def refuse_target(what: str, target: str, ema: Any) -> None:
    """Refuses an unknown source of targets, and an average that is not kept.

    Raises:
        ValueError: saying which.
    """
    if target not in ("student", "ema"):
        raise ValueError(unknown(f"target of {what}", target, ("student", "ema")))
    if target == "ema" and ema is None:
        raise ValueError("target='ema' needs the decay of a running average: give ema")


def averages(ema: Any) -> dict[str, Any]:
    """The running averages of a sampler: none, or that of its net."""
    return {} if ema is None else {"net": ema}


def mean(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Values per example as a metric."""
    return values.sum(), jnp.asarray(values.size, jnp.float32)
