"""Every kind of distillation through the one loop.

The kinds are in ``tests/contract``, each at most 60 lines. All pass the same trials: what they
leave behind is right; stopped and resumed equals unbroken, bit for bit; two devices equal one;
several seeds at once equal each alone.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import tempfile
from pathlib import Path
from typing import Any

import jax
import pytest
from contract import networks, streams, structures, students, works
from contract.parts import (
    ADAM,
    STEPS,
    STUDENT,
    TEACHER,
    agreement,
    cross_entropy,
    equal,
    near,
    no_targets,
    stage,
    trained_teacher,
)

from jaxdistill import targets
from jaxdistill.distiller import model_to_model
from jaxdistill.training.loop import over_seeds, run_stage
from jaxdistill.training.sharding import make_mesh

# What follows a work is a stage like others.
WORKS = [works.search, works.written_records]
KINDS = [
    students.projector_bank_discriminator,
    students.averaged_teacher,
    students.changing_mixture,
    students.moving_teacher,
    students.stacked_students,
    structures.low_rank_adapters,
    structures.supernet,
    structures.padded_graphs,
    structures.frozen_decoder,
    networks.matched_density,
    networks.encoder_generator_discriminator,
    networks.bound_in_turn,
    streams.online_stream,
    streams.trajectory_matching,
    streams.on_policy,
    *WORKS,
]
# Those whose step is of a shape of its own are run for several seeds as well.
SEEDS = [
    students.projector_bank_discriminator,
    students.averaged_teacher,
    structures.low_rank_adapters,
    networks.matched_density,
    networks.encoder_generator_discriminator,
    streams.trajectory_matching,
    streams.on_policy,
]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
STOP = 5


@functools.cache
def made(kind):
    return kind()


@functools.cache
def unbroken(kind) -> Any:
    """What a run on two devices leaves, with checkpoints, as these write what was measured."""
    kept = dataclasses.replace(made(kind).stage, checkpoint_every=STOP)
    with tempfile.TemporaryDirectory() as directory:
        return run_stage(kept, directory, mesh=mesh(2), quiet=True)


def mesh(devices: int) -> jax.sharding.Mesh:
    return make_mesh({"data": devices}, jax.devices()[:devices])


def numbers(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "steps_per_second"} for line in metrics]


class Stopped(Exception):
    """What happens when a machine goes away."""


def broken(stream: Any) -> Any:
    """A stream that fails in the middle of the run."""

    class Interrupting:
        def at(self, step, takes=1):
            return stream.at(step, takes)

        def iterate(self, start=0, takes=1):
            for place, batch in enumerate(stream.iterate(start, takes), start):
                if place == STOP + 2:
                    raise Stopped
                yield batch

    return Interrupting()


def stopping(trial_stage: Any) -> Any:
    """A stage that fails in the middle of the run."""
    data = trial_stage.data
    if data is None:  # no batches: what is measured fails

        def fail(result, frozen, plan):
            if plan is not None:  # as it is before step 0
                raise Stopped
            return {}

        return dataclasses.replace(trial_stage, between=(STOP + 2, fail))
    if callable(data):
        return dataclasses.replace(trial_stage, data=lambda plan: broken(data(plan)))
    return dataclasses.replace(trial_stage, data=broken(data))


@each_kind
def test_what_is_left_is_right(kind):
    assert unbroken(kind).metrics[-1]["step"] == STEPS
    made(kind).right(unbroken(kind))


@each_kind
def test_resumed_equals_unbroken(kind, tmp_path):
    kept = dataclasses.replace(made(kind).stage, checkpoint_every=STOP)
    with pytest.raises(Stopped):
        run_stage(stopping(kept), tmp_path, mesh=mesh(2), quiet=True)
    resumed = run_stage(kept, tmp_path, mesh=mesh(2), quiet=True)
    equal(resumed.result, unbroken(kind).result)
    assert numbers(resumed.metrics) == numbers(unbroken(kind).metrics)
    # What is finished is read, not run again.
    again = run_stage(stopping(kept), tmp_path, mesh=mesh(2), quiet=True)
    equal(again.result, unbroken(kind).result)


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind not in WORKS], ids=lambda kind: kind.__name__
)
def test_two_devices_equal_one(kind):
    one = run_stage(made(kind).stage, mesh=mesh(1), quiet=True)
    near(one.result, unbroken(kind).result, 2e-5)


@pytest.mark.parametrize("kind", SEEDS, ids=lambda kind: kind.__name__)
def test_several_seeds_at_once(kind):
    trial = made(kind).stage
    distiller, frozen = trial.distiller, trial.frozen
    batch = trial.data.at(0, distiller.takes) if distiller.takes else {}
    many = over_seeds(distiller, 3)

    def stepped(one, key):
        state = jax.jit(one.init)(key, frozen, batch)
        return one.result(jax.jit(one.step)(state, frozen, batch)[0])

    key = jax.random.key(2)
    ours = jax.tree.map(lambda x: x[1], stepped(many, key))
    near(ours, stepped(distiller, jax.random.split(key, 3)[1]))


@each_kind
def test_a_kind_is_read_at_a_glance(kind):
    assert len(inspect.getsource(kind).splitlines()) <= 60


def test_files_of_kinds_are_short():
    for file in (Path(__file__).parent / "contract").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 400, file


def test_two_stages_hand_over():
    frozen = {"teacher": trained_teacher()}
    distiller = model_to_model(STUDENT, targets.live(TEACHER), agreement, ADAM)
    first = run_stage(stage(distiller, frozen), quiet=True)
    second = model_to_model(STUDENT, no_targets, cross_entropy, ADAM, initial="student")
    none = run_stage(stage(second, initial={"student": first.result}, steps=0), quiet=True)
    equal(none.result, first.result)
    tuned = run_stage(stage(second, initial={"student": first.result}), quiet=True)
    fresh = run_stage(stage(model_to_model(STUDENT, no_targets, cross_entropy, ADAM)), quiet=True)
    assert tuned.metrics[-1]["ce"] < fresh.metrics[-1]["ce"]
