"""Denoisers that learn from data, and the guided ones that learn from two passes of a teacher."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare, State, Teacher
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import over


def denoising(
    net: Net,
    tx: optax.GradientTransformation,
    *,
    teacher: Teacher | None = None,
    mean: float = -1.2,
    std: float = 1.2,
    sigma_data: float = 0.5,
    labels: bool = False,
    unlabelled: float = 0.1,
    scales: tuple[float, float] | None = None,
    ema: Any = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
) -> Distiller:
    r"""Trains a denoiser: on data as EDM does, or on what a teacher says of the noised data.

    With ``scales`` the teacher is guided, and the net is given the scale: it says in one pass what
    takes the teacher two.

    Args:
        net: the denoiser.
        tx: its optimizer.
        teacher: what it learns from in place of the data.
        mean: of :math:`\log\sigma`.
        std: of :math:`\log\sigma`.
        sigma_data: standard deviation of the data.
        labels: whether labels are inputs.
        unlabelled: the share of examples whose label is withheld, so that guidance has something to
            be guided from; with ``scales`` none is.
        scales: the range that scales g of guidance are drawn from evenly (1 is none).
        ema: decay of the running average, a number or a schedule of the step; with one the result
            is the average.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables to start from.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` over batches with ``image`` and, if asked for,
        ``label``, whose result are the denoiser's variables.

    Raises:
        ValueError: for ``scales`` without a teacher or without labels.

    References:
        Karras et al., Elucidating the Design Space of Diffusion-Based Generative Models, 2022;
        Meng et al., On Distillation of Guided Diffusion Models, 2023.
    """
    if scales is not None and (teacher is None or not labels):
        raise ValueError("scales of guidance need a teacher, and labels")

    def more(image, key):
        if scales is None:
            return {}
        low, high = scales
        return {"guidance": jax.random.uniform(key, image.shape[:1], image.dtype, low, high)}

    def init(key, frozen, batch):
        image, label = common.read(batch, key, prepare, labels)
        inputs = common.noised(image, jnp.ones(len(image)), label, **more(image, key))
        params = {"net": common.begin(key, net, inputs, frozen, initial)}
        average = None if ema is None else jax.tree.map(jnp.copy, params["net"])
        opt = {"net": tx.init(params["net"])}
        return State(jnp.zeros((), jnp.int32), key, params, opt, average)

    def goal(frozen, data, x, sigma, label, given):
        if teacher is None:
            return data
        say = teacher(frozen)
        if scales is None:
            return say(x, sigma, label)
        alone = say(x, sigma, jnp.full_like(label, -1))
        return guided(say(x, sigma, label), alone, given["guidance"])

    def step(state, frozen, batch):
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 6)
        data, label = common.read(batch, keys[0], prepare, labels)
        if label is not None and scales is None:
            label = jnp.where(jax.random.uniform(keys[1], label.shape) < unlabelled, -1, label)
        sigma = schedules.lognormal(keys[2], data.shape[:1], mean, std)
        x = data + over(sigma, data) * jax.random.normal(keys[3], data.shape, data.dtype)
        given = more(data, keys[4])
        wanted = jax.lax.stop_gradient(goal(frozen, data, x, sigma, label, given))

        def loss(params):
            inputs = common.noised(x, sigma, label, **given)
            said = net.apply(params, {}, inputs, train=True, rng=keys[5]).out
            values = losses.denoising(said, wanted, sigma, sigma_data=sigma_data)
            return values.mean(), values

        (_, values), gradient = jax.value_and_grad(loss, has_aux=True)(state.params["net"])
        params, opt = common.advance(tx, state.params["net"], state.opt["net"], gradient)
        average = common.averaged(ema, state.ema, params, state.step)
        after = State(state.step + 1, state.key, {"net": params}, {"net": opt}, average)
        return after, {"loss": common.mean(values)}

    return Distiller(init, step, common.result)
