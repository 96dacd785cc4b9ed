"""A frozen net with a head of its own that learns: what methods of two stages train first."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import linen as nn

from jaxdistill.frameworks.linen import from_linen
from jaxdistill.net import Forward, Net, as_taps
from jaxdistill.settings import Count, Share, part_of


def extended(base: Net, stage: str, tap: str, head: Net) -> Callable[[Mapping[str, Any]], Net]:
    """A trained net that stays as it is, and a head on one of its features that is trained.

    The output and the taps of the net are there as before; those of the head are under ``head/``,
    and its output is ``head``. It is a student that shares its weights with ``stage``, so that what
    is kept of it is the head alone, and as a teacher it is the net with one more feature.

    Args:
        base: the net.
        stage: under which name its variables are frozen.
        tap: the feature that the head sees.
        head: a net from that feature.

    Returns:
        A function from what is frozen to the net whose parameters are those of the head.

    Example:
        >>> import jax.numpy as jnp
        >>> base = from_linen(nn.Sequential([nn.Dense(4), nn.relu, nn.Dense(2)]))
        >>> frozen = {"teacher": base.init(jax.random.key(0), jnp.ones((8, 3)))}
        >>> net = extended(base, "teacher", "layers_0", from_linen(nn.Dense(5)))(frozen)
        >>> params, state = net.init(jax.random.key(1), jnp.ones((8, 3)))
        >>> forward = net.apply(params, state, jnp.ones((8, 3)), taps=("head", "layers_0"))
        >>> forward.out.shape, forward.taps["head"].shape, params["kernel"].shape
        ((8, 2), (8, 5), (4, 5))
    """

    def student(frozen: Mapping[str, Any]) -> Net:
        def seen(inputs: Any, taps: tuple[str, ...]) -> Forward:
            variables = jax.lax.stop_gradient(frozen[stage])
            return base.apply(*variables, inputs, taps=as_taps((tap, *taps)))

        def init(key: jax.Array, inputs: Any) -> tuple[Any, Any]:
            return head.init(key, seen(inputs, ()).taps[tap])

        def apply(
            params: Any,
            state: Any,
            inputs: Any,
            *,
            taps: Any = (),
            train: bool = False,
            rng: Any = None,
        ) -> Forward:
            taps = as_taps(taps)
            mine = [name for name in taps if name.split("/")[0] == "head"]
            below = tuple(name.removeprefix("head/") for name in mine if name != "head")
            forward = seen(inputs, tuple(name for name in taps if name not in mine))
            own = head.apply(params, state, forward.taps[tap], taps=below, train=train, rng=rng)
            found = {**forward.taps, "head": own.out}
            found |= {f"head/{name}": value for name, value in own.taps.items()}
            return Forward(forward.out, {name: found[name] for name in taps}, own.state, params)

        return Net(init, apply)

    return student


class Paraphraser(nn.Module):
    """An autoencoder of maps: three 3x3 convolutions to ``factor``, and three back.

    Attributes:
        share: channels of the factor, as a share of those of the maps.
        slope: of the rectifiers below zero.

    References:
        Kim et al. Paraphrasing Complex Network: Network Compression via Factor Transfer. NeurIPS
        2018.
    """

    share: Share = 0.5
    slope: Share = 0.1

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        width = maps.shape[-1]
        middle = max(part_of(width, self.share), 1)
        factor = Translator(middle, self.slope, name="factor")(maps, train)
        return Convolutions((middle, width, width), self.slope, name="back")(factor, train)


class Translator(nn.Module):
    """Three 3x3 convolutions, the second of which goes to ``width`` channels."""

    width: int
    slope: float = 0.1

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        widths = (maps.shape[-1], self.width, self.width)
        return Convolutions(widths, self.slope, name="convolutions")(maps, train)


class Convolutions(nn.Module):
    """3x3 convolutions, each normalised and rectified with a slope below zero."""

    widths: tuple[int, ...]
    slope: float

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        for index, width in enumerate(self.widths):
            maps = nn.Conv(width, (3, 3), name=f"conv_{index}")(maps)
            maps = nn.BatchNorm(not train, momentum=0.9, name=f"norm_{index}")(maps)
            maps = nn.leaky_relu(maps, self.slope)
        return maps


class Embedding(nn.Module):
    """Two linear maps to ``width``, rectified between: the head of a pretext task.

    References:
        Xu et al. Knowledge Distillation Meets Self-Supervision. ECCV 2020.
    """

    width: Count = 128

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        hidden = nn.relu(nn.Dense(self.width, name="fc1")(features))
        return nn.Dense(self.width, name="fc2")(hidden)


def translator(student: tuple[int, ...], target: tuple[int, ...]) -> Net:
    """A projector of maps to the channels of a paraphraser's factor.

    Raises:
        ValueError: for arrays that are no maps, or of another grid.
    """
    if len(student) != 4 or student[:3] != target[:3]:
        raise ValueError(
            f"a translator goes between maps [B, H, W, C] of one grid, got {student}, {target}"
        )
    return from_linen(Translator(target[-1]))
