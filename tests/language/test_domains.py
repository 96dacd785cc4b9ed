"""DDK's weights: bounds, fixed point, no overflow; what a config of texts refuses."""

import numpy as np
import pytest

from jaxdistill import recipe, registry
from jaxdistill.language.domains import domain_weights, updated_weights
from jaxdistill.registry.context import Context

LOSS = {"evaluator": "next_token"}


def test_weights_sum_to_one_within_their_bounds():
    rng = np.random.default_rng(0)
    weights = np.full(5, 0.2)
    for _ in range(20):
        student, teacher = np.exp(rng.uniform(0, 9, (2, 5)))
        weights = updated_weights(weights, student, teacher, 0.5)
        assert weights.sum() == pytest.approx(1)
        assert (weights >= 0.1 - 1e-12).all()
        assert (weights <= 0.6 + 1e-12).all()


def test_by_hand():
    found = updated_weights(np.array([0.2, 0.3, 0.5]), np.array([6.0, 2, 3]), np.array([3.0, 2, 3]))
    psi = np.array([0.2 * np.exp(2), 0.3 * np.exp(1), 0.5 * np.exp(1)])
    np.testing.assert_allclose(found, 0.5 * psi / psi.sum() + 0.5 / 3)


def test_equal_ratios_end_in_equal_weights():
    weights = np.array([0.7, 0.2, 0.1])
    for _ in range(60):
        weights = updated_weights(weights, np.ones(3), np.ones(3))
    np.testing.assert_allclose(weights, 1 / 3, atol=1e-9)


def test_an_untrained_student_overflows_nothing():
    found = updated_weights(np.ones(2) / 2, np.array([1e6, 3.0]), np.array([2.0, 3.0]))
    np.testing.assert_allclose(found, [0.75, 0.25])


@pytest.mark.parametrize(
    ("smoothing", "student", "words"),
    [(1.2, 1.0, "smoothing must be in"), (0.5, 0.0, "perplexities must be positive")],
)
def test_refusals(smoothing, student, words):
    with pytest.raises(ValueError, match=words):
        updated_weights(np.ones(2) / 2, np.array([student, 1.0]), np.ones(2), smoothing)


def test_the_first_block_is_even_and_the_recursion_goes_on(monkeypatch):
    losses = iter(
        [
            {"a_loss": np.log(2.0), "b_loss": np.log(2.0)},  # the student at first
            {"a_loss": np.log(4.0), "b_loss": np.log(1.0)},  # and later
        ]
    )
    evaluators = {
        "student": lambda *_: next(losses),
        "teacher": lambda *_: {"a_loss": 0.0, "b_loss": 0.0},
    }
    monkeypatch.setattr(
        "jaxdistill.language.domains.next_token", lambda net, *_, **__: evaluators[net]
    )
    between = domain_weights("student", "teacher", "t", ("a", "b"), ())
    first = between(None, {"t": None}, None)
    assert first["weights"] == {"a": 0.5, "b": 0.5}
    second = between(None, {"t": None}, first)
    np.testing.assert_allclose(
        second["ratio"], updated_weights(np.ones(2) / 2, np.array([4.0, 1.0]), np.ones(2))
    )
    assert second["metrics"] == {f"weight_{k}": v for k, v in second["weights"].items()}


def config(**distiller):
    net = {"net": "decoder", "width": 8, "depth": 1, "heads": 2}
    return {
        "title": "texts",
        "seed": 0,
        "data": {
            "name": "standard_library", "length": 12, "modules": 60,
            "validation": 0.2, "test": 0.2,
        },
        "recipe": ("teacher", "distil"),
        "stages": {
            "teacher": {
                "student": net,
                "distiller": {"name": "language_model"},
                "optimizer": {"name": "adamw", "learning_rate": 1e-3},
                "evaluate": {"loss": LOSS},
            },
            "distil": {
                "student": net,
                "distiller": {"name": "language_model", "frozen": ("teacher",), **distiller},
                "optimizer": {"name": "adamw", "learning_rate": 1e-3},
            },
        },
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"divergence": {"name": "forward"}}, "'forward_kl'"),
        ({"divergence": {"nam": "jsd"}}, "'name'"),
        ({"divergence": {"name": "skewed_forward_kl", "beta": 0.5}}, "key of divergence"),
        ({"writin": {"prompt": 3}}, "stage 'distil': .*'writing'"),
        ({"writing": {"promt": 3}}, "'prompt'"),
        ({"writing": {"share": 0.5}}, "needs 'prompt'"),
        ({"writing": {"prompt": 13}}, "stage 'distil': prompt must be 1 to 12 tokens"),
        ({"writing": {"prompt": 3, "sampling": {"top": 3}}}, "'top_k'|'top_p'"),
        ({"writing": {"prompt": 3, "sampling": {"top_k": 0}}}, "top_k=0"),
        ({"writing": {"prompt": 3, "share": 0.8, "teacher_share": 0.3}}, "exceed 1 together"),
    ],
)
def test_a_config_that_does_not_fit(settings, words):
    with pytest.raises(ValueError, match=words):
        recipe.plan(config(**settings))


def test_work_between_steps_that_does_not_fit():
    sets = registry.data(config()["data"])
    context = Context(sets=sets, info=sets["train"].info)
    for given, words in (
        ({"name": "fixed_shares"}, "'every' of .* is 0: it must be a whole number, 1 or more"),
        ({"name": "domains_weights", "every": 1}, "'domain_weights'"),
        ({"name": "fixed_shares", "shares": {}, "every": 1}, "has no domains"),
    ):
        with pytest.raises(ValueError, match=words):
            registry.between(given, context)
