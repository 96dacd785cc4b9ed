r"""Sets on which kernel ridge regression works: with a closed kernel (KIP), or with the features of
nets that are trained on the set as it grows (FRePo)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.condense.augment import Augmentation, Family, siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import Real, real_set
from jaxdistill.condense.subsets import Start, first_images
from jaxdistill.condense.synthetic import Synthetic, classes_of
from jaxdistill.distiller import Distiller, Metrics
from jaxdistill.net import Net
from jaxdistill.settings import Count, NonNegative, Positive, checked
from jaxdistill.theory.kernels import linear
from jaxdistill.theory.ridge import predict, ridge_fit

Kernel = Callable[[jax.Array, jax.Array], jax.Array]


class Pool(NamedTuple):
    """Nets of all ages, or one of them without the first axis.

    Attributes:
        vectors: ``[pool, P]``.
        opt: of their optimizers.
        age: ``[pool]``, int32, in steps of their own.
    """

    vectors: jax.Array
    opt: Any
    age: jax.Array


class Support(NamedTuple):
    """The state of :func:`match_kernel` and :func:`match_regression`.

    Attributes:
        step: steps done.
        key: of the run.
        params: ``images`` ``[n, H, W, C]``, and where they are learned ``targets``
            ``[n, classes]``.
        fixed: the rest of the same.
        opt: the optimizer's.
        pool: of nets; None for a closed kernel.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, jax.Array]
    fixed: dict[str, jax.Array]
    opt: Any
    pool: Pool | None


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


@checked
def match_kernel(
    kernel: Kernel,
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: Count,
    ridge: NonNegative = 1e-6,
    real_batch: Count = 1024,
    learn_targets: bool = False,
    augment: Sequence[Family] = (),
    images_from: Start = "random",
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
        keys = jax.random.split(jax.random.fold_in(state.key, state.step))
        points, labels = real_points(keys, real, augmentation, real_batch)

        def loss(params):
            whole = {**state.fixed, **params}
            return regression_loss(
                kernel, whole["images"], whole["targets"], points, centred(labels, classes), ridge
            )

        (value, found), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        state = state._replace(step=state.step + 1, params=params, opt=opt)
        return state, measured(value, found, labels)

    return Distiller(init, step, support_set, kind="data_set")


@checked
def match_regression(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: Count,
    ridge: NonNegative = 1e-6,
    real_batch: Count = 1024,
    pool: Count = 10,
    oldest: Count = 100,
    learning_rate: Positive = 3e-4,
    batch_size: Count = 1000,
    margin: NonNegative = 1.0,
    feature: str = "features",
    augment: Sequence[Family] = (),
    images_from: Start = "random",
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
    adam = optax.adam(learning_rate)

    def init(key, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        key_images, key_pool = jax.random.split(key)
        images = first_images(key_images, real, each, classes, images_from)
        targets = centred(classes_of(each, classes), classes) / (classes / 10) ** 0.5
        params = {"images": images, "targets": targets.astype(images.dtype)}
        nets = first_pool(key_pool, model, adam, pool, oldest)
        return Support(jnp.zeros((), jnp.int32), key, params, {}, tx.init(params), nets)

    def step(state: Support, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        place = jax.random.randint(keys[0], (), 0, pool)
        one: Pool = jax.tree.map(lambda x: x[place], state.pool)
        points, labels = real_points(keys[1:3], real, augmentation, real_batch)

        def kernel(x, others):
            read = lambda images: model.apply(one.vectors, images, (feature,)).taps[feature]  # noqa: E731
            return linear(read(x), read(others))

        def loss(params):
            value, found = regression_loss(
                kernel, params["images"], params["targets"], points, centred(labels, classes), ridge
            )
            return value - margin * ahead(params["targets"]), (value, found)

        (_, (value, found)), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        one = trained(keys[3], one, model, adam, params, batch_size)
        one = renewed(keys[4], one, model, adam, oldest)
        nets = jax.tree.map(lambda whole, own: whole.at[place].set(own), state.pool, one)
        state = Support(state.step + 1, state.key, params, state.fixed, opt, nets)
        return state, measured(value, found, labels)

    return Distiller(init, step, support_set, kind="data_set")


def real_points(
    keys: jax.Array, real: Real, augmentation: Augmentation, count: int
) -> tuple[jax.Array, jax.Array]:
    """Real images, augmented, and their labels: ``count`` of all classes, drawn without
    replacement."""
    size = min(count, len(real.labels))
    rows = jax.random.choice(keys[0], len(real.labels), (size,), replace=False)
    points = augmentation.apply(augmentation.draw(keys[1], size), real.images[rows])
    return points, real.labels[rows]


def ahead(targets: jax.Array) -> jax.Array:
    """By how much the first class of each target is ahead of its second, at most 1/classes; the
    mean."""
    best = jax.lax.top_k(targets, 2)[0]
    return jnp.minimum(best[:, 0] - best[:, 1], 1 / targets.shape[1]).mean()


def first_pool(
    key: jax.Array, model: Flat, adam: optax.GradientTransformation, count: int, oldest: int
) -> Pool:
    """Fresh nets whose ages are spread out evenly below ``oldest``."""
    vectors = jax.vmap(model.draw)(jax.random.split(key, count))
    age = jnp.arange(count, dtype=jnp.int32) * (oldest // count)
    return Pool(vectors, jax.vmap(adam.init)(vectors), age)


def trained(
    key: jax.Array,
    one: Pool,
    model: Flat,
    adam: optax.GradientTransformation,
    params: Mapping[str, jax.Array],
    batch_size: int,
) -> Pool:
    """A net after a step on the squared errors of a random batch of a set."""
    count = len(params["images"])
    rows = jax.random.permutation(key, count)[: min(batch_size, count)]

    def error(vector):
        out = model.apply(vector, params["images"][rows]).out
        return 0.5 * jnp.square(out - params["targets"][rows]).sum(-1).mean()

    moves, opt = adam.update(jax.grad(error)(one.vectors), one.opt)
    vector: Any = optax.apply_updates(one.vectors, moves)
    return Pool(vector, opt, one.age + 1)


def renewed(
    key: jax.Array, one: Pool, model: Flat, adam: optax.GradientTransformation, oldest: int
) -> Pool:
    """A net, or a fresh one where it is ``oldest``."""
    vector = model.draw(key)
    fresh = Pool(vector, adam.init(vector), jnp.zeros_like(one.age))
    return jax.tree.map(lambda new, old: jnp.where(one.age >= oldest, new, old), fresh, one)


def measured(value: jax.Array, found: jax.Array, labels: jax.Array) -> Metrics:
    """The loss, and how many of the real points are fitted right."""
    right = (found.argmax(-1) == labels).astype(value.dtype).mean()
    return {"loss": (value, jnp.ones(())), "fit_accuracy": (right, jnp.ones(()))}


def support_set(state: Support) -> Synthetic:
    """The set that a state holds."""
    whole = {**state.fixed, **state.params}
    return Synthetic(whole["images"], whole["targets"], jnp.asarray(0.01))
