r"""Sets on which kernel ridge regression works: with a closed kernel (KIP), or with the features of
nets that are trained on the set as it grows (FRePo)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.condense.augment import siamese
from jaxdistill.condense.flat import flat
from jaxdistill.condense.matching import first_images
from jaxdistill.condense.real import real_set
from jaxdistill.condense.synthetic import Synthetic, classes_of
from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.theory.kernels import linear
from jaxdistill.theory.ridge import predict, ridge_fit

Kernel = Callable[[jax.Array, jax.Array], jax.Array]


class Support(NamedTuple):
    """The state of :func:`match_kernel` and :func:`match_regression`.

    Attributes:
        step: steps done.
        key: of the run.
        params: ``images`` ``[n, H, W, C]``, and where they are learned ``targets``
            ``[n, classes]``.
        fixed: the rest of the same.
        opt: the optimizer's.
        pool: of nets: ``vectors`` ``[pool, P]``, their optimizers, ``age`` ``[pool]`` in steps;
            None for a closed kernel.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, jax.Array]
    fixed: dict[str, jax.Array]
    opt: Any
    pool: Any


def centred(labels: jax.Array, classes: int) -> jax.Array:
    """Targets of regression: one-hot less 1/classes, ``[n, classes]``."""
    return jax.nn.one_hot(labels, classes) - 1 / classes


def support_fit(kernel: jax.Array, targets: jax.Array, ridge: float) -> jax.Array:
    r"""Coefficients of the fit :math:`(K + \lambda \frac{\mathrm{tr} K}{n} I)^{-1} y` with the
    ridge relative to the kernel.

    Args:
        kernel: ``[n, n]``.
        targets: ``[n, c]``.
        ridge: :math:`\lambda`.
    """
    return ridge_fit(kernel, targets, ridge * jnp.trace(kernel) / len(kernel)).coefficients


def regression_loss(
    kernel: Kernel,
    images: jax.Array,
    targets: jax.Array,
    points: jax.Array,
    wanted: jax.Array,
    ridge: float,
) -> tuple[jax.Array, jax.Array]:
    """Half the mean squared error of the fit to a set at other points, and its predictions."""
    coefficients = support_fit(kernel(images, images), targets, ridge)
    found = predict(kernel(points, images), coefficients)
    return 0.5 * jnp.square(found - wanted).sum(-1).mean(), found


