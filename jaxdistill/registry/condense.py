"""Names of what makes data sets small, for ``distiller`` and ``evaluate`` of a stage, and
``whiten`` of the data."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxdistill import condense, theory
from jaxdistill.data import split
from jaxdistill.data.records import through
from jaxdistill.distiller import Distiller
from jaxdistill.net import Net
from jaxdistill.registry._names import fixed, flattened, named, without

KERNELS: dict[str, Callable[..., Any]] = {
    "linear": theory.linear,
    "polynomial": theory.polynomial,
    "rbf": theory.rbf,
    "matern": theory.matern,
    "nngp": theory.nngp,
    "ntk": theory.ntk,
}


def kernel_named(settings: Mapping[str, Any]) -> Callable[..., Any]:
    """A kernel by its ``name``, with its keywords."""
    return fixed("kernel", KERNELS, named("kernel", settings), without(settings, "name"))


def kernel_of(name: str, student: Mapping[str, Any]) -> Callable[..., Any]:
    """The kernel of a student that is a kernel machine; ``name`` is of who asks, for the message.

    Raises:
        ValueError: for any other student.
    """
    if student["net"] != "kernel_machine":
        raise ValueError(
            f"{name!r} fits a kernel: its student must be the net 'kernel_machine', not "
            f"{student['net']!r}"
        )
    return kernel_named(student["kernel"])


def _structured(function: Callable[..., Any], **kinds: type) -> Callable[..., Any]:
    """A function that is given some of its keywords as parts of a config."""

    @functools.wraps(function)
    def made(**settings: Any) -> Any:
        for key, kind in kinds.items():
            if isinstance(settings.get(key), Mapping):
                settings[key] = fixed(key, {key: kind}, key, settings[key])()
        return function(**settings)

    return made


# The keys of ``students`` of 'match_trajectories', as configs write them still: one by one.
_STUDENTS = {"student_steps": "steps", **{name: name for name in condense.Students._fields[1:]}}


class _Still(NamedTuple):
    """The state of a distiller that changes nothing."""

    step: jax.Array
    result: condense.Synthetic


def _chosen(classes: int, each: int, choice: Any = "random", rate: float = 0.01) -> Distiller:
    """A real subset as a distiller whose steps change nothing, until stages run works."""
    work = condense.chosen(classes, each=each, choice=choice, rate=rate)

    def step(state: _Still, frozen: Any, batch: Any) -> Any:
        metrics = {"images": (jnp.asarray(float(each * classes)), jnp.ones(()))}
        return state._replace(step=state.step + 1), metrics

    return Distiller(
        lambda key, frozen, batch: _Still(jnp.zeros((), jnp.int32), work.run({}, frozen, key)),
        step,
        lambda state: state.result,
        kind="data_set",
    )


def _match_kernel(
    student: Mapping[str, Any],
    classes: int,
    tx: optax.GradientTransformation,
    each: int,
    ridge: float = 1e-6,
    real_batch: int = 1024,
    learn_targets: bool = False,
    augment: Sequence[Any] = (),
    images_from: Any = "random",
) -> Distiller:
    return condense.match_kernel(
        kernel_of("match_kernel", student),
        classes,
        tx,
        each=each,
        ridge=ridge,
        real_batch=real_batch,
        learn_targets=learn_targets,
        augment=augment,
        images_from=images_from,
    )


DISTILLERS: dict[str, Callable[..., Distiller]] = {
    "experts": _structured(condense.train_experts, flatness=condense.Flatness),
    "match_trajectories": flattened(
        _structured(condense.match_trajectories, window=condense.Window),
        students=(condense.Students, _STUDENTS),
    ),
    "match_gradients": condense.match_gradients,
    "match_features": condense.match_features,
    "match_kernel": _match_kernel,
    "match_regression": condense.match_regression,
    "chosen": _chosen,
}

# Those whose result is a synthetic set.
SETS = tuple(name for name in DISTILLERS if name != "experts")


def _protocol(settings: Mapping[str, Any] | None) -> condense.Protocol:
    return fixed("protocol", {"protocol": condense.Protocol}, "protocol", settings or {})()


def _fresh_nets(
    net: Net,
    seed: int,
    nets: int = 5,
    name: str = "",
    protocol: Mapping[str, Any] | None = None,
) -> Any:
    return condense.fresh_nets(net, seed, nets=nets, name=name, protocol=_protocol(protocol))


def _ranked(
    net: Net,
    seed: int,
    nets: int = 3,
    full_steps: int = 1000,
    protocol: Mapping[str, Any] | None = None,
) -> Any:
    made = _protocol(protocol)
    return condense.ranked(net, seed, nets=nets, full_steps=full_steps, protocol=made)


def _kernel_accuracy(kernel: Mapping[str, Any], ridge: float = 1e-6) -> Any:
    return condense.kernel_accuracy(kernel_named(kernel), ridge=ridge)


EVALUATORS: dict[str, Callable[..., Any]] = {
    "fresh_nets": _fresh_nets,
    "ranked": _ranked,
    "kernel_accuracy": _kernel_accuracy,
}


def whitened(parts: split.Splits, kind: Any) -> split.Splits:
    """All sets of a data set in the whitened space of its training set; ``info["whitening"]`` leads
    back.

    Raises:
        ValueError: for an unknown whitening.
    """
    train = parts["train"]
    images = train.gather(np.arange(len(train)))["image"]
    whitening = condense.fit_whitening(images, kind=kind)

    def of(source: Any) -> Any:
        def read(rows: np.ndarray) -> dict[str, Any]:
            records = source.read(rows)
            return {**records, "image": whitening.apply(records["image"])}

        info = {**source.info, "whitening": whitening}
        about = through(source, read, changes=lambda: f"{kind} {train.fingerprint()}")
        return dataclasses.replace(source, read=about, info=info)

    found: Any = {name: of(source) for name, source in parts.items()}
    return found
