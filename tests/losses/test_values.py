"""Values of losses that no public code was run for, against their formulas in float64 NumPy."""

import jax
import numpy as np
import pytest

from jaxdistill import losses

EXACT = {"rtol": 1e-12, "atol": 1e-14}


@pytest.fixture(autouse=True)
def _wide():
    with jax.enable_x64(True):
        yield


def _normal(seed, *shape):
    return np.random.default_rng(seed).normal(size=shape)


def _softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def _run(loss, *args, **kwargs):
    return np.asarray(jax.jit(lambda *given: loss(*given, **kwargs))(*args))


def _kl(p, q):
    return np.sum(p * np.log(p / q), axis=-1)


def test_binary_cross_entropy_and_squares_of_probabilities():
    z, t = 3 * _normal(0, 4, 5), 3 * _normal(1, 4, 5)
    labels = np.array([1, 4, 0, 2])
    p, s = _softmax(t), 1 / (1 + np.exp(-z))
    binary = -(p * np.log(s) + (1 - p) * np.log(1 - s)).mean(1)
    np.testing.assert_allclose(_run(losses.soft_binary_cross_entropy, z, p), binary, **EXACT)
    q, hot = _softmax(z), np.eye(5)[labels]
    np.testing.assert_allclose(
        _run(losses.brier_score, z, labels), ((q - hot) ** 2).sum(1), **EXACT
    )
    apart = ((q - p) ** 2).sum(1)
    np.testing.assert_allclose(_run(losses.probability_distance, z, t), apart, **EXACT)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_sorted_probabilities_of_unlike_vocabularies(temperature):
    student, teacher = 2 * _normal(2, 2, 3, 5), 2 * _normal(3, 2, 3, 8)
    ours = -np.sort(-_softmax(student / temperature), -1)
    theirs = -np.sort(-_softmax(teacher / temperature), -1)
    ours = np.concatenate([ours, np.zeros((2, 3, 3))], -1)
    expected = temperature**2 * np.abs(ours - theirs).sum(-1)
    out = _run(losses.universal_logit_distillation, student, teacher, temperature=temperature)
    np.testing.assert_allclose(out, expected, **EXACT)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_smooth_absolute_distance(beta):
    student, teacher = 2 * _normal(4, 6, 7), _normal(5, 6, 7)
    expected = [
        np.mean([g * g / (2 * beta) if abs(g) < beta else abs(g) - beta / 2 for g in row])
        for row in student - teacher
    ]
    np.testing.assert_allclose(
        _run(losses.smooth_l1, student, teacher, beta=beta), expected, **EXACT
    )


@pytest.mark.parametrize(
    ("options", "kernel"),
    [
        ({"bandwidth": 1.5}, lambda x, y: np.exp(-np.sum((x - y) ** 2) / (2 * 1.5**2))),
        ({"kernel": "linear"}, np.dot),
        (
            {"kernel": "polynomial", "degree": 3, "offset": 0.5},
            lambda x, y: (np.dot(x, y) + 0.5) ** 3,
        ),
    ],
)
def test_discrepancy_of_two_clouds(options, kernel):
    student, teacher = _normal(6, 5, 3), _normal(7, 5, 3)

    def mean(a, b):
        return np.mean([kernel(x, y) for x in a for y in b])

    expected = mean(student, student) + mean(teacher, teacher) - 2 * mean(student, teacher)
    np.testing.assert_allclose(_run(losses.mmd, student, teacher, **options), expected, **EXACT)


def test_symmetric_contrast():
    student, teacher = _normal(8, 5, 3), _normal(9, 5, 3)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (student, teacher)]
    scores = unit[0] @ unit[1].T / 0.3
    there, back = (-np.log(np.diag(_softmax(x))).mean() for x in (scores, scores.T))
    out = _run(losses.clip, student, teacher, temperature=0.3)
    np.testing.assert_allclose(out, (there + back) / 2, **EXACT)


