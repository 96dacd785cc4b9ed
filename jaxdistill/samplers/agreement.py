"""How near a student's predictions are to those of its teacher, without any sample being drawn."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxdistill.evaluation.batches import Evaluator, compiled, sweep
from jaxdistill.evaluation.measuring import measuring
from jaxdistill.net import Net
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers.denoisers import Teacher, noised
from jaxdistill.samplers.guidance import guided
from jaxdistill.samplers.paths import over
from jaxdistill.settings import Finite, Positive


def guidance_left(
    net: Net,
    teacher: Teacher | None,
    prepare: Any = None,
    *,
    scales: tuple[Finite, Finite],
    mean: Finite = -1.2,
    std: Positive = 1.2,
    sigma_data: Positive = 0.5,
) -> Evaluator:
    r"""An evaluator: which share of guidance one pass of a student does not give.

    .. math:: \frac{\sum w(\sigma)\, |f_\theta(x, \sigma, c, g) - \tilde f|^2}
        {\sum w(\sigma)\, |f(x, \sigma, c) - \tilde f|^2}

    with :math:`\tilde f` the teacher guided at scale g, f the teacher with labels alone, and the
    weights of :func:`~jaxdistill.samplers.losses.denoising`. The teacher itself, which takes no
    notice of the scale, has 1, a perfect student 0. Levels and scales are drawn as for
    :func:`~jaxdistill.samplers.denoising`, the same at every evaluation.

    Args:
        net: the student, a denoiser that is given the scale.
        teacher: the denoiser that is guided.
        prepare: ``(batch, key) -> batch`` for the data, which hold ``image`` and ``label``.
        scales: the range that scales are drawn from evenly (1 is no guidance).
        mean: of the logarithm of levels.
        std: likewise.
        sigma_data: standard deviation of the data.

    Raises:
        ValueError: for scales that fall or that are all 1; when it runs, for a set without batches.
    """
    low, high = scales
    if not low <= high or low == high == 1:
        raise ValueError(f"scales={tuple(scales)} of guidance must rise, and not both be 1")

    def drawn(batch: Any, key: jax.Array) -> dict[str, Any]:
        keys = jax.random.split(key, 4)
        data, label = common.read(batch, keys[0], prepare, labels=True)
        sigma = schedules.lognormal(keys[1], data.shape[:1], mean, std).astype(data.dtype)
        x = data + over(sigma, data) * jax.random.normal(keys[2], data.shape, data.dtype)
        scale = jax.random.uniform(keys[3], sigma.shape, data.dtype, low, high)
        return {"inputs": noised(x, sigma, label, guidance=scale), "where": batch["where"]}

    def step(variables: Any, batch: Any) -> tuple[jax.Array, jax.Array]:
        (student, frozen), inputs = variables, batch["inputs"]
        assert teacher is not None
        say = teacher(frozen)
        x, sigma, label = (inputs[name] for name in ("image", "sigma", "label"))
        plain = say(x, sigma, label)
        wanted = guided(plain, say(x, sigma, jnp.full_like(label, -1)), inputs["guidance"])

        def error(said: jax.Array) -> jax.Array:
            values = losses.denoising(said, wanted, sigma, sigma_data=sigma_data)
            return jnp.where(batch["where"], values, 0).sum()

        return error(net.apply(*student, inputs).out), error(plain)

    whole = compiled(step, drawn)

    def evaluator(result: Any, frozen: Mapping[str, Any], data: Iterable[Any]) -> dict[str, float]:
        sums = [(float(a), float(b)) for a, b in sweep(whole, (result, dict(frozen)), data)]
        left, all_of_it = (sum(each) for each in zip(*sums, strict=True))
        return {"guidance_left": left / all_of_it}

    return measuring(("guidance_left",), evaluator, sweeps=True)
