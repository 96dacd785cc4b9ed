"""Mistakes of programs that call the library: one sentence each, before anything is compiled."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import fit, from_linen, model_to_model
from jaxdistill.losses import hinton_kd
from jaxdistill.net import Trained
from jaxdistill.objective import Term, match, per_example
from jaxdistill.training.stage import Evaluation

NET = from_linen(nn.Dense(3))
SGD = optax.sgd(0.1)
TEACHER = NET.init(jax.random.key(0), jnp.ones((4, 2)))
ARRAYS = {"image": np.ones((16, 2), np.float32), "label": np.arange(16) % 3}


def live(sources, batch, key, step):
    return {"out": NET.apply(*sources["teacher"], batch["image"]).out}


def squared(forward, goal, batch):
    return {"l2": per_example(1.0, ((forward.out - goal["out"]) ** 2).mean(-1))}


def of(values):
    return lambda forward, goal, batch: values(forward.out)


class Frame:
    columns = ("image", "label")


MADE = {
    "no student": ({"student": None}, "student must be a function .* or a Net, not None"),
    "a module": ({"student": nn.Dense(3)}, r"not a Flax Linen module \(from_linen takes it\)"),
    "no targets": ({"targets": None}, "targets must be a function .*, not None"),
    "no objective": ({"objective": None}, "objective must be a function .*, not None"),
    "a dict": ({"objective": {"l2": squared}}, r"a dict of 'l2': combine\(objective\) makes one"),
    "a number": ({"tx": 0.1}, "tx must be an optimizer of optax.* not a float"),
    "uncalled": ({"tx": optax.sgd}, "tx must be an optimizer of optax.* not a function"),
}


def made(student=NET, targets=live, objective=squared, tx=SGD):
    return model_to_model(student, targets, objective, tx)


@pytest.mark.parametrize("name", MADE)
def test_what_a_distiller_is_made_of(name):
    given, words = MADE[name]
    with pytest.raises(TypeError, match=words):
        made(**given)


TERMS = {
    "an array": (lambda out: out.mean(), r"gives \{name: Term\}, not an array \(\): per_example"),
    "values": (lambda out: {"l2": out}, r"'l2' is an array \(8, 3\): per_example"),
    "a number": (lambda out: {"l2": 3.0}, "'l2' is a float"),
    "a lone term": (lambda out: per_example(1.0, out), "not a Term"),
    "with a state": (lambda out: (out.mean(), {}), "not a tuple"),
    "nothing": (lambda out: None, "not None"),
    "no sum": (lambda out: {"l2": Term(1.0, out.mean(-1), 8.0)}, r"of term 'l2' has shape \(8,\)"),
}


@pytest.mark.parametrize("name", TERMS)
def test_what_an_objective_gives(name):
    values, words = TERMS[name]
    with pytest.raises(TypeError, match=words):
        fit(made(objective=of(values)), {"teacher": TEACHER}, ARRAYS, 2, batch_size=8, quiet=True)


FIT = {
    "no distiller": ({"distiller": None}, "distiller must be a Distiller.* not None"),
    "a net": ({"distiller": NET}, "distiller must be a Distiller.* not a Net"),
    "a pair": ({"frozen": TEACHER}, "frozen must be a dict of variables by name.* not a tuple"),
    "parameters": ({"frozen": {"teacher": TEACHER[0]}}, r"is a dict .* give \(params, state\)"),
    "variables": (
        {"frozen": {"teacher": {"params": TEACHER[0]}}},
        r"frozen\['teacher'\] must be \(params, state\), and is a dict of 'params'",
    ),
    "trained": ({"frozen": {"teacher": Trained(NET, TEACHER)}}, "give its variables alone"),
    "another net": ({"frozen": {"teacher": NET}}, r"frozen\['teacher'\] must be .* is a Net"),
    "strings": ({"frozen": {"teacher": ("a", "b")}}, r"holds a str at '0'"),
    "no teacher": ({"frozen": {}}, "there is no 'teacher': frozen holds nothing"),
    "labels of more classes": (
        {"classes": 3, "data": {**ARRAYS, "label": np.arange(len(ARRAYS["image"])) % 5}},
        r"train 'data': labels are from 0 to 2, but not those of",
    ),
    "half a class": ({"classes": 2.5}, r"classes=2\.5 must be a whole number"),
    "no data": ({"data": None}, "data is None, and this distiller takes batches"),
    "a list": ({"data": [1, 2]}, r"data must be \{'image': array.* not a list of \(int, int\)"),
    "an array": ({"data": ARRAYS["image"]}, "data must be .* not a ndarray"),
    "a frame": ({"data": Frame()}, r"not a Frame: give its columns, \{name: data\[name\]"),
    "no stream": ({"data": lambda plan: ARRAYS}, "data must be a stream.* not a dict"),
    "lengths": ({"data": {**ARRAYS, "label": np.arange(3)}}, "'image' has 16 records but 'label'"),
    "no record": ({"data": {"image": np.ones((0, 2))}}, "'data' is empty"),
    "ragged": ({"data": {"image": [[1.0], [1.0, 2.0]]}}, "'image' of the data makes no array"),
    "another name": ({"data": {"x": ARRAYS["image"]}}, "there is no 'image'.* a batch .* 'x'"),
    "strings as labels": ({"data": {**ARRAYS, "label": ["a"] * 16}}, "number the classes"),
    "labels below zero": ({"data": {**ARRAYS, "label": ARRAYS["label"] - 1}}, r"-1 \(6, first"),
    "no step": ({"steps": 0}, "steps=0 must be a whole number, 1 or more"),
    "steps below zero": ({"steps": -1}, "steps=-1 must be"),
    "half a step": ({"steps": 2.5}, "steps=2.5 must be"),
    "steps in words": ({"steps": "3"}, "steps='3' must be"),
    "no seed": ({"seed": None}, "seed=None must be a whole number, 0 or more"),
    "no batch": ({"batch_size": 0}, "batch_size=0 must be a whole number, 1 or more"),
    "a large batch": ({"batch_size": 17}, "batch_size=17 is more than .* the data has 16"),
    "a function": ({"evaluations": [live]}, "evaluations must be a list of Evaluation"),
    "one": ({"evaluations": Evaluation("test", live)}, "evaluations must be a list: write"),
    "no pair": ({"between": live}, r"between must be \(every so many steps, function\)"),
    "a name": ({"mesh": "data"}, "mesh must be a Mesh.* not a str"),
    "spans": ({"spans": {"late": 3}}, "spans of stage 'fit' is {'late': 3}"),
}


@pytest.mark.parametrize("name", FIT)
def test_what_fit_is_given(name):
    change, words = FIT[name]
    given = {"distiller": made(), "frozen": {"teacher": TEACHER}, "data": ARRAYS, "steps": 2}
    with pytest.raises((TypeError, ValueError), match=words):
        fit(**{**given, "batch_size": 8, "quiet": True, **change})


def test_a_projector_is_no_advice_for_other_classes():
    def wider(sources, batch, key, step):
        return {"out": jnp.ones((8, 5)), "feature": jnp.ones((8, 5))}

    for target, words in {"out": "answers over other classes", "feature": "'linear' would"}.items():
        term = match(hinton_kd, name="kd", target=target)
        distiller = made(targets=wider, objective=term)
        with pytest.raises(ValueError, match=words) as caught:
            fit(distiller, {}, ARRAYS, 2, batch_size=8, quiet=True)
        assert ("projector" in str(caught.value)) == (target == "feature")
