"""One-step generators that match a density: DMD, DMD2 and SiD, with alternating updates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxdistill._errors import unknown
from jaxdistill.distiller import Distiller, scan
from jaxdistill.net import Net
from jaxdistill.samplers import _training as common
from jaxdistill.samplers import losses, schedules
from jaxdistill.samplers._training import Prepare, State, Teacher
from jaxdistill.samplers.paths import over

# Levels among which those of the noise on samples are drawn.
LEVELS = 1000


def distribution_matching(
    net: Net,
    fake: Net,
    tx: optax.GradientTransformation,
    fake_tx: optax.GradientTransformation,
    teacher: Teacher,
    *,
    ratio: int = 5,
    matching: str = "distribution",
    alpha: float = 1.2,
    levels: Sequence[float] = (80.0,),
    within: tuple[float, float] = (0.02, 0.98),
    low: float = 0.002,
    high: float = 80.0,
    sigma_data: float = 0.5,
    head: Net | None = None,
    tap: str = "bottleneck",
    generator_weight: float = 3e-3,
    critic_weight: float = 1e-2,
    labels: bool = False,
    classes: int = 0,
    ema: Any = None,
    prepare: Prepare | None = None,
    initial: str | None = None,
) -> Distiller:
    r"""A generator whose samples a teacher and an estimate of their own density agree on.

    One step updates the generator once, and then ``ratio`` times the estimate (a denoiser that is
    trained on the generator's samples), all in one program without branches. With a ``head`` the
    estimate is a discriminator as well, of noised data from noised samples, which DMD2 adds.

    With more than one level the generator takes several steps: one of them is drawn for the whole
    batch, those before it are run without gradient from pure noise, each followed by new noise, and
    it is trained there. It sees what it will see when it is sampled.

    Args:
        net: the generator, a denoiser.
        fake: the denoiser of its samples.
        tx: the generator's optimizer.
        fake_tx: the other's, and the head's.
        teacher: the denoiser of the data.
        ratio: updates of the estimate for one of the generator.
        matching: ``"distribution"`` for DMD, ``"identity"`` for SiD, which is differentiated
            through both denoisers.
        alpha: of :func:`~jaxdistill.samplers.losses.score_identity`.
        levels: of the generator's noise, falling; one for a generator of one step.
        within: which part of the 1000 levels of Karras et al., counted from the least, the noise on
            samples is drawn from when the generator learns.
        low: the least of them.
        high: the largest.
        sigma_data: standard deviation of the data.
        head: the discriminator's last layers, a net from the feature to one logit an example; None
            for no adversarial part.
        tap: the feature of ``fake`` that it reads.
        generator_weight: of what the generator pays for being found out.
        critic_weight: of what the discriminator pays.
        labels: whether labels are inputs; those of samples are drawn evenly.
        classes: how many there are.
        ema: decay of the generator's running average; with one the result is the average.
        prepare: ``(batch, key) -> batch``; what it gives as ``student`` is the data.
        initial: the entry of the frozen variables that both generator and estimate start from.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` that takes ``ratio`` batches a step with a head,
        else one, of which it reads only the shape. Metrics: ``gradient``, the mean square of what
        the generator follows (it is no measure of progress); ``fake``, the estimate's loss; with a
        head also ``generator`` and ``critic``.

    Raises:
        ValueError: for levels that do not fall, a ratio below 1, labels without their number.

    References:
        Yin et al., Improved Distribution Matching Distillation, 2024; Zhou et al., Score identity
        Distillation, 2024.
    """
    if matching not in ("distribution", "identity"):
        raise ValueError(unknown("matching", matching, ("distribution", "identity")))
    if ratio < 1:
        raise ValueError(f"ratio must be at least 1, got {ratio}")
    if not levels or list(levels) != sorted(set(levels), reverse=True):
        raise ValueError(f"levels of a generator must fall, got {tuple(levels)}")
    if labels and not classes:
        raise ValueError("a generator with labels needs the number of classes")
    ladder = tuple(float(level) for level in levels)

    def init(key, frozen, batch):
        if head is not None:
            batch = jax.tree.map(lambda x: x[0], batch)
        image, label = common.read(batch, key, prepare, labels)
        inputs = common.noised(image, jnp.ones(len(image)), label)
        params = {
            "net": common.begin(key, net, inputs, frozen, initial),
            "fake": common.begin(jax.random.fold_in(key, 1), fake, inputs, frozen, initial),
        }
        critic = {"fake": params["fake"]}
        if head is not None:
            feature = fake.apply(params["fake"], {}, inputs, taps=(tap,)).taps[tap]
            params["head"] = critic["head"] = head.init(jax.random.fold_in(key, 2), feature)[0]
        average = None if ema is None else jax.tree.map(jnp.copy, params["net"])
        opt = {"net": tx.init(params["net"]), "critic": fake_tx.init(critic)}
        return State(jnp.zeros((), jnp.int32), key, params, opt, average)

    def drawn_labels(key, count):
        return jax.random.randint(key, (count,), 0, classes) if labels else None

    def generate(params, key, like, label):
        """Samples, the last step differentiable."""
        keys = jax.random.split(key, 3)
        x = ladder[0] * jax.random.normal(keys[0], like.shape, like.dtype)
        sigma = jnp.asarray(ladder[0], like.dtype)
        if len(ladder) > 1:
            grid = jnp.asarray(ladder, like.dtype)
            rung = jax.random.randint(keys[1], (), 0, len(ladder))

            def down(place, x):
                data = net.apply(params, {}, common.noised(x, grid[place], label)).out
                noise = jax.random.normal(jax.random.fold_in(keys[2], place), x.shape, x.dtype)
                return jax.lax.stop_gradient(data + grid[place + 1] * noise)

            x, sigma = jax.lax.fori_loop(0, rung, down, x), grid[rung]
        return net.apply(params, {}, common.noised(x, sigma, label), train=True, rng=key).out

    def noise_on(key, x, lower, upper):
        keys = jax.random.split(key)
        index = jax.random.randint(keys[0], x.shape[:1], lower, upper)
        sigma = schedules.rising_karras(index, LEVELS, low, high).astype(x.dtype)
        return x + over(sigma, x) * jax.random.normal(keys[1], x.shape, x.dtype), sigma

    def logits(critic, feature):
        assert head is not None
        return head.apply(critic["head"], {}, feature).out.reshape(len(feature))

    def generator_loss(params, critic, frozen, keys, like):
        label = drawn_labels(keys[0], len(like))
        x = generate(params, keys[1], like, label)
        y, sigma = noise_on(keys[2], x, int(within[0] * LEVELS), int(within[1] * LEVELS) + 1)
        if matching == "distribution":
            y = jax.lax.stop_gradient(y)
        real = teacher(frozen)(y, sigma, label)
        guess = fake.apply(critic["fake"], {}, common.noised(y, sigma, label)).out
        if matching == "distribution":
            values = losses.gradient_as_loss(x, losses.matching_gradient(x, real, guess))
        else:
            values = losses.score_identity(x, real, guess, alpha=alpha)
        metrics = {"gradient": common.mean(2 * values)}
        if head is None:
            return values.mean(), metrics
        y, sigma = noise_on(keys[3], x, 0, LEVELS)
        seen = fake.apply(critic["fake"], {}, common.noised(y, sigma, label), taps=(tap,)).taps[tap]
        paid = losses.adversarial_generator(logits(critic, seen))
        metrics["generator"] = common.mean(paid)
        return values.mean() + generator_weight * paid.mean(), metrics

    def critic_loss(critic, params, keys, data, own_label):
        label = drawn_labels(keys[0], len(data))
        x = jax.lax.stop_gradient(generate(params, keys[1], data, label))
        y, sigma = noise_on(keys[2], x, 0, LEVELS)
        said = fake.apply(
            critic["fake"], {}, common.noised(y, sigma, label), train=True, rng=keys[3]
        ).out
        values = losses.denoising(said, x, sigma, sigma_data=sigma_data)
        metrics = {"fake": common.mean(values)}
        if head is None:
            return values.mean(), metrics

        def found(x, label, key):
            y, sigma = noise_on(key, x, 0, LEVELS)
            inputs = common.noised(y, sigma, label)
            return logits(critic, fake.apply(critic["fake"], {}, inputs, taps=(tap,)).taps[tap])

        paid = losses.adversarial_critic(found(data, own_label, keys[4]), found(x, label, keys[5]))
        metrics["critic"] = common.mean(paid)
        return values.mean() + critic_weight * paid.mean(), metrics

    def step(state, frozen, batch):
        key = jax.random.fold_in(state.key, state.step)
        batches = batch if head is not None else jax.tree.map(lambda x: x[None], batch)
        first = jax.tree.map(lambda x: x[0], batches)
        like, _ = common.read(first, key, prepare, labels)
        critic = {name: state.params[name] for name in state.params if name != "net"}
        keys = jax.random.split(key, 4)
        (_, metrics), gradient = jax.value_and_grad(generator_loss, has_aux=True)(
            state.params["net"], critic, frozen, keys, like
        )
        params, opt = common.advance(tx, state.params["net"], state.opt["net"], gradient)

        def update(carry, now):
            critic, opt = carry
            place, batch = now
            keys = jax.random.split(jax.random.fold_in(key, place + 1), 7)
            data, label = like, None
            if head is not None:
                data, label = common.read(batch, keys[6], prepare, labels)
            (_, metrics), gradient = jax.value_and_grad(critic_loss, has_aux=True)(
                critic, params, keys, data, label
            )
            return common.advance(fake_tx, critic, opt, gradient), metrics

        # Without a head the updates of the estimate need no data.
        given = batches if head is not None else None
        (critic, critic_opt), measured = scan(
            update, (critic, state.opt["critic"]), (jnp.arange(ratio), given)
        )
        metrics |= jax.tree.map(lambda x: x.sum(0), measured)
        average = common.averaged(ema, state.ema, params, state.step)
        after = State(
            state.step + 1,
            state.key,
            {"net": params, **critic},
            {"net": opt, "critic": critic_opt},
            average,
        )
        return after, metrics

    return Distiller(init, step, common.result, takes=ratio if head is not None else 1)