def test_bounds_on_mutual_information():
    scores, log_likelihood = _normal(10, 6, 6), _normal(11, 6)
    n, own = 6, np.diag(scores)
    others = [scores[i, j] for i in range(n) for j in range(n) if i != j]
    out = _run(losses.barber_agakov_bound, log_likelihood, 1.25)
    np.testing.assert_allclose(out, log_likelihood.mean() + 1.25, **EXACT)
    bound = np.log(n) + np.mean(own - np.log(np.exp(scores).sum(1)))
    np.testing.assert_allclose(_run(losses.info_nce_bound, scores), bound, **EXACT)
    objective = -np.log1p(np.exp(-own)).mean() - np.log1p(np.exp(others)).mean()
    np.testing.assert_allclose(_run(losses.jensen_shannon_objective, scores), objective, **EXACT)
    # The value of NWJ at f + 1, the gradient of the objective.
    value = np.mean(own + 1) - np.mean(np.exp(others))
    np.testing.assert_allclose(_run(losses.jensen_shannon_bound, scores), value, **EXACT)
    slope = np.where(
        np.eye(n, dtype=bool),
        1 / (1 + np.exp(scores)) / n,
        -1 / (1 + np.exp(-scores)) / (n * (n - 1)),
    )
    for loss in (losses.jensen_shannon_objective, losses.jensen_shannon_bound):
        np.testing.assert_allclose(_run(jax.grad(loss), scores), slope, **EXACT)


@pytest.mark.parametrize("relations", [("qq", "kk", "vv"), ("qk", "vv"), ("qk", "kq", "vq")])
def test_relations_of_queries_keys_and_values(relations):
    student, teacher = _normal(12, 3, 2, 4, 6), _normal(13, 3, 2, 4, 10)
    mask = np.array([[True, True, True, True], [True, True, False, True]])
    expected = np.zeros((2, 4))
    for b in range(2):
        keys = np.flatnonzero(mask[b])
        for i in keys:
            for first, second in relations:
                for head in range(2):
                    rows = []
                    for side in (teacher, student):
                        size = side.shape[-1] // 2
                        part = slice(head * size, (head + 1) * size)
                        a = side["qkv".index(first), b, i, part]
                        c = side["qkv".index(second), b, keys][:, part]
                        rows.append(_softmax(c @ a / np.sqrt(size)))
                    expected[b, i] += _kl(*rows) / 2 / len(relations)
    out = _run(
        losses.qkv_relations,
        tuple(student),
        tuple(teacher),
        heads=2,
        relations=relations,
        mask=mask,
    )
    np.testing.assert_allclose(out, expected, **EXACT)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_known_classes_renormalised_or_sampled(temperature):
    student, teacher = 2 * _normal(14, 2, 3, 7), _softmax(2 * _normal(15, 2, 3, 7))
    ids = np.argsort(-teacher, -1)[..., :3]
    known = np.take_along_axis(teacher, ids, -1)
    chosen = np.take_along_axis(student, ids, -1)
    t = known ** (1 / temperature)
    t = t / t.sum(-1, keepdims=True)
    s = _softmax(chosen / temperature)
    m = 0.3 * t + 0.7 * s
    args, scale = (student, ids, np.log(known)), temperature**2
    options = {"missing": "renormalise", "temperature": temperature}
    expected = {
        losses.sparse_kl: _kl(t, s),
        losses.sparse_total_variation: np.abs(t - s).sum(-1) / 2,
    }
    for loss, value in expected.items():
        np.testing.assert_allclose(_run(loss, *args, **options), scale * value, **EXACT)
    value = 0.3 * _kl(t, m) + 0.7 * _kl(s, m)
    out = _run(losses.sparse_jsd, *args, beta=0.3, **options)
    np.testing.assert_allclose(out, scale * value, **EXACT)
    # Shares of draws are taken as they are, against the student's whole softmax.
    whole = np.take_along_axis(_softmax(student / temperature), ids, -1)
    out = _run(losses.sparse_kl, *args, missing="sampled", temperature=temperature)
    np.testing.assert_allclose(out, scale * _kl(known, whole), **EXACT)
    slope = _run(
        jax.grad(lambda z: losses.sparse_kl(z, *args[1:], missing="sampled").sum()), student
    )
    shares = np.zeros_like(student)
    np.put_along_axis(shares, ids, known, -1)
    mass = known.sum(-1, keepdims=True)
    np.testing.assert_allclose(slope, mass * _softmax(student) - shares, rtol=1e-10, atol=1e-14)


