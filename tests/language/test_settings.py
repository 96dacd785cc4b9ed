"""What configs may say of language models: domains, groups of settings, names of metrics."""

from typing import Any

import jax
import numpy as np
import optax
import pytest
from language.nets import decoder

from jaxdistill import language, settings
from jaxdistill.language import Divergence, Sampling, Teacher, Writing, domains, language_model
from jaxdistill.store.classes import top_k

FUNCTIONS = {
    "language_model": language_model,
    "next_token": language.next_token,
    "drafting": language.drafting,
    "speculate": language.speculate,
    "generate": language.generate,
    "domain_gap": domains.domain_gap,
    "domain_weights": domains.domain_weights,
}
GROUPS = {
    "Writing": Writing,
    "Divergence": Divergence,
    "Sampling": Sampling,
    "Acceptance": language.Acceptance,
}
# What code gives and no config says.
INTERNAL = {"mixed_with", "cache"}


@pytest.mark.parametrize("name", [*FUNCTIONS, *GROUPS])
def test_settings_have_domains(name):
    found = settings.keys(FUNCTIONS[name]) if name in FUNCTIONS else {}
    found = found or settings.fields(GROUPS[name])
    for key, parameter in found.items():
        if key in INTERNAL:
            continue
        assert parameter.annotation not in (Any, parameter.empty), key
        if parameter.default is not parameter.empty:
            assert settings.fault(parameter.default, parameter.annotation) is None, key
        assert settings.fault(object(), parameter.annotation), key


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": 3, "share": 1.5}, "share=1.5"),
        ({"prompt": 0}, "prompt=0"),
        ({"prompt": 3, "sampling": {"top_p": 0.0}}, "top_p=0.0"),
        ({"prompt": 3, "every": 0}, "every=0"),
        ({"prompt": 3, "shared": 0.5}, "'share'"),
        ({"share": 0.5}, "'prompt'"),
    ],
)
def test_a_group_says_what_is_wrong_with_it(given, words):
    assert words in settings.fault(given, Writing)


def test_groups_are_read_from_mappings():
    found = settings.made({"prompt": 3, "sampling": {"top_k": 2}}, Writing | None)
    assert found == Writing(3, sampling=Sampling(top_k=2))
    scheduled = {"prompt": 3, "share": {"schedule": "linear"}}
    assert settings.fault(scheduled, Writing) is None


def batch():
    tokens = jax.random.randint(jax.random.key(0), (4, 9), 0, 23)
    return {
        "tokens": tokens[:, :-1],
        "label": tokens[:, 1:],
        "counted": np.ones((4, 8), bool),
        "where": np.ones(4, bool),
        "group": np.array([0, 1, 1, 0]),
    }


def test_evaluators_say_what_they_measure():
    (draft, own), (target, theirs) = decoder(1, depth=1), decoder(2, depth=1)
    drafting = {"prompt": 2, "new": 3}
    evaluators = [
        language.next_token(draft),
        language.next_token(draft, ("a", "b"), batches=1),
        language.drafting(draft, target, "teacher", **drafting),
        language.drafting(draft, target, "teacher", block=2, prefix="greedy_", **drafting),
        domains.domain_gap(draft, target, "teacher", ("a", "b")),
    ]
    for evaluator in evaluators:
        found = evaluator(own, {"teacher": theirs}, [batch()])
        assert set(evaluator.metrics) == set(found)
        assert len(evaluator.metrics) == len(found)


def test_a_text_ends_where_the_tokenizer_says():
    """Unless the writing names other tokens."""
    net, data = decoder(1, depth=1)[0], batch()
    inputs = {"tokens": data["tokens"]}
    data = {**data, "student": inputs, "teacher": inputs}
    counted = []
    for stop in (None, (), tuple(range(23))):
        writing = Writing(2, share=1.0, stop=stop)
        learns = language_model(net, optax.sgd(0.1), end=0, writing=writing)
        state = learns.init(jax.random.key(0), {}, data)
        counted.append(float(jax.jit(learns.step)(state, {}, data)[1]["tokens"][0]))
    # Every token ends it: one counts in each text. None does: all behind the prompts.
    assert counted[2] == 4
    assert counted[1] == 4 * 7
    assert counted[2] < counted[0] <= counted[1]


def test_a_cache_cannot_have_read_what_is_written():
    net, _ = decoder(1, depth=1)
    teacher = Teacher(net, "teacher", {})
    for writing in (Writing(2, share=0.5), Writing(2, share=lambda step: step / 10)):
        with pytest.raises(ValueError, match="no cache has read"):
            language_model(net, optax.sgd(0.1), teacher, writing=writing)


@pytest.mark.parametrize("given", [{"divergence": Divergence("jsd")}, {"teacher_cap": 3.0}])
def test_without_a_teacher_nothing_is_said_of_one(given):
    net, _ = decoder(1, depth=1)
    (name,) = given
    with pytest.raises(ValueError, match=f"{name} is .*no teacher: name one in 'frozen'"):
        language_model(net, optax.sgd(0.1), **given)


def test_what_a_cache_of_some_classes_cannot_take():
    """Refused at once, not ignored."""
    net, _ = decoder(1, depth=1)
    of = jax.ShapeDtypeStruct((23,), np.float32)
    teacher = Teacher(net, "teacher", {"teacher/out": top_k(of, k=3, missing="sparse")})
    for divergence, words in (
        (Divergence("jsd"), "'forward_kl' alone, not 'jsd'"),
        (Divergence(beta=0.5), "unknown key of divergence 'forward_kl' 'beta'"),
    ):
        with pytest.raises(ValueError, match=words):
            language_model(net, optax.sgd(0.1), teacher, divergence=divergence)
    language_model(net, optax.sgd(0.1), teacher, divergence=Divergence(temperature=2.0))
