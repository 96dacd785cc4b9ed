"""Fused against dense: loss, gradients, what is never in memory; on-policy batches; replay."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from language.nets import bigram, decoder

from jaxdistill import losses
from jaxdistill.distiller import model_to_model
from jaxdistill.language import (
    Sampling,
    Writing,
    divergence_per_token,
    labels_per_token,
    on_policy,
    teacher_states,
)
from jaxdistill.objective import mean, per_example

# Unlike every width, length and number of tokens.
VOCABULARY = 1009
NONE = ({}, {})


def batch_of(rows=4, length=12, vocabulary=23, seed=5):
    tokens = jax.random.randint(jax.random.key(seed), (rows, length + 1), 0, vocabulary)
    inputs = {"tokens": tokens[:, :-1]}
    counted = jnp.arange(length)[None] < jnp.array([12, 7, 0, 3] * (rows // 4))[:, None]
    label = tokens[:, 1:]
    return {**inputs, "label": label, "counted": counted, "student": inputs, "teacher": inputs}


def distiller(student, teacher, objective, accumulate=1, dense=False):
    goal = teacher_states(teacher, dense=dense)
    taps = () if dense else ("norm",)
    sgd = optax.sgd(0.1)
    return model_to_model(
        student, goal, objective, sgd, inputs="student", taps=taps, accumulate=accumulate
    )


def started(own, frozen, batch):
    return jax.jit(own.init)(jax.random.key(0), frozen, batch)


def dense_objective(divergence, ce_weight, **hyper):
    loss = getattr(losses, {"jsd": "generalized_jsd"}.get(divergence, divergence))

    def terms(forward, targets, batch):
        values = loss(forward.out, targets["out"], **hyper)
        values = values + ce_weight * losses.cross_entropy(forward.out, batch["label"])
        counted = batch["counted"]
        return {"distillation": per_example(1.0, values, counted)}

    return terms


@pytest.mark.parametrize(
    ("divergence", "hyper"),
    [
        ("forward_kl", {"temperature": 2.0}),
        ("reverse_kl", {}),
        ("jsd", {"beta": 0.3}),
        ("total_variation", {}),
    ],
)
def test_a_step_from_hidden_states_equals_the_dense_one(divergence, hyper):
    student, variables = decoder(1, scale=2.0, logit_cap=8.0, depth=1)
    teacher, frozen = decoder(2, scale=2.0, width=24, logit_cap=6.0, depth=1)
    batch = batch_of()
    fused = divergence_per_token(
        divergence, ce_weight=0.5, chunk=16, student_cap=8.0, teacher_cap=6.0, **hyper
    )
    dense = dense_objective(divergence, 0.5, **hyper)

    def step(objective, is_dense):
        own = distiller(student, teacher, objective, dense=is_dense)
        state = started(own, {"teacher": frozen}, batch)
        state = state._replace(params={**state.params, "net": variables[0]})
        return jax.jit(own.step)(state, {"teacher": frozen}, batch)

    (ours, metrics), (theirs, wanted) = step(fused, False), step(dense, True)
    np.testing.assert_allclose(mean(*metrics["loss"]), mean(*wanted["loss"]), rtol=1e-5)
    moved = jax.tree.map(lambda a, b: (a - b) / 0.1, ours.params["net"], variables[0])
    expected = jax.tree.map(lambda a, b: (a - b) / 0.1, theirs.params["net"], variables[0])
    largest = max(float(jnp.abs(x).max()) for x in jax.tree.leaves(expected))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5 * max(largest, 1)), moved, expected
    )


def compiled_step(accumulate, rows=8):
    student, _ = decoder(1, vocabulary=VOCABULARY, depth=1)
    teacher, frozen = decoder(2, vocabulary=VOCABULARY, width=24, depth=1)
    batch = batch_of(rows, vocabulary=VOCABULARY)
    own = distiller(student, teacher, divergence_per_token("jsd", chunk=8), accumulate)
    state = jax.eval_shape(own.init, jax.random.key(0), {"teacher": frozen}, batch)
    return jax.jit(own.step).lower(state, {"teacher": frozen}, batch).compile()


def test_no_array_of_tokens_times_vocabulary_is_compiled():
    found = compiled_step(1)
    text = found.as_text()
    shapes = {
        tuple(int(n) for n in shape.split(",") if n)
        for shape in re.findall(r"\w+\[([\d,]*)\]", text)
    }
    with_classes = {shape for shape in shapes if VOCABULARY in shape}
    assert with_classes, "the vocabulary's width is nowhere: the test sees nothing"
    for shape in with_classes:
        others = int(np.prod(shape)) // VOCABULARY
        # Heads are [16 or 24, V], chunks [8, V]; the batch has 96 tokens.
        assert others <= 24, shape


def test_twice_as_many_microbatches_add_no_memory():
    """As many tokens in each: twice the batch."""
    two, four = (compiled_step(n, 4 * n).memory_analysis().temp_size_in_bytes for n in (2, 4))
    assert four <= 1.05 * two


def test_microbatches_have_the_gradient_of_the_batch():
    student, _ = decoder(1, depth=1)
    teacher, frozen = decoder(2, width=24, depth=1)
    batch = batch_of(8)
    found = []
    for accumulate in (1, 4):
        own = distiller(student, teacher, divergence_per_token(), accumulate)
        state = started(own, {"teacher": frozen}, batch)
        state, metrics = jax.jit(own.step)(state, {"teacher": frozen}, batch)
        found.append((state.params, mean(*metrics["loss"])))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *found)


def test_labels_alone_equal_the_cross_entropy():
    net, (params, state) = decoder(1)
    batch = batch_of()
    forward = net.apply(params, state, batch["student"], taps=("norm",))
    term = labels_per_token(chunk=8)(forward, {}, batch)["labels"]
    values = losses.cross_entropy(forward.out, batch["label"])
    np.testing.assert_allclose(term.total, (values * batch["counted"]).sum(), rtol=1e-5)
    assert float(term.count) == 22


def test_all_tokens_masked_is_zero_with_zero_gradient():
    student, _ = decoder(1, depth=1)
    teacher, frozen = decoder(2, depth=1)
    batch = {**batch_of(), "counted": jnp.zeros((4, 12), bool)}
    own = distiller(student, teacher, divergence_per_token(ce_weight=1.0))
    state = started(own, {"teacher": frozen}, batch)
    after, metrics = jax.jit(own.step)(state, {"teacher": frozen}, batch)
    assert float(mean(*metrics["loss"])) == 0
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)


def test_unlike_vocabularies():
    student, _ = decoder(1, depth=1)
    teacher, frozen = decoder(2, vocabulary=25, depth=1)
    batch = batch_of()

    def loss(divergence, dense=False, **hyper):
        own = distiller(student, teacher, divergence_per_token(divergence, **hyper), dense=dense)
        state = started(own, {"teacher": frozen}, batch)
        return mean(*jax.jit(own.step)(state, {"teacher": frozen}, batch)[1]["loss"])

    with pytest.raises(ValueError, match="student 23, teacher 25"):
        loss("forward_kl")
    assert np.isfinite(loss("forward_kl", unlike="zero_mass"))
    assert loss("universal_logit_distillation", dense=True) > 0


def test_unlike_tokenizers():
    """Each net reads its own tokens; which of them meet says the caller, and must say."""
    student, _ = decoder(1, depth=1)
    teacher, frozen = decoder(2, vocabulary=31, depth=1)
    theirs = jax.random.randint(jax.random.key(9), (4, 9), 0, 31)
    batch = {**batch_of(), "teacher": {"tokens": theirs}}
    read = teacher_states(teacher, dense=True)
    meets = jnp.arange(12) * 9 // 12

    def aligned(*given):
        return {"out": read(*given)["out"][:, meets]}

    uld = divergence_per_token("universal_logit_distillation", temperature=2.0)
    own = model_to_model(student, aligned, uld, optax.sgd(0.1), inputs="student")
    state = started(own, {"teacher": frozen}, batch)
    _, metrics = jax.jit(own.step)(state, {"teacher": frozen}, batch)
    said = student.apply(state.params["net"], {}, batch["student"]).out
    goal = teacher.apply(*frozen, theirs).out[:, meets]
    values = losses.universal_logit_distillation(said, goal, temperature=2.0)
    wanted = jnp.where(batch["counted"], values, 0).sum() / batch["counted"].sum()
    np.testing.assert_allclose(mean(*metrics["loss"]), wanted, rtol=1e-5)
    unlike = distiller(student, teacher, uld, dense=True)
    with pytest.raises(ValueError, match="one leading shape"):
        jax.eval_shape(unlike.step, state, {"teacher": frozen}, batch)


@pytest.mark.parametrize(
    ("divergence", "hyper", "words"),
    [
        ("forward", {}, "'forward_kl'"),
        ("forward_kl", {"temprature": 1.0}, "'temperature'"),
        ("skewed_forward_kl", {"beta": 0.1}, "key of divergence 'skewed_forward_kl'"),
    ],
)
def test_unknown_names(divergence, hyper, words):
    with pytest.raises(ValueError, match=words):
        divergence_per_token(divergence, **hyper)


def recording(student, takes="counts"):
    """A distiller that learns nothing and keeps the batch it was given."""
    from jaxdistill.distiller import Distiller

    def kept(batch):
        return {name: batch[name] for name in ("tokens", "label", "counted")}

    return Distiller(
        lambda key, frozen, batch: kept(batch),
        lambda state, frozen, batch: (kept(batch), {}),
        lambda state: NONE,
    )


# 0 -> 1 -> 2 -> ... -> 4 -> 0, and the other way round.
FORWARD = bigram(40 * jnp.eye(5)[jnp.array([1, 2, 3, 4, 0])])
BACKWARD = bigram(40 * jnp.eye(5)[jnp.array([4, 0, 1, 2, 3])])


def written(share, steps=1, teacher_share=0.0, batch=None, **settings):
    settings = {"prompt": 2, "share": share, "teacher_share": teacher_share, **settings}
    own = on_policy(recording(FORWARD), FORWARD, Writing(**settings), (BACKWARD, "teacher"))
    tokens = jnp.array([[0, 0, 0, 0], [3, 3, 3, 3]])
    if batch is None:
        batch = {"tokens": tokens, "label": tokens, "counted": jnp.ones((2, 4), bool)}
    frozen = {"teacher": NONE}
    state = own.init(jax.random.key(3), frozen, batch)
    step = jax.jit(own.step)
    metrics = []
    for _ in range(steps):
        state, found = step(state, frozen, batch)
        metrics.append({name: float(mean(*pair)) for name, pair in found.items()})
    return state, metrics


def test_the_student_writes_and_the_prompt_does_not_count():
    state, metrics = written(1.0)
    assert state.inner["tokens"].tolist() == [[0, 0, 1, 2], [3, 3, 4, 0]]
    assert state.inner["label"].tolist() == [[0, 1, 2, 3], [3, 4, 0, 1]]
    assert state.inner["counted"].tolist() == [[False, True, True, True]] * 2
    assert metrics[0] == {"student_wrote": 1, "teacher_wrote": 0, "tokens": 6}


def test_the_teacher_writes():
    state, metrics = written(0.0, teacher_share=1.0)
    assert state.inner["label"].tolist() == [[0, 4, 3, 2], [3, 2, 1, 0]]
    assert metrics[0]["teacher_wrote"] == 1


def test_nobody_writes():
    state, metrics = written(0.0)
    assert state.inner["label"].tolist() == [[0] * 4, [3] * 4]
    assert metrics[0] == {"student_wrote": 0, "teacher_wrote": 0, "tokens": 6}


def test_a_mixture_over_steps():
    _, metrics = written(0.5, steps=100, teacher_share=0.3)
    assert 0.3 < np.mean([m["student_wrote"] for m in metrics]) < 0.7
    assert 0.12 < np.mean([m["teacher_wrote"] for m in metrics]) < 0.5
    assert max(m["student_wrote"] + m["teacher_wrote"] for m in metrics) == 1
    _, scheduled = written(lambda step: jnp.where(step < 3, 0.0, 1.0), steps=6)
    assert [m["student_wrote"] for m in scheduled] == [0, 0, 0, 1, 1, 1]


def test_what_follows_a_stop_token_does_not_count():
    state, _ = written(1.0, stop=(1,))
    assert state.inner["counted"].tolist() == [
        [False, True, False, False],
        [False, True, True, True],
    ]


def test_prompts_of_their_own_length_and_an_empty_completion():
    tokens = jnp.array([[0, 2, 2, 2], [3, 4, 4, 4]])
    batch = {"tokens": tokens, "label": tokens, "counted": jnp.zeros((2, 4), bool)}
    state, metrics = written(1.0, batch={**batch, "prompt": jnp.array([1, 9])})
    assert state.inner["tokens"].tolist() == [[0, 1, 2, 3], [3, 4, 0, 1]]
    # The first is 1 token and 3 written ones (new = 3), the second 2 and 3.
    assert metrics[0]["tokens"] == 6
    _, metrics = written(0.0, batch=batch)
    assert metrics[0]["tokens"] == 0


def test_texts_are_kept_and_drawn_again():
    state, metrics = written(1.0, steps=5, replay=6, every=2)
    kept = state.replay
    # Turns 0, 2 and 4 wrote two texts each.
    assert int(kept.turns) == 5
    assert int(kept.written) == 6
    assert kept.tokens.tolist() == [[0, 0, 1, 2, 3], [3, 3, 4, 0, 1]] * 3
    assert all(m["student_wrote"] == 1 for m in metrics)
    rows = {tuple(row) for row in state.inner["label"].tolist()}
    assert rows <= {(0, 1, 2, 3), (3, 4, 0, 1)}


def test_the_teacher_has_a_share_in_every_token():
    state, _ = written(1.0, teacher_mixing=1.0 - 1e-6)
    assert state.inner["label"].tolist() == [[0, 4, 3, 2], [3, 2, 1, 0]]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"share": 1.5}, r"share must be in \[0, 1\]"),
        ({"share": 0.8, "teacher_share": 0.3}, "exceed 1 together"),
        ({"share": 0.0, "teacher_share": 0.3}, "the teacher is to write"),
        ({"every": 0}, "every 1 or more"),
        ({"prompt": 0}, "prompt must be 1 token"),
        ({"sampling": Sampling(-1.0)}, "temperature"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        on_policy(recording(FORWARD), FORWARD, Writing(**{"prompt": 1, **settings}))


def test_texts_that_cannot_be_continued():
    with pytest.raises(ValueError, match="prompt must be 1 to 4 tokens"):
        written(1.0, prompt=5)
    tokens = jnp.zeros((2, 4), jnp.int32)
    packed = {"tokens": tokens, "label": tokens, "counted": tokens > 0, "segments": tokens}
    with pytest.raises(ValueError, match="packed texts cannot be continued"):
        written(1.0, batch=packed)
