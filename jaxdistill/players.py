"""Several networks that are trained in turn: generators and critics, students and bounds.

Algorithms supply only their losses. What a player does not train is fixed during its turn, and the
players after it see its new value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller, Kind, Metrics, State, advance, averaged
from jaxdistill.loops import scan

Variables = tuple[Any, Any]
"""A net's ``(params, state)``."""
Nets = Mapping[str, Variables]
"""All nets by name."""


class Turn(NamedTuple):
    """What a loss reads besides the nets.

    Attributes:
        frozen: the frozen variables, by name.
        ema: the running averages after the last step, ``{part: (params, state)}``.
        batch: the batch of this update.
        key: the key of this update. Draw from ``split`` or ``fold_in`` of it, never from the key
            itself: that of the first update is the parent of the others.
        step: how many steps were done.
    """

    frozen: Mapping[str, Any]
    ema: Nets
    batch: Any
    key: jax.Array
    step: jax.Array


class Player(NamedTuple):
    """Who trains what, on which loss.

    Attributes:
        loss: ``(nets, turn) -> (value, metrics)``. ``nets`` holds the ``(params, state)`` of every
            part; the gradient is that of the parts which the player trains. A third entry
            ``{part: state}`` is what moved without being trained: batch statistics, memory banks.
        tx: its optimizer.
        updates: how many it makes in a step.
        trains: the parts that it trains, by default the one of its own name. Parts may be shared:
            each player then has an optimizer of its own for them.
    """

    loss: Callable[[Nets, Turn], tuple]
    tx: optax.GradientTransformation
    updates: int = 1
    trains: Sequence[str] = ()


def players(
    turns: Mapping[str, Player],
    init: Callable[..., Mapping[str, Variables]],
    *,
    ema: Mapping[str, Any] | None = None,
    own_batches: bool = False,
    returns: str | Sequence[str] = "net",
    kind: Kind = "net",
) -> Distiller:
    """Trains several networks, each on its own loss, one after another in every step.

    A step is one program without branches. Its first update is given the key of the step
    (``fold_in(key, step)``), the n-th one after it ``fold_in`` of that and n.

    Args:
        turns: the players, in their order.
        init: ``(key, frozen, batch) -> {part: (params, state)}``, where all parts start.
        ema: decays of running averages by part, numbers or schedules over the number of steps done.
        own_batches: whether every update of a player reads a batch of its own: a step then takes as
            many as the busiest player has updates. Otherwise all read the one batch of the step.
        returns: the part that is the result, averaged where it has an average; or several, for a
            result ``{part: (params, state)}``.
        kind: what the result is.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` with :class:`~jaxdistill.distiller.State`. The
        metrics are those of all players, summed over their updates.

    Raises:
        ValueError: for a player without an update; when it starts, for an unknown part or one
            that no player trains, and for two players with a metric of one name.

    Example:
        >>> def near(nets, turn):  # the follower goes to the leader, which goes to the data
        ...     gap = (nets["net"][0] - nets["leader"][0]) ** 2
        ...     return gap, {"gap": (gap, jnp.ones(()))}
        >>> def lead(nets, turn):
        ...     return ((nets["leader"][0] - turn.batch) ** 2).mean(), {}
        >>> tx = optax.sgd(0.25)
        >>> distiller = players(
        ...     {"leader": Player(lead, tx, updates=2), "net": Player(near, tx)},
        ...     lambda key, frozen, batch: {
        ...         "net": (jnp.zeros(()), {}), "leader": (jnp.zeros(()), {})
        ...     },
        ... )
        >>> state = distiller.init(jax.random.key(0), {}, jnp.ones(4))
        >>> state, metrics = distiller.step(state, {}, jnp.ones(4))
        >>> float(state.params["leader"]), float(distiller.result(state)[0])
        (0.75, 0.375)
    """
    for name, player in turns.items():
        if player.updates < 1:
            raise ValueError(f"player {name!r} must make 1 or more updates, got {player.updates}")
    turns = {name: one._replace(trains=tuple(one.trains) or (name,)) for name, one in turns.items()}
    decays = dict(ema or {})
    takes = max(player.updates for player in turns.values()) if own_batches else 1

    def start(key, frozen, batch):
        first = jax.tree.map(lambda x: x[0], batch) if takes > 1 else batch
        nets = dict(init(key, frozen, first))
        _refuse_unknown(turns, decays, returns, nets)
        params = {part: own for part, (own, _) in nets.items()}
        moving = {part: own for part, (_, own) in nets.items()}
        opt = {name: one.tx.init(_part_of(params, one.trains)) for name, one in turns.items()}
        averages = {part: jax.tree.map(jnp.copy, nets[part]) for part in decays}
        return State(jnp.zeros((), jnp.int32), key, params, moving, opt, averages)

    def step(state: State, frozen, batch):
        key = jax.random.fold_in(state.key, state.step)
        keys = _keys(key, sum(player.updates for player in turns.values()))
        turn = Turn(frozen, jax.lax.stop_gradient(state.ema), batch, key, state.step)
        metrics: Metrics = {}
        for name, player in turns.items():
            own_keys, keys = keys[: player.updates], keys[player.updates :]
            state, measured = _play(name, player, state, turn, own_keys, takes > 1)
            if twice := metrics.keys() & measured.keys():
                raise ValueError(f"two players measure {sorted(twice)[0]!r}: rename one of them")
            metrics |= measured
        averages = {
            part: averaged(decay, state.ema[part], _nets(state)[part], state.step)
            for part, decay in decays.items()
        }
        return state._replace(step=state.step + 1, ema=averages), metrics

    def result(state: State):
        nets = {**_nets(state), **state.ema}
        return nets[returns] if isinstance(returns, str) else _part_of(nets, returns)

    return Distiller(start, step, result, takes, kind)


