"""Matching gradients (DC, DSA), distributions (DM) and attention (DataDAM) as distillers."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jaxdistill.condense.augment import Augmentation, Draw, Family, siamese
from jaxdistill.condense.flat import Flat, flat
from jaxdistill.condense.real import real_set
from jaxdistill.condense.subsets import Start, first_images, random_rows
from jaxdistill.condense.surrogates import (
    Distance,
    attention_maps,
    gradient_distance,
    mean_distance,
)
from jaxdistill.condense.synthetic import Synthetic, one_hot
from jaxdistill.distiller import Distiller
from jaxdistill.loops import for_each, scan
from jaxdistill.net import Net
from jaxdistill.settings import Count, Natural, NonNegative, Positive, checked


class Images(NamedTuple):
    """The state of the distillers that learn images alone.

    Attributes:
        step: steps done.
        key: of the run.
        params: ``images`` ``[n, H, W, C]``, class by class.
        opt: the optimizer's.
        vector: ``[P]``, the net on which gradients are matched; None where every step has a fresh
            one.
    """

    step: jax.Array
    key: jax.Array
    params: dict[str, jax.Array]
    opt: Any
    vector: Any


@checked
def match_gradients(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: Count,
    outer: Count = 1,
    inner: Natural = 1,
    real_batch: Count = 256,
    learning_rate: Positive = 0.01,
    batch_size: Count = 256,
    distance: Distance = "rows",
    augment: Sequence[Family] = (),
    images_from: Start = "noise",
    rate: Positive = 0.01,
    data: str = "train",
) -> Distiller:
    """Learns a set whose gradients are those of real images, class by class, while a net is trained
    on it.

    A net is drawn every ``outer`` steps. At each the images are moved, then the net is trained for
    ``inner`` steps on what they are now. With one step a net the net stays as it was drawn.

    Args:
        net: whose gradients are matched.
        image_shape: (H, W, C).
        classes: how many.
        tx: over ``{"images"}``.
        each: images of each class.
        outer: steps with one net.
        inner: of the net, each on a batch of the set.
        real_batch: real images of each class.
        learning_rate: of the net's SGD.
        batch_size: of the net.
        distance: see :func:`~jaxdistill.condense.surrogates.gradient_distance`.
        augment: families of :func:`~jaxdistill.condense.augment.siamese`: one draw for all images
            of a class, real and synthetic (DSA); none for DC.
        images_from: ``"noise"``, or a real subset: ``"random"``, ``"herding"``, ``"centres"``.
        rate: the learning rate that goes with the set.
        data: the entry of ``frozen`` with the training set.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic`.

    References:
        Zhao, Mopuri, Bilen, `Dataset Condensation with Gradient Matching
        <https://arxiv.org/abs/2006.05929>`_, ICLR 2021; Zhao and Bilen, `Dataset Condensation with
        Differentiable Siamese Augmentation <https://arxiv.org/abs/2102.08259>`_, ICML 2021
    """
    model, augmentation = flat(net, image_shape), siamese(augment)
    labels = one_hot(each, classes)

    def init(key, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        params = {"images": first_images(key, real, each, classes, images_from)}
        none = jnp.zeros((model.size,))
        return Images(jnp.zeros((), jnp.int32), key, params, tx.init(params), none)

    def step(state: Images, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 5)
        vector = jax.lax.cond(
            state.step % outer == 0, lambda: model.draw(keys[0]), lambda: state.vector
        )
        rows = random_rows(keys[1], real.labels, real_batch, classes)
        drawn = class_draws(keys[2], augmentation, classes)
        slopes = functools.partial(class_gradient, model, augmentation, vector)
        parts = (real.images[rows], jnp.eye(classes), drawn)
        wanted = jax.lax.map(lambda part: slopes(*part), parts)

        def loss(params):
            own = params["images"].reshape(classes, each, *image_shape)

            def of_class(part):
                *part, wanted = part
                return gradient_distance(slopes(*part), wanted, distance)

            return jax.lax.map(jax.checkpoint(of_class), (own, *parts[1:], wanted)).sum()

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        if outer > 1 and inner:
            train = functools.partial(
                trained, model, augmentation, params["images"], labels, batch_size, learning_rate
            )
            vector, _ = scan(train, vector, jax.random.split(keys[3], inner))
        metrics = {"loss": (value, jnp.ones(())), "moved": (moved(updates), jnp.ones(()))}
        return Images(state.step + 1, state.key, params, opt, vector), metrics

    return Distiller(init, step, lambda state: as_set(state, each, classes, rate), kind="data_set")


def cross_entropy(model: Flat, vector: jax.Array, images: jax.Array, goal: jax.Array) -> jax.Array:
    """The mean cross-entropy of a net with targets ``[n, classes]``."""
    return -(goal * jax.nn.log_softmax(model.apply(vector, images).out)).sum(-1).mean()


def class_gradient(
    model: Flat,
    augmentation: Augmentation,
    vector: jax.Array,
    images: jax.Array,
    goal: jax.Array,
    draw: Draw,
) -> Any:
    """The gradient, a tree of parameters, of the loss on augmented images of one class ``goal``
    ``[classes]``."""
    seen = augmentation.apply(draw, images)
    goal = jnp.broadcast_to(goal, (len(seen), len(goal)))
    return model.unravel(jax.grad(cross_entropy, argnums=1)(model, vector, seen, goal))


def trained(
    model: Flat,
    augmentation: Augmentation,
    images: jax.Array,
    labels: jax.Array,
    batch_size: int,
    learning_rate: float,
    vector: jax.Array,
    key: jax.Array,
) -> tuple[jax.Array, None]:
    """A net after a step of SGD on a random batch of a set, as ``scan`` wants it."""
    key_rows, key_draw = jax.random.split(key)
    size = min(batch_size, len(images))
    rows = jax.random.permutation(key_rows, len(images))[:size]
    seen = augmentation.apply(augmentation.draw(key_draw, size), images[rows])
    slope = jax.grad(cross_entropy, argnums=1)(model, vector, seen, labels[rows])
    return vector - learning_rate * slope, None


@checked
def match_features(
    net: Net,
    image_shape: tuple[int, ...],
    classes: int,
    tx: optax.GradientTransformation,
    *,
    each: Count,
    real_batch: Count = 256,
    feature: str = "features",
    feature_weight: NonNegative = 1.0,
    attention: Sequence[str] = (),
    attention_weight: NonNegative = 100.0,
    power: Positive = 1.0,
    augment: Sequence[Family] = (),
    images_from: Start = "random",
    rate: Positive = 0.01,
    data: str = "train",
) -> Distiller:
    """Learns a set whose mean features in random nets are those of real images, class by class.

    Args:
        net: newly drawn at every step.
        image_shape: (H, W, C).
        classes: how many.
        tx: over ``{"images"}``.
        each: images of each class.
        real_batch: real images of each class.
        feature: the tap whose means are matched.
        feature_weight: of their distance.
        attention: taps ``[B, H, W, C]`` whose mean maps of attention are matched too (DataDAM).
        attention_weight: of each.
        power: of the maps.
        augment: families of :func:`~jaxdistill.condense.augment.siamese`: one draw for all images
            of a class, real and synthetic.
        images_from: ``"noise"``, or a real subset: ``"random"``, ``"herding"``, ``"centres"``.
        rate: the learning rate that goes with the set.
        data: the entry of ``frozen`` with the training set.

    Returns:
        A :class:`~jaxdistill.distiller.Distiller` whose result is a
        :class:`~jaxdistill.condense.synthetic.Synthetic`.

    References:
        Zhao and Bilen, `Dataset Condensation with Distribution Matching
        <https://arxiv.org/abs/2110.04181>`_, WACV 2023; Sajedi et al., `DataDAM
        <https://arxiv.org/abs/2310.00093>`_, ICCV 2023
    """
    model, augmentation = flat(net, image_shape), siamese(augment)
    taps = (feature, *attention)

    def init(key, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        params = {"images": first_images(key, real, each, classes, images_from)}
        # Says which taps there are before anything is computed.
        jax.eval_shape(lambda k, x: model.apply(model.draw(k), x, taps).taps, key, real.images[:1])
        return Images(jnp.zeros((), jnp.int32), key, params, tx.init(params), None)

    def step(state: Images, frozen, batch):
        del batch
        real = real_set(frozen, data, classes)
        keys = jax.random.split(jax.random.fold_in(state.key, state.step), 3)
        vector = model.draw(keys[0])
        rows = random_rows(keys[1], real.labels, real_batch, classes)
        drawn = class_draws(keys[2], augmentation, classes)

        def features(images):
            seen = jax.lax.map(lambda part: augmentation.apply(*part), (drawn, images))
            return for_each(lambda of_class: model.apply(vector, of_class, taps).taps, seen)

        wanted = features(real.images[rows])

        def loss(params):
            own = features(params["images"].reshape(classes, each, *image_shape))
            value = feature_weight * mean_distance(own[feature], wanted[feature])
            for tap in attention:
                maps = (attention_maps(side[tap], power) for side in (own, wanted))
                value = value + attention_weight * mean_distance(*maps)
            return value

        value, gradients = jax.value_and_grad(loss)(state.params)
        updates, opt = tx.update(gradients, state.opt, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        metrics = {"loss": (value, jnp.ones(())), "moved": (moved(updates), jnp.ones(()))}
        return state._replace(step=state.step + 1, params=params, opt=opt), metrics

    return Distiller(init, step, lambda state: as_set(state, each, classes, rate), kind="data_set")


def class_draws(key: jax.Array, augmentation: Augmentation, classes: int) -> Any:
    """One draw for each class, for all of its images."""
    return jax.vmap(lambda k: augmentation.draw(k, 1))(jax.random.split(key, classes))


def moved(updates: Any) -> jax.Array:
    """How far a pixel moves in a step, the root of its mean square."""
    return jnp.sqrt(jnp.square(updates["images"]).mean())


def as_set(state: Images, each: int, classes: int, rate: float) -> Synthetic:
    """The set that a state holds."""
    return Synthetic(state.params["images"], one_hot(each, classes), jnp.asarray(rate))
