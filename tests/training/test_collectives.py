"""What the devices of a compiled step send each other, and nothing besides."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxdistill import adapt, language, losses, models, targets
from jaxdistill.data import views
from jaxdistill.distiller import model_to_model
from jaxdistill.frameworks.linen import from_linen
from jaxdistill.objective import combine, match, per_batch
from jaxdistill.training.collectives import Collective, collectives, purpose, tally
from jaxdistill.training.sharding import batch_sharding, make_mesh, on_mesh, replicated, shardings

EXAMPLES = 80
TAP = "encoder/block_0"


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def sent(distiller, frozen, batch, mesh):
    """What a step sends, compiled as the loop compiles it."""
    state = jax.eval_shape(distiller.init, jax.random.key(0), frozen, batch)
    places = shardings(mesh, state)
    step = jax.jit(
        on_mesh(distiller.step, mesh),
        in_shardings=(
            places,
            shardings(mesh, frozen),
            jax.tree.map(lambda _: batch_sharding(mesh), batch),
        ),
        out_shardings=(places, replicated(mesh)),
    )
    arrays = (state.params, state.state, frozen)
    return tally(step.lower(state, frozen, batch).compile(), arrays, EXAMPLES)


@pytest.mark.parametrize("axis", ["data", "fsdp"])
def test_masks_projectors_and_relations_send_gradients_parameters_and_features(axis):
    """DMAE and RKD at once: masked patches put back in place, cosines at every corner."""
    decoder = {"decoder_width": 32, "decoder_depth": 1, "decoder_heads": 2}
    student, teacher = (
        from_linen(models.MAE(patch=2, width=width, depth=1, heads=2, **decoder))
        for width in (64, 96)
    )
    keep = {"image": shape(EXAMPLES, 16, 16, 3), "keep": shape(EXAMPLES, 16, dtype=jnp.int32)}
    frozen = {"teacher": jax.eval_shape(teacher.init, jax.random.key(0), keep)}
    pixels = match(
        losses.feature_match,
        name="pixels",
        student="out/pixels",
        target="batch/patches",
        where="batch/mask",
    )
    feature = match(
        losses.feature_match, name="feature", student=TAP, target=TAP, projector=adapt.linear
    )

    def relations(forward, goal, batch):
        ours, theirs = (x[TAP].mean(1)[:, :8] for x in (forward.taps, goal))
        return {"rkd": per_batch(1.0, losses.rkd(ours, theirs))}

    distiller = model_to_model(
        student,
        targets.live(teacher, inputs="teacher", taps=(TAP,)),
        combine({"pixels": pixels, "feature": feature, "rkd": relations}),
        optax.sgd(1e-3, momentum=0.9),
        inputs="student",
        taps=(TAP,),
        prepare=views.masked(patch=2, ratio=0.75),
    )
    batch = {"image": keep["image"], "label": shape(EXAMPLES, dtype=jnp.int32)}
    found = sent(distiller, frozen, batch, make_mesh({"data": 1, axis: 2}, jax.devices()[:2]))
    assert "other" not in found, found
    assert ("parameters" in found) == (axis == "fsdp")
    # What relations need of every example: eight numbers, a few times.
    assert found["batch"]["bytes"] <= 8 * EXAMPLES * 8 * 4
    assert found["gradients"]["bytes"] > 0


def test_a_divergence_from_hidden_states_is_shared_out_over_tokens():
    """Without the axes of the batch every device would compute it for all tokens."""
    student, teacher = (
        from_linen(models.Decoder(vocabulary=512, width=w, depth=1, heads=2, groups=2))
        for w in (32, 64)
    )
    tokens = {"tokens": shape(EXAMPLES, 12, dtype=jnp.int32)}
    frozen = {"teacher": jax.eval_shape(teacher.init, jax.random.key(0), tokens)}
    distiller = model_to_model(
        student,
        language.teacher_states(teacher),
        language.divergence_per_token(chunk=64, ce_weight=0.5),
        optax.sgd(1e-3),
        inputs="student",
        taps=("norm",),
    )
    rows = {"label": tokens["tokens"], "counted": shape(EXAMPLES, 12, dtype=jnp.bool_)}
    batch = {**rows, "student": tokens, "teacher": tokens}
    found = sent(distiller, frozen, batch, make_mesh())
    assert set(found) == {"gradients", "sums"}, found

    # And it is the same number.
    drawn = np.random.default_rng(0)
    values = {
        "label": drawn.integers(0, 512, (8, 12)),
        "counted": drawn.integers(0, 2, (8, 12)).astype(bool),
        "student": {"tokens": drawn.integers(0, 512, (8, 12))},
    }
    values["teacher"] = values["student"]
    variables = {"teacher": teacher.init(jax.random.key(0), values["teacher"])}
    state = distiller.init(jax.random.key(1), variables, values)
    one = jax.jit(distiller.step)(state, variables, values)
    many = jax.jit(on_mesh(distiller.step, make_mesh()))(
        *jax.device_put((state, variables), replicated(make_mesh())),
        jax.device_put(values, batch_sharding(make_mesh())),
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6),
        (one[0].params, one[1]),
        (many[0].params, many[1]),
    )


def test_what_is_read_of_a_text():
    line = (
        "  %all-gather.1 = f32[64,8]{1,0} all-gather(%p), channel_id=1, "
        'metadata={op_name="jit(step)/jvp()/sub"}\n'
        "  %ar = (bf16[4]{0}, s32[]) all-reduce-start(%a, %b), channel_id=2\n"
        "  %s = f32[8]{0} add(%all-reduce, %b)\n"
    )
    gathered, added = collectives(line)
    assert gathered == ("all-gather", ((64, 8),), 2048, "jit(step)/jvp()/sub")
    assert added == ("all-reduce", ((4,), ()), 12, "")
    arrays = {"kernel": shape(32, 16), "bias": shape(16)}

    def of(kind, *sizes, name=""):
        return purpose(Collective(kind, sizes, 0, name), arrays, 64)

    assert of("all-gather", (32, 16)) == "parameters"
    assert of("all-reduce", (16, 8), (16,)) == "gradients"  # a slice, transposed
    assert of("all-reduce", (16,), ()) == "sums"
    assert of("all-gather", (64, 5)) == "batch"
    assert of("all-gather", (64, 7, 5)) == of("all-to-all", (32, 16)) == "other"