def _sigmoid(z):
    return 1 / (1 + np.exp(-z))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_preferences(smoothing):
    student, reference = -5 * _normal(20, 3, 4, 2) ** 2, -5 * _normal(21, 3, 4, 2) ** 2
    beta = np.abs(_normal(22, 3)) + 0.1  # one for each prompt
    gained = student - reference
    z = beta[:, None] * (gained[..., 0] - gained[..., 1])
    expected = -(1 - smoothing) * np.log(_sigmoid(z)) - smoothing * np.log(_sigmoid(-z))
    out = _run(losses.dpo, student, reference, beta=beta, smoothing=smoothing)
    np.testing.assert_allclose(out, expected, **EXACT)
    # It is the loss of a reward model, where the student's numbers are rewards.
    rewards = -np.log(_sigmoid(student[..., 0] - student[..., 1]))
    out = _run(losses.dpo, student, np.zeros_like(student), beta=1.0)
    np.testing.assert_allclose(out, rewards, rtol=1e-9, atol=1e-12)
    with pytest.raises(ValueError, match="chosen answer and the rejected"):
        losses.dpo(student[..., :1], reference[..., :1])


@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_ranks_of_answers(margin):
    student, rewards = -(_normal(23, 5, 4) ** 2), _normal(24, 5, 4)
    rewards[0, 1] = rewards[0, 2]  # no pair
    rewards[1, 3] = -np.inf  # no answer
    expected = np.zeros(5)
    for row, (s, r) in enumerate(zip(student, rewards, strict=True)):
        for k in range(4):
            for other in range(4):
                if -np.inf < r[k] < r[other]:
                    expected[row] += max(0.0, margin + s[k] - s[other])
    np.testing.assert_allclose(
        _run(losses.rrhf, student, rewards, margin=margin), expected, **EXACT
    )
    # An answer that is not there may be anything.
    student[1, 3] = np.nan
    np.testing.assert_allclose(
        _run(losses.rrhf, student, rewards, margin=margin), expected, **EXACT
    )


def test_reinforcement():
    student, reference = -np.abs(_normal(25, 3, 6)), -np.abs(_normal(26, 3, 6))
    advantages = _normal(27, 3, 6)
    gap = reference - student
    expected = -advantages + 0.3 * (np.exp(gap) - gap - 1)
    out = _run(losses.policy_gradient, student, reference, advantages, kl_weight=0.3)
    np.testing.assert_allclose(out, expected, **EXACT)

    def total(student, advantages):
        return losses.policy_gradient(student, reference, advantages, kl_weight=0.3).sum()

    slope, none = jax.grad(total, (0, 1))(student, advantages)
    np.testing.assert_allclose(slope, -advantages + 0.3 * (1 - np.exp(gap)), **EXACT)
    np.testing.assert_array_equal(none, 0)
    # A token that the student finds hopeless stays finite.
    far = losses.policy_gradient(np.array([-900.0]), np.zeros(1), np.ones(1), kl_weight=1.0)
    assert np.isfinite(far).all()


def test_advantages_of_a_group():
    rewards = _normal(28, 4, 5)
    rewards[0] = 2.0
    centred = rewards - rewards.mean(-1, keepdims=True)
    out = _run(losses.group_advantages, rewards, scaled=False)
    np.testing.assert_allclose(out, centred, **EXACT)
    expected = centred / (rewards.std(-1, keepdims=True) + 1e-4)
    np.testing.assert_allclose(_run(losses.group_advantages, rewards), expected, **EXACT)
    assert (_run(losses.group_advantages, rewards)[0] == 0).all()
