"""Denoisers that learn from data, and the guided ones that learn from two passes of a teacher."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.players import Player, players
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import over
from jaxdistill.settings import Finite, Fraction, Positive, Scheduled, Share


def denoising(
    net: Net,
    tx: optax.GradientTransformation,
    teacher: Teacher | None = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
    *,
    mean: Finite = -1.2,
    std: Positive = 1.2,
    sigma_data: Positive = 0.5,
    labels: bool = False,
    unlabelled: Share = 0.1,
    scales: tuple[Finite, Finite] | None = None,
    ema: Scheduled[Fraction] | None = None,
) -> Distiller:
    r"""Trains a denoiser: on data as EDM does, or on what a teacher predicts from the noised data.

    With ``scales`` the teacher is guided, and the net is given the scale: it says in one pass what
    takes the teacher two.

    Args:
        net: the denoiser.
        tx: its optimizer.
        teacher: what it learns from in place of the data.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.
        mean: of :math:`\log\sigma`.
        std: of :math:`\log\sigma`.
        sigma_data: standard deviation of the data.
        labels: whether labels are inputs.
        unlabelled: the share of examples whose label is withheld, so that guidance has something to
            be guided from; with ``scales`` none is.
        scales: the range that scales g of guidance are drawn from evenly (1 is none).
        ema: decay of the running average, a number or a schedule of the step; with one the result
            is the average.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` over batches with ``image`` and, if asked for,
        ``label``, whose result are the denoiser's variables.

    Raises:
        ValueError: for ``scales`` without a teacher or without labels, or that fall.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022;
        Meng et al., On Distillation of Guided Diffusion Models, 2023.
    """
    if scales is not None and (teacher is None or not labels):
        raise ValueError("scales of guidance need a teacher, and labels")
    if scales is not None and not scales[0] <= scales[1]:
        raise ValueError(f"scales={scales} of guidance must rise: give the lower one first")

    def goal(frozen, data, x, sigma, label, given):
        if teacher is None:
            return data
        say = teacher(frozen)
        if scales is None:
            return say(x, sigma, label)
        alone = say(x, sigma, jnp.full_like(label, -1))
        return guided(say(x, sigma, label), alone, given["guidance"])

    def loss(nets, turn):
        keys = jax.random.split(turn.key, 6)
        data, label = common.read(turn.batch, keys[0], prepare, labels)
        if scales is None:
            label = common.withheld(label, keys[1], unlabelled)
        sigma = schedules.lognormal(keys[2], data.shape[:1], mean, std)
        x = data + over(sigma, data) * jax.random.normal(keys[3], data.shape, data.dtype)
        given = {}
        if scales is not None:
            low, high = scales
            given["guidance"] = jax.random.uniform(keys[4], sigma.shape, data.dtype, low, high)
        wanted = jax.lax.stop_gradient(goal(turn.frozen, data, x, sigma, label, given))
        inputs = noised(x, sigma, label, **given)
        said = net.apply(*nets["net"], inputs, train=True, rng=keys[5]).out
        values = losses.denoising(said, wanted, sigma, sigma_data=sigma_data)
        return values.mean(), {"loss": common.mean(values)}

    start = common.starting({"net": net}, prepare, labels, initial, guidance=scales is not None)
    return players({"net": Player(loss, tx)}, start, ema=common.averages(ema))
