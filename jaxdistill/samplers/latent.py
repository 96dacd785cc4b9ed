"""Latent consistency models: consistency along the flow of a guided teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.losses.numerics import same_shape, widen
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.paths import edm, over
from jaxdistill.samplers.solvers import transition
from jaxdistill.settings import Count, Finite, Fraction, Positive, Scheduled


def smooth_absolute(x: jax.Array, y: jax.Array, *, c: float = 0.001) -> jax.Array:
    r"""The distance of public LCM code, :math:`\mathrm{mean} \sqrt{(x - y)^2 + c^2} - c`, of every
    number by itself, unlike :func:`~jaxdistill.samplers.losses.pseudo_huber`.

    Args:
        x: ``[B, ...]``.
        y: of the same shape.
        c: where it turns from a square to an absolute value.

    Returns:
        ``[B]``, float32 or wider.

    Example:
        >>> smooth_absolute(jnp.array([[3.0, 4.0]]), jnp.zeros((1, 2)), c=0.0).tolist()
        [3.5]
    """
    same_shape(x=x, y=y)
    x, y = widen(x, y)
    return (jnp.sqrt((x - y) ** 2 + c**2) - c).mean(tuple(range(1, x.ndim)))


def latent_consistency(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    scales: tuple[Finite, Finite],
    points: Count = 50,
    low: Positive = 0.002,
    high: Positive = 80.0,
    c: Positive = 0.001,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""LCM: a consistency function, given the scale of guidance, along the guided flow.

    .. math:: d(f_\theta(x, \sigma_{i+1}, c, g),
        \mathrm{sg} f_\theta(\hat x, \sigma_i, c, g))

    with :math:`\hat x` a step of DDIM away, by the teacher guided at scale g, and neighbouring
    levels drawn evenly from a grid of Karras et al. With a student of
    :func:`jaxdistill.lora.adapted` it is LCM-LoRA.

    Args:
        net: the consistency function, a :func:`~jaxdistill.samplers.denoiser` with its boundary at
            ``low``, which is given labels and ``guidance``.
        tx: its optimizer.
        teacher: the denoiser whose guided flow is distilled.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        scales: the range that scales g are drawn from evenly (1 is none); LCM counts w = g - 1.
        points: steps of the grid, each as long as one of DDIM.
        low: the least level.
        high: the largest.
        c: of :func:`smooth_absolute`.
        ema: decay of the running average; with one the result is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` over batches with ``image`` and ``label``, its
        result the consistency function's variables.

    Raises:
        ValueError: without a teacher, for scales that fall and levels that do not rise.

    References:
        Luo et al., Latent Consistency Models, 2023; LCM-LoRA, 2023.
    """
    if teacher is None:
        raise ValueError("a latent consistency model needs a teacher, which is guided")
    least, largest = scales
    if not least <= largest:
        raise ValueError(f"scales={tuple(scales)} of guidance must rise: give the lower one first")
    schedules.refuse_fall(low, high)

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 5)
        data, label = common.read(turn.batch, keys[0], prepare, labels=True)
        grid = schedules.rising_karras(jnp.arange(points + 1), points + 1, low, high)
        place = jax.random.randint(keys[1], data.shape[:1], 0, points)
        lower, upper = (grid[place + one].astype(data.dtype) for one in (0, 1))
        scale = jax.random.uniform(keys[2], lower.shape, data.dtype, least, largest)
        x = data + over(upper, data) * jax.random.normal(keys[3], data.shape, data.dtype)
        guided = common.guide(teacher(turn.frozen), label, scale)(x, upper)
        reached = transition(edm(), x, guided, upper, lower)

        def say(variables, x, sigma):
            inputs = noised(x, sigma, label, guidance=scale)
            return net.apply(*variables, inputs, train=True, rng=keys[4]).out

        wanted = say(jax.lax.stop_gradient(nets["net"]), reached, lower)
        values = smooth_absolute(say(nets["net"], x, upper), jax.lax.stop_gradient(wanted), c=c)
        return values.mean(), {"loss": common.mean(values)}

    start = common.starting({"net": net}, prepare, True, initial, guidance=True)
    return players({"net": Player(loss, tx)}, start, ema=common.averages(ema))
