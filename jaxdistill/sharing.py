"""Students that share weights with a teacher: its classifier, on features of their own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxdistill._errors import unknown
from jaxdistill.data.mixing import mixed_statistics
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.losses.numerics import wide_dtype
from jaxdistill.models._common import image_of
from jaxdistill.net import Net, from_function
from jaxdistill.settings import Positive, checked


@checked
def shared_classifier(
    body: nn.Module,
    teacher: str,
    *,
    read: str,
    head: str = "head",
    shifted_at: str = "",
    alpha: Positive = 0.1,
) -> Callable[[Mapping[str, Any]], Net]:
    """A student whose features are brought to the width of its teacher's and classified by its
    teacher's own classifier, which stays as it is.

    Besides ``out`` the net has the taps ``features`` ``[B, D]``, what the classifier reads, and in
    training ``shifted``, the same of images with statistics that are mixed with those of another of
    the batch (weights from Beta(alpha, alpha)). ``params`` of its forward pass hold
    ``classifier/kernel`` ``[D, K]``, for losses that read it.

    Args:
        body: the student's own module; its head, if it has one, is not read.
        teacher: the name of the teacher in the frozen variables.
        read: the tap of the body that is projected; positions are averaged.
        head: the path of the teacher's classifier among its parameters, a linear layer.
        shifted_at: the module whose maps have their statistics mixed; the image itself if empty.
        alpha: of the mixed statistics; with a small one most images keep theirs, or take another's.

    Returns:
        A function of the frozen variables to the net.

    Raises:
        ValueError: for a teacher that has no such classifier; for a module that makes no maps.

    References:
        Tang et al., Distribution Shift Matters for Knowledge Distillation with Webly Collected
        Images, ICCV 2023.
    """
    plain = from_linen(body)
    moved = from_linen(body, call=_shifting(shifted_at))

    def made(frozen: Mapping[str, Any]) -> Net:
        classifier = jax.lax.stop_gradient(_classifier(frozen[teacher][0], head))
        width = classifier["kernel"].shape[0]

        def init(key, inputs):
            key_body, key_projector = jax.random.split(key)
            params, state = plain.init(key_body, inputs)
            reading = functools.partial(_read, plain, read)
            seen = jax.eval_shape(reading, params, state, inputs)
            start = nn.initializers.xavier_uniform()
            kernel = start(key_projector, (seen.shape[-1], width), wide_dtype(seen))
            projector = {"kernel": kernel, "bias": jnp.zeros(width, kernel.dtype)}
            return {"body": params, "projector": projector}, state

        def apply(params, state, inputs, *, train, rng):
            own = {"train": train, "rng": rng}
            seen = plain.apply(params["body"], state, inputs, taps=(read,), **own)
            found = {"features": _projected(params, seen.taps[read])}
            out = found["features"] @ classifier["kernel"] + classifier["bias"][None]
            if train and rng is not None:
                image = image_of(inputs)
                key = jax.random.fold_in(rng, 1)
                weights = jax.random.beta(key, alpha, alpha, (image.shape[0],), image.dtype)
                again = moved.apply(params["body"], state, (inputs, weights), taps=(read,), **own)
                found["shifted"] = _projected(params, again.taps[read])
            return out, found, seen.state

        net = from_function(init, apply)

        def with_classifier(params, state, inputs, **how):
            forward = net.apply(params, state, inputs, **how)
            return forward._replace(params={**forward.params, "classifier": classifier})

        return Net(init, with_classifier)

    return made


def _shifting(at: str) -> Callable[[nn.Module, Any, bool], Any]:
    """How a module is called whose statistics at some place are mixed by given weights."""

    def call(module: nn.Module, inputs: Any, train: bool) -> Any:
        inputs, weights = inputs
        plain: Any = module
        how = {"train": train}
        if not at:
            image = mixed_statistics(image_of(inputs), weights)
            return plain(
                {**inputs, "image": image} if isinstance(inputs, Mapping) else image, **how
            )

        def shift(layer_call, args, kwargs, context):
            out = layer_call(*args, **kwargs)
            if "/".join(context.module.path) != at or context.method_name != "__call__":
                return out
            if jnp.ndim(out) != 4:
                raise ValueError(f"{at!r} gives {jnp.shape(out)}, and statistics are of maps")
            return mixed_statistics(out, weights)

        with nn.intercept_methods(shift):
            return plain(inputs, **how)

    return call


def _classifier(params: Mapping[str, Any], head: str) -> dict[str, jax.Array]:
    """The weights of a linear layer."""
    tree: Any = params
    for part in head.split("/"):
        if not isinstance(tree, Mapping) or part not in tree:
            there = tree if isinstance(tree, Mapping) else ()
            raise ValueError(unknown("classifier among the teacher's parameters", head, there))
        tree = tree[part]
    if not isinstance(tree, Mapping) or "kernel" not in tree or jnp.ndim(tree["kernel"]) != 2:
        raise ValueError(f"{head!r} of the teacher is no linear layer, and cannot be shared")
    kernel = tree["kernel"]
    return {"kernel": kernel, "bias": tree.get("bias", jnp.zeros(kernel.shape[1], kernel.dtype))}


def _read(net: Net, read: str, params: Any, state: Any, inputs: Any) -> jax.Array:
    return net.apply(params, state, inputs, taps=(read,)).taps[read]


def _projected(params: Mapping[str, Any], features: jax.Array) -> jax.Array:
    features = features.astype(wide_dtype(features))
    pooled = features.reshape(features.shape[0], -1, features.shape[-1]).mean(1)
    return pooled @ params["projector"]["kernel"] + params["projector"]["bias"][None]
