"""Every loss on shapes that its card does not show: declared results, faults refused.

One strategy for each kind of arguments; nothing is computed, only traced.
"""

import inspect

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxdistill import losses
from jaxdistill.losses._contract import value_and_gradient
from jaxdistill.losses.crd import Bank

SIZE = st.integers(1, 4)
LEAD = st.lists(SIZE, max_size=3).map(tuple)
BATCH = st.lists(SIZE, min_size=1, max_size=3).map(tuple)
WIDTH = st.integers(2, 6)


def _float(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def _int(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.int32)


@st.composite
def logits(draw):
    lead, classes = draw(LEAD), draw(WIDTH)
    axis = draw(st.integers(-1 - len(lead), -1))
    shape = list(lead)
    shape.insert(len(lead) + 1 + axis, classes)
    return (_float(*shape), _float(*shape)), {"axis": axis}, lead


@st.composite
def labelled_logits(draw):
    (student, teacher), kwargs, lead = draw(logits())
    return (student, teacher, _int(*lead)), kwargs, lead


@st.composite
def labelled_student(draw):
    (student, _, labels), kwargs, lead = draw(labelled_logits())
    return (student, labels), kwargs, lead


@st.composite
def sparse_logits(draw):
    lead, classes = draw(LEAD), draw(WIDTH)
    known = (*lead, draw(st.integers(1, classes)))
    return (_float(*lead, classes), _int(*known), _float(*known)), {}, lead


@st.composite
def unlike_vocabularies(draw):
    lead = draw(BATCH)
    return (_float(*lead, draw(WIDTH)), _float(*lead, draw(WIDTH))), {}, lead


@st.composite
def token_scores(draw):
    shape = draw(BATCH)
    return (_float(*shape), _float(*shape)), {}, shape


@st.composite
def batch_logits(draw):
    shape = draw(SIZE), draw(WIDTH)
    return (_float(*shape), _float(*shape)), {}, ()


@st.composite
def batch_labelled_logits(draw):
    (student, teacher), kwargs, out = draw(batch_logits())
    return (student, teacher, _int(student.shape[0])), kwargs, out


@st.composite
def vectors(draw):
    lead, width = draw(LEAD), draw(WIDTH)
    return (_float(*lead, width), _float(*lead, width)), {}, lead


@st.composite
def vectors_with_variances(draw):
    (student, teacher), kwargs, lead = draw(vectors())
    return (student, teacher, student), kwargs, lead


@st.composite
def whole_examples(draw):
    shape = (*draw(BATCH), draw(WIDTH))
    return (_float(*shape), _float(*shape)), {}, shape[:1]


@st.composite
def whole_batches(draw):
    args, kwargs, _ = draw(whole_examples())
    return args, kwargs, ()


@st.composite
def grids(draw):
    shape = draw(SIZE), draw(SIZE), draw(SIZE), draw(WIDTH)
    return (_float(*shape), _float(*shape)), {}, shape[:1]


@st.composite
def grids_with_margins(draw):
    (student, teacher), kwargs, out = draw(grids())
    return (student, teacher, _float(student.shape[-1])), kwargs, out


@st.composite
def unlike_grids(draw, same_width=False):
    batch, width = draw(SIZE), draw(WIDTH)
    other = width if same_width else draw(WIDTH)
    student = _float(batch, draw(SIZE), draw(SIZE), width)
    return (student, _float(batch, draw(SIZE), draw(SIZE), other)), {}, (batch,)


@st.composite
def places(draw, same_width=False):
    """Maps on one side, tokens behind a class token on the other."""
    (student, teacher), kwargs, expected = draw(unlike_grids(same_width=same_width))
    batch, side, _, width = teacher.shape
    return (student, _float(batch, 1 + side**2, width)), kwargs, expected


@st.composite
def two_layers(draw):
    batch, first, second = draw(SIZE), draw(WIDTH), draw(WIDTH)
    side = tuple(_float(batch, draw(SIZE), draw(SIZE), width) for width in (first, second))
    return (side, side), {}, (batch,)


@st.composite
def two_layers_of_tokens(draw):
    batch, tokens = draw(SIZE), draw(SIZE)
    student, teacher = (_float(batch, tokens, draw(WIDTH)) for _ in range(2))
    return ((student, student), (teacher, teacher)), {}, (batch,)


@st.composite
def maps_and_logits(draw):
    batch, width, classes = draw(SIZE), draw(WIDTH), draw(WIDTH)
    side = _float(batch, draw(SIZE), draw(SIZE), width), _float(batch, classes)
    return (side, side), {}, (batch,)


@st.composite
def shallow_and_last(draw):
    batch, layers, tokens, width = draw(SIZE), draw(SIZE), draw(SIZE), draw(WIDTH)
    side = _float(batch, layers, tokens, width), _float(batch, tokens, width)
    mask = jax.ShapeDtypeStruct((batch, tokens), jnp.bool_)
    return (side, side, mask), {}, (batch,)


@st.composite
def attention_matrices(draw):
    batch, tokens = draw(SIZE), draw(SIZE)
    matrices = _float(batch, draw(SIZE), tokens, tokens)
    return (matrices, matrices), {}, (batch,)


@st.composite
def attention_queries(draw):
    args, kwargs, _ = draw(attention_matrices())
    return args, kwargs, (args[0].shape[0], args[0].shape[2])


@st.composite
def queries_keys_values(draw):
    batch, tokens, heads = draw(SIZE), draw(SIZE), draw(SIZE)
    sides = tuple((_float(batch, tokens, heads * draw(SIZE)),) * 3 for _ in range(2))
    return sides, {"heads": heads}, (batch, tokens)


@st.composite
def rows(draw, alike=False, least=1):
    batch = draw(st.integers(least, 6))
    student = (batch, *draw(BATCH))
    teacher = student if alike else (batch, *draw(BATCH))
    return (_float(*student), _float(*teacher)), {}, ()


@st.composite
def row_vectors(draw, multiple=1):
    shape = multiple * draw(SIZE), draw(WIDTH)
    return (_float(*shape), _float(*shape)), {}, ()


@st.composite
def row_vectors_with_baseline(draw):
    (student, teacher), kwargs, out = draw(row_vectors())
    return (student, teacher, _float(student.shape[0])), kwargs, out


@st.composite
def likelihoods(draw):
    return (_float(draw(SIZE)),), {}, ()


@st.composite
def ranked_answers(draw, answers=None):
    lead = draw(LEAD)
    side = _float(*lead, answers or draw(SIZE))
    return (side, side), {}, lead


@st.composite
def drawn_tokens(draw):
    side = _float(*draw(BATCH))
    return (side, side, side), {}, side.shape


@st.composite
def views(draw, sides=2, labels=False):
    images, count, width = draw(SIZE), draw(st.integers(2, 4)), draw(WIDTH)
    args = (_float(images * count, width),) * sides + ((_int(images),) if labels else ())
    return args, {"views": count}, ()


@st.composite
def banks(draw):
    batch, width, size = draw(SIZE), draw(WIDTH), draw(st.integers(2, 9))
    flag = jax.ShapeDtypeStruct((), jnp.bool_)
    bank = Bank(_float(size, width), _float(size, width), _float(2), flag)
    side = _float(batch, width)
    return (side, side, bank, _int(batch, 1 + draw(SIZE))), {}, (batch,)


@st.composite
def queues(draw):
    batch, width = draw(SIZE), draw(WIDTH)
    side = _float(batch, width)
    return (side, side, _float(draw(SIZE), width)), {}, (batch,)


@st.composite
def features_and_logits(draw):
    batch, width, classes = draw(SIZE), draw(WIDTH), draw(WIDTH)
    side, scores = _float(batch, width), _float(batch, classes)
    return (side, side, scores, scores, _float(width, classes)), {}, (batch,)


@st.composite
def three_sides(draw):
    side = _float(draw(SIZE), draw(WIDTH))
    return (side, side, side), {}, ()


KINDS = {
    logits(): "soft_cross_entropy soft_binary_cross_entropy standardised_cross_entropy hinton_kd "
    "hard_kd standardised_kd logit_mse logit_distance reverse_kl symmetric_kl skewed_forward_kl "
    "skewed_reverse_kl generalized_jsd jensen_shannon total_variation probability_distance",
    labelled_logits(): "decoupled_kd normalised_kd weighted_soft_labels one_for_all minifinetuning",
    labelled_student(): "cross_entropy brier_score",
    sparse_logits(): "sparse_kl sparse_jsd sparse_total_variation logistic_ranking hinge_ranking",
    unlike_vocabularies(): "universal_logit_distillation",
    token_scores(): "minillm_single_step",
    ranked_answers(2): "dpo",
    ranked_answers(): "rrhf",
    drawn_tokens(): "policy_gradient",
    batch_logits(): "dist class_correlation batch_correlation direction_skd",
    batch_labelled_logits(): "universal_self_kd",
    vectors(): "feature_match hint smooth_l1 hidden_cosine pkd",
    vectors_with_variances(): "vid pad",
    whole_examples(): "kta activation_boundary mgd",
    whole_batches(): "srd",
    grids(): "affinity review",
    grids_with_margins(): "overhaul",
    unlike_grids(): "factor_transfer attention_transfer nst",
    unlike_grids(same_width=True): "ickd",
    places(): "grid_similarity",
    places(same_width=True): "grid_cosine",
    two_layers(): "fsp",
    two_layers_of_tokens(): "token_gram",
    maps_and_logits(): "srrl",
    shallow_and_last(): "vitkd",
    attention_matrices(): "attention_mse",
    attention_queries(): "attention_kl",
    queries_keys_values(): "qkv_relations",
    rows(): "rkd_distance rkd_angle rkd similarity_preserving correlation_congruence pkt",
    rows(least=4): "cka",
    rows(alike=True): "neighbour_correlation mmd",
    row_vectors(): "info_nce clip nt_xent nwj_bound info_nce_bound jensen_shannon_objective "
    "jensen_shannon_bound leave_one_out_bound",
    row_vectors(multiple=2): "hinge_rank",
    row_vectors_with_baseline(): "tuba_bound mi_alpha_bound",
    likelihoods(): "barber_agakov_bound",
    views(): "sskd_similarity",
    views(sides=1): "sskd_pretext",
    views(labels=True): "sskd_transformed",
    banks(): "crd",
    queues(): "queue_similarity",
    features_and_logits(): "class_weighted_match",
    three_sides(): "shifted_contrast",
}
STRATEGY = {name: kind for kind, names in KINDS.items() for name in names.split()}


def _longer(tree):
    """The same arrays with one example more."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((x.shape[0] + 1, *x.shape[1:]), x.dtype), tree
    )


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda entry: entry.name)
def test_shapes(entry):
    _, options = entry.make(jax.random.key(0), jnp.float32)

    @settings(derandomize=True, max_examples=4, deadline=None, database=None)
    @given(STRATEGY[entry.loss.__name__])
    def check(drawn):
        args, kwargs, expected = drawn
        kwargs = {**options, **kwargs}

        def run(args):
            return jax.eval_shape(lambda *args: value_and_gradient(entry, args, kwargs), *args)

        out, gradients = run(args)
        assert (out.shape, out.dtype) == (expected, jnp.float32)
        student = tuple(args[i] for i in entry.student)
        assert jax.tree.map(jnp.shape, gradients) == jax.tree.map(jnp.shape, student)
        second = jax.tree.leaves(args[1])[0] if len(args) > 1 else None
        if second is not None and second.ndim:
            with pytest.raises(ValueError, match=r"\("):
                run((args[0], _longer(args[1]), *args[2:]))

    check()


def test_there_is_a_strategy_for_every_loss():
    assert STRATEGY.keys() == {entry.loss.__name__ for entry in losses.catalogue()}


def test_losses_of_one_kind_are_called_in_one_way():
    functions = {entry.loss.__name__: entry.loss for entry in losses.catalogue()}
    for function in functions.values():
        parameters = list(inspect.signature(function).parameters.values())
        positional = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
        assert positional[0] in (
            "student",
            "logits",
            "scores",
            "features",
            "student_log_probs",
            "log_likelihood",
        )
        if positional[0] == "student":
            others = ("teacher", "ids", "weak", "reference", "rewards")
            assert positional[1] in others, function.__name__
        if "labels" in positional:
            assert positional[-1] == "labels", function.__name__
        for name in ("where", "mask", "axis", "temperature"):
            assert name not in positional or name == positional[-1] == "mask", function.__name__
