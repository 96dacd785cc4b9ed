"""What of a pool is selected, and that nothing of it is known but its images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import config_files, recipe, registry
from jaxdistill.data import pools, sources
from jaxdistill.net import from_function
from jaxdistill.search import class_selection, joint_selection, selection_precision


def test_the_surest_of_every_predicted_class_stay():
    generator = np.random.default_rng(0)
    probabilities = generator.dirichlet(np.full(4, 0.5), 500)
    kept = class_selection(probabilities, 0.3)
    classes, sure = probabilities.argmax(1), probabilities.max(1)
    for label in range(4):
        own = classes == label
        assert kept[own].sum() == int(own.sum() * 0.3)
        assert sure[own & kept].min() >= sure[own & ~kept].max()
    assert class_selection(probabilities, 1.0).all()


def test_an_empty_selection_is_refused():
    with pytest.raises(ValueError, match=r"share=0.2 of the largest class, 3 of 4 records"):
        class_selection(np.array([[0.9, 0.1]] * 3 + [[0.1, 0.9]]), 0.2)


LOGITS = from_function(
    lambda key, x: ({}, {}), lambda params, state, x, train, rng: (x * params["scale"], {}, state)
)
POOL = np.log(np.array([[0.97, 0.03], [0.9, 0.1], [0.6, 0.4], [0.2, 0.8]], np.float32))
BATCHES = [{"image": POOL[:3]}, {"image": np.r_[POOL[3:], np.zeros((2, 2), np.float32)],
            "where": np.array([True, False, False])}]  # fmt: skip


def test_the_teacher_selects_first_and_both_nets_from_then_on():
    frozen = {"teacher": ({"scale": jnp.ones(())}, {})}

    def student(held):  # of what is frozen, as one that shares weights
        return from_function(
            lambda key, x: ({}, {}),
            lambda params, state, x, train, rng: (
                x * held["teacher"][0]["scale"] * params["sign"], {}, state,
            ),
        )  # fmt: skip

    for made, name in ((LOGITS, "scale"), (student, "sign")):
        select = joint_selection(made, LOGITS, "teacher", BATCHES, share=0.5)
        first = select(({name: jnp.full((), -1.0)}, {}), frozen, None)
        assert first["weights"].tolist() == [1, 0, 0, 0]
        assert first["teacher"].shape == (4, 2)
        # The student sees the first as the other class: the mean of both is unsure of it.
        own = ({name: jnp.array([[-1.0], [1.0], [1.0]])}, {})
        batches = [{"image": POOL[:3]}]
        select = joint_selection(made, LOGITS, "teacher", batches, share=0.5)
        plan = select(own, frozen, None)
        assert plan["weights"].tolist() == [1, 0, 0]
        assert select(own, frozen, plan)["weights"].tolist() == [0, 1, 0]


def test_precision_is_of_what_is_kept():
    frozen = {"teacher": ({"scale": jnp.ones(())}, {})}
    batch = {"image": POOL, "group": np.array([1, 0, 0, 1])}
    measure = selection_precision(
        LOGITS, LOGITS, "teacher", ("others", "digits"), wanted=("digits",), share=0.5
    )
    found = measure(frozen["teacher"], frozen, [batch])
    assert found == {"precision": 1.0, "base_rate": 0.5, "lift": 0.5, "kept": 0.25}
    with pytest.raises(ValueError, match="unknown part of the pool 'digit': did you mean 'digits'"):
        selection_precision(LOGITS, LOGITS, "teacher", ("digits",), wanted=("digit",))


def test_a_pool_holds_images_alone():
    digits = sources.digits()
    made = {
        name: lambda name, change=change: pools.as_images(digits, name, 12, 1, np.uint8, change)
        for name, change in (("plain", None), ("inverted", "inverted"), ("noisy", "noisy"))
    }
    pool = pools.pool(made, {"classes": 10})
    assert pool.info["groups"] == ("plain", "inverted", "noisy")
    assert pool.read_labels is None
    count = len(digits)
    rows = np.arange(3) * count + 5
    found = pool.gather(rows)
    assert set(found) == {"image", "group", "index"}
    assert found["group"].tolist() == [0, 1, 2]
    assert found["image"].shape == (3, 12, 12, 1)
    plain, inverted, noisy = found["image"].astype(int)[..., 0]
    assert (abs(plain + inverted - 255) <= 1).all()
    assert abs(noisy - plain).max() > 50
    # Noise belongs to the record, in whichever batch it comes.
    again = pool.gather(np.array([rows[2], 3, rows[2]]))["image"]
    np.testing.assert_array_equal(again[0], found["image"][2])
    np.testing.assert_array_equal(again[2], found["image"][2])
    assert pool.ids[int(rows[1])] == f"inverted/{digits.ids[5]}"


def test_a_frame_stays_black():
    digits = sources.digits()
    framed = pools.as_images(digits, "framed", 12, 1, np.float32, frame=2)
    image, plain = (each.gather(np.arange(3))["image"] for each in (framed, digits))
    np.testing.assert_allclose(image[:, 2:-2, 2:-2], plain, atol=1e-6)
    assert image.sum() == pytest.approx(plain.sum(), rel=1e-5)
    with pytest.raises(ValueError, match="a frame of 4 pixels leaves nothing of images of 8"):
        pools.as_images(digits, "framed", 8, 1, np.uint8, frame=4)


def test_a_pool_is_tested_on_what_the_teacher_knows():
    config = config_files.read("kd3:small")
    data = registry.data(config["stages"]["distil"]["data"])
    assert data["train"].info["classes"] == 10
    assert data["test"].ids[0].startswith("digits/")
    shown = {each.partition("/")[2] for each in data["train"].ids if "digits" in each}
    assert not shown & {*data["test"].ids, *data["validation"].ids}
    # What the teacher has learnt is not in the pool either.
    teacher = registry.records(
        registry.data(config["data"])["train"], config["stages"]["teacher"]["records"], 0
    )
    assert not shown & {*teacher.ids}


def test_a_selection_of_nothing_is_refused_before_anything_runs():
    settings = ["stages.distil.between.share=0.0001", "mesh.data=1"]
    with pytest.raises(ValueError, match=r"nothing can be selected: share=0.0001 of \d+ records"):
        recipe.plan(config_files.read("kd3:small", settings))


def test_labels_of_a_pool_are_refused_before_anything_runs():
    settings = ["stages.distil.objective.labels={'loss':'cross_entropy','target':'batch/label'}"]
    with pytest.raises(ValueError, match="labels: it reads labels, and the records have none"):
        recipe.plan(config_files.read("kd3:small", [*settings, "mesh.data=1"]))
    assert jax.process_count() == 1