def match_kernel(
    kernel: Kernel,
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: int,
    ridge: float = 1e-6,
    real_batch: int = 1024,
    learn_targets: bool = False,
    augment: Sequence[str] = (),
    images_from: str = "random",
    data: str = "train",
) -> Distiller:
    r"""Learns the points on which kernel ridge regression fits real ones best.

    .. math:: \frac12 \bigl\| y_t - K_{ts} (K_{ss} + \lambda \tfrac{\mathrm{tr} K_{ss}}{n} I)^{-1}
        y_s \bigr\|^2

    Args:
        kernel: ``(x [n, ...], others [m, ...]) -> [n, m]``, of :mod:`jaxdistill.theory`.
        classes: how many; targets are one-hot less 1/classes.
        tx: over ``{"images", "targets"}``, whichever are learned.
        each: images of each class.
        ridge: relative to the mean of the kernel's diagonal.
        real_batch: real images of a step, of all classes.
        learn_targets: whether targets are learned too.
        augment: families of :func:`~jaxdistill.condense.augment.siamese` for the real images.
        images_from: ``"noise"``, or a real subset: ``"random"``, ``"herding"``, ``"centres"``.
        data: the entry of ``frozen`` with the training set.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic` with real-valued targets.

    References:
        Nguyen, Chen, Lee, `Dataset Meta-Learning from Kernel Ridge-Regression
        <https://arxiv.org/abs/2011.00050>`_, ICLR 2021
    """
    augmentation = siamese(augment)

    def init(key, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        images = first_images(key, real, each, classes, images_from)
        targets = centred(classes_of(each, classes), classes).astype(images.dtype)
        params, fixed = {"images": images}, {}
        (params if learn_targets else fixed)["targets"] = targets
        return Support(jnp.zeros((), jnp.int32), key, params, fixed, tx.init(params), None)

    def step(state: Support, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        key_rows, key_draw = jax.random.split(jax.random.fold_in(state.key, state.step))
        size = min(real_batch, len(real.labels))
        rows = jax.random.choice(key_rows, len(real.labels), (size,), replace=False)
        points = augmentation.apply(augmentation.draw(key_draw, size), real.images[rows])
        labels = real.labels[rows]

        def loss(params):
            whole = {**state.fixed, **params}
            return regression_loss(
                kernel, whole["images"], whole["targets"], points, centred(labels, classes), ridge
            )

        (value, found), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        right = (found.argmax(-1) == labels).astype(value.dtype).mean()
        metrics = {"loss": (value, jnp.ones(())), "fit_accuracy": (right, jnp.ones(()))}
        return state._replace(step=state.step + 1, params=params, opt=opt), metrics

    return Distiller(init, step, support_set)


def match_regression(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: int,
    ridge: float = 1e-6,
    real_batch: int = 1024,
    pool: int = 10,
    oldest: int = 100,
    learning_rate: float = 3e-4,
    batch_size: int = 1000,
    margin: float = 1.0,
    feature: str = "features",
    augment: Sequence[str] = (),
    images_from: str = "random",
    data: str = "train",
) -> Distiller:
    r"""Learns images and targets on which ridge regression from a net's features works, with nets
    of all ages from a pool.

    Each step takes one net of the pool, moves the set by the loss of :func:`match_kernel` with the
    linear kernel of the net's features, then trains that net on the set for a step; a net that is
    old enough is drawn anew. The margin of each target, what its first class is ahead of the
    second, is worth as much as up to 1/classes.

    Args:
        net: what the pool holds.
        image_shape: (H, W, C).
        classes: how many.
        tx: over ``{"images", "targets"}``.
        each: images of each class.
        ridge: relative to the mean of the kernel's diagonal.
        real_batch: real images of a step.
        pool: how many nets.
        oldest: after how many steps of its own a net is drawn anew; ages are spread out evenly at
            first.
        learning_rate: of the nets' Adam, which minimises squared errors.
        batch_size: of the nets.
        margin: weight of the targets' margin.
        feature: the tap that the kernel is of.
        augment: families of :func:`~jaxdistill.condense.augment.siamese` for the real images.
        images_from: ``"noise"``, or a real subset: ``"random"``, ``"herding"``, ``"centres"``.
        data: the entry of ``frozen`` with the training set.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic` with real-valued targets.

    References:
        Zhou, Nezhadarya, Ba, `Dataset Distillation using Neural Feature Regression
        <https://arxiv.org/abs/2206.00719>`_, NeurIPS 2022
    """
    model, augmentation = flat(net, image_shape), siamese(augment)
    count = each * classes
    size, adam = min(batch_size, count), optax.adam(learning_rate)

    def init(key, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        key_images, key_pool = jax.random.split(key)
        images = first_images(key_images, real, each, classes, images_from)
        targets = centred(classes_of(each, classes), classes) / (classes / 10) ** 0.5
        params = {"images": images, "targets": targets.astype(images.dtype)}
        vectors = jax.vmap(model.draw)(jax.random.split(key_pool, pool))
        nets = {
            "vectors": vectors,
            "opt": jax.vmap(adam.init)(vectors),
            "age": jnp.arange(pool, dtype=jnp.int32) * (oldest // pool),
        }
        return Support(jnp.zeros((), jnp.int32), key, params, {}, tx.init(params), nets)

    def step(state: Support, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        place = jax.random.randint(keys[0], (), 0, pool)
        vector, opt_net, age = jax.tree.map(
            lambda x: x[place], (state.pool["vectors"], state.pool["opt"], state.pool["age"])
        )
        amount = min(real_batch, len(real.labels))
        rows = jax.random.choice(keys[1], len(real.labels), (amount,), replace=False)
        points = augmentation.apply(augmentation.draw(keys[2], amount), real.images[rows])
        labels = real.labels[rows]

        def kernel(x, others):
            read = lambda images: model.apply(vector, images, (feature,)).taps[feature]  # noqa: E731
            return linear(read(x), read(others))

        def loss(params):
            value, found = regression_loss(
                kernel, params["images"], params["targets"], points, centred(labels, classes), ridge
            )
            best = jax.lax.top_k(params["targets"], 2)[0]
            ahead = jnp.minimum(best[:, 0] - best[:, 1], 1 / classes).mean()
            return value - margin * ahead, (value, found)

        (_, (value, found)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)

        chosen = jax.random.permutation(keys[3], count)[:size]

        def error(vector):
            out = model.apply(vector, params["images"][chosen]).out
            return 0.5 * jnp.square(out - params["targets"][chosen]).sum(-1).mean()

        moves, opt_net = adam.update(jax.grad(error)(vector), opt_net)
        vector, age = optax.apply_updates(vector, moves), age + 1
        fresh = model.draw(keys[4])
        vector, opt_net, age = jax.tree.map(
            lambda new, old: jnp.where(age >= oldest, new, old),
            (fresh, adam.init(fresh), jnp.zeros_like(age)),
            (vector, opt_net, age),
        )
        nets = jax.tree.map(
            lambda whole, one: whole.at[place].set(one),
            state.pool,
            {"vectors": vector, "opt": opt_net, "age": age},
        )
        right = (found.argmax(-1) == labels).astype(value.dtype).mean()
        metrics = {"loss": (value, jnp.ones(())), "fit_accuracy": (right, jnp.ones(()))}
        return Support(state.step + 1, state.key, params, state.fixed, opt, nets), metrics

    return Distiller(init, step, support_set)


def support_set(state: Support) -> Synthetic:
    """The set that a state holds."""
    whole = {**state.fixed, **state.params}
    return Synthetic(whole["images"], whole["targets"], jnp.asarray(0.01))
