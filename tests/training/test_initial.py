"""What a config takes of a teacher to start a student from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import losses, models, recipe
from jaxdistill.data.split import hashes

NET = {"net": "vit", "patch": 4, "width": 8, "depth": 4, "heads": 2}


def config(initial, **student):
    stage = {
        "objective": {"labels": {"loss": "cross_entropy", "target": "batch/label"}},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "batch_size": 8,
        "steps": 1,
    }
    return {
        "title": "",
        "seed": 0,
        "data": {"name": "digits"},
        "recipe": ("teacher", "student"),
        "stages": {
            "teacher": {"student": NET, **stage},
            "student": {"student": {**NET, **student}, "initial": initial, **stage},
        },
    }


def given(plan):
    teacher = plan.stage("teacher")
    result = jax.jit(teacher.net.init)(jax.random.key(0), jnp.zeros((1, 8, 8, 1)))
    stage = recipe.stage_of(plan, plan.stage("student"), {"teacher": result})
    return result[0], stage.initial["initial"][0]


def modules(**student):
    own = {k: v for k, v in NET.items() if k != "net"}
    return [models.ViT(**{**own, "classes": 10, **changes}) for changes in ({}, student)]


def test_layers_and_units_by_importance():
    initial = {"stage": "teacher", "layers": "every_second", "units": "importance", "records": 16}
    plan = recipe.plan(config(initial, depth=2, mlp_ratio=1.0))
    params, start = given(plan)
    teacher, student = modules(depth=2, mlp_ratio=1.0)
    source = plan.stage("teacher").data["train"]
    chosen = np.argsort(hashes(source.ids, "importance"), kind="stable")[:16]
    batch = source.gather(np.sort(chosen))

    def loss(params):
        out = teacher.apply({"params": params}, batch["image"])
        return losses.cross_entropy(out, batch["label"]).mean()

    scores = models.importance(params, jax.jit(jax.grad(loss))(params), teacher)
    expected = models.inherit(params, teacher, student, layers=(0, 2), scores=scores)
    jax.tree.map(np.testing.assert_array_equal, start, expected)
    first = models.inherit(params, teacher, student, layers=(0, 2))
    kernels = [tree["encoder"]["block_0"]["mlp"]["fc1"]["kernel"] for tree in (start, first)]
    assert not np.array_equal(*kernels)


def test_a_dense_decoder_becomes_a_sparse_one_of_fewer_layers():
    net = {"net": "decoder", "width": 8, "depth": 3, "heads": 2}
    stage = {
        "distiller": {"name": "language_model"},
        "optimizer": {"name": "sgd", "learning_rate": 0.1},
        "batch_size": 4,
        "steps": 1,
    }
    initial = {"stage": "dense", "layers": "last", "upcycle": True}
    sparse = {**net, "depth": 2, "experts": 3, "sparse": (1,)}
    # Planning traces what starts: it would refuse whatever does not fit.
    plan = recipe.plan(
        {
            "title": "",
            "seed": 0,
            "data": {"name": "standard_library", "length": 8, "modules": 30},
            "recipe": ("dense", "sparse"),
            "stages": {
                "dense": {"student": net, **stage},
                "sparse": {"student": sparse, "initial": initial, **stage},
            },
        }
    )
    tokens = jnp.zeros((1, 8), jnp.int32)
    dense = jax.jit(plan.stage("dense").net.init)(jax.random.key(0), tokens)
    made = recipe.stage_of(plan, plan.stage("sparse"), {"dense": dense}).initial["initial"][0]
    for own, there in ((0, 1), (1, 2)):
        wanted = dense[0][f"layers_{there}"]
        if own == 1:
            copies = jax.tree.map(lambda x: jnp.stack([x] * 3), wanted["mlp"])
            wanted = {**wanted, "mlp": copies}
        jax.tree.map(np.testing.assert_array_equal, made[f"layers_{own}"], wanted)


@pytest.mark.parametrize(
    ("initial", "student", "message"),
    [
        ({"layer": "first"}, {}, "did you mean 'layers'"),
        ({"layers": "every_other"}, {"depth": 2}, "stage 'student': .*choice of layers"),
        ({"layers": "every_second"}, {"depth": 3}, "are 2 of the teacher's 4"),
        (
            {"units": "best"},
            {},
            "'units' of 'initial' is 'best': it must be 'first' or 'importance'",
        ),
        ({"units": "first"}, {"width": 16}, "width: 8 there, 16 here"),
        ({"records": 8}, {}, "units='importance' alone"),
        ({"upcycle": True}, {}, "experts=0"),
    ],
)
def test_what_is_refused_before_anything_is_trained(initial, student, message):
    with pytest.raises(ValueError, match=message):
        recipe.plan(config({"stage": "teacher", **initial}, **student))