def _play(
    name: str, player: Player, state: State, turn: Turn, keys: jax.Array, own_batches: bool
) -> tuple[State, Metrics]:
    """The state after all updates of a player in a step."""

    def update(now, given):
        own, moving, opt = now
        key, batch = given
        mine = turn._replace(key=key, batch=batch if own_batches else turn.batch)

        def loss(own):
            nets = {p: (x, moving[p]) for p, x in {**state.params, **own}.items()}
            value, metrics, *moved = player.loss(nets, mine)
            return value, (metrics, *moved)

        (_, (metrics, *moved)), grads = jax.value_and_grad(loss, has_aux=True)(own)
        own, opt = advance(player.tx, own, opt, grads)
        return (own, {**moving, **(moved[0] if moved else {})}, opt), metrics

    now = _part_of(state.params, player.trains), state.state, state.opt[name]
    batches = jax.tree.map(lambda x: x[: player.updates], turn.batch) if own_batches else None
    if player.updates == 1:
        now, metrics = update(now, jax.tree.map(lambda x: x[0], (keys, batches)))
    else:
        now, metrics = scan(update, now, (keys, batches))
        metrics = jax.tree.map(lambda x: x.sum(0), metrics)
    own, moving, opt = now
    params, opt = {**state.params, **own}, {**state.opt, name: opt}
    return state._replace(params=params, state=moving, opt=opt), metrics


def _keys(key: jax.Array, count: int) -> jax.Array:
    """A key for every update of a step."""
    later = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(1, count))
    return jnp.concatenate([key[None], later])


def _nets(state: State) -> dict[str, Variables]:
    return {part: (state.params[part], state.state[part]) for part in state.params}


def _part_of(tree: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: tree[name] for name in names}


def _refuse_unknown(
    turns: Mapping[str, Player], decays: Mapping[str, Any], returns: Any, nets: Nets
) -> None:
    trained = [part for player in turns.values() for part in player.trains]
    for what, parts in (
        ("part to train", trained),
        ("part to average", decays),
        ("part to return", [returns] if isinstance(returns, str) else returns),
    ):
        for part in parts:
            if part not in nets:
                raise ValueError(unknown(what, part, nets))
    for part, (params, _) in nets.items():
        if part not in trained and jax.tree.leaves(params):
            raise ValueError(f"nobody trains {part!r}: what stays as it is belongs to the frozen")
