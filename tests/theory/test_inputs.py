"""Bad input: each a ValueError that says which, shapes also while tracing."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxdistill import theory

EYE, ONES, VALUES = jnp.eye(3), jnp.ones((3, 1)), jnp.ones(3)
LOPSIDED = EYE.at[0, 1].set(0.5)
INDEFINITE = jnp.diag(jnp.array([1.0, 1.0, -0.1]))
NAN = EYE.at[1, 1].set(jnp.nan)
FOUND = theory.spectrum(EYE)
FITS = {
    "ridge_fit": lambda k, y, r: theory.ridge_fit(k, y, r),
    "path": lambda k, y, r: theory.path(k, y, r, 0.5, steps=2),
    "limit": lambda k, y, r: theory.limit(k, y, r, 0.5),
    "chosen_path": lambda k, y, r: theory.chosen_path(k, y, r, EYE, ONES, steps=2),
}


@pytest.mark.parametrize("name", FITS)
@pytest.mark.parametrize(
    ("kernel", "targets", "ridge", "message"),
    [
        (LOPSIDED, ONES, 1.0, r"kernel must be symmetric.* differ by 0\.5"),
        (INDEFINITE, ONES, 1.0, r"kernel must be positive semi-definite.* below"),
        (NAN, ONES, 1.0, r"kernel must be finite, 1 of 9 entries"),
        (EYE, ONES.at[0].set(jnp.inf), 1.0, r"targets must be finite, 1 of 3 entries"),
        (EYE, ONES, -0.1, r"ridge must be at least 0, got -0\.1"),
        (EYE, ONES, float("nan"), r"ridge must be finite, got nan"),
        (EYE, ONES, jnp.ones(2), r"ridge must be one number, got shape \(2,\)"),
        (EYE[:2], ONES, 1.0, r"kernel must be \[n, n\].* got shape \(2, 3\)"),
        (EYE, ONES[:2], 1.0, r"targets must be \[3, c\].* got shape \(2, 1\)"),
        (EYE, ONES[:, 0], 1.0, r"targets must be \[3, c\].*write targets\[:, None\]"),
    ],
)
def test_fits(name, kernel, targets, ridge, message):
    with pytest.raises(ValueError, match=message):
        FITS[name](kernel, targets, ridge)


def test_what_rounding_does_is_let_pass():
    kernel = EYE.at[0, 1].add(1e-7).at[2, 2].set(-1e-7)
    assert bool(jnp.isfinite(theory.ridge_fit(kernel, ONES, 1e-3).fitted).all())
    assert float(theory.spectrum(kernel).values[0]) == 0
    assert bool(jnp.isfinite(theory.path(jnp.zeros((3, 3)), ONES, 0.0, 0.5, steps=2).fitted).all())


@pytest.mark.parametrize("kernel", [LOPSIDED, INDEFINITE, NAN, EYE[:2], jnp.zeros((0, 0))])
def test_spectra(kernel):
    with pytest.raises(ValueError, match="kernel must be"):
        theory.spectrum(kernel)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: theory.path(EYE, ONES, 1.0, jnp.array([1.0, jnp.nan])),
            "weights must be finite, 1 of 2",
        ),
        (lambda: theory.path(EYE, ONES, 1.0, 0.5), "give steps"),
        (lambda: theory.path(EYE, ONES, 1.0, 0.5, steps=0), "steps must be 1 or more, got 0"),
        (lambda: theory.path(EYE, ONES, 1.0, jnp.ones(3), steps=2), "3 entries for 2 steps"),
        (
            lambda: theory.path(EYE, ONES, 1.0, jnp.ones((2, 2))),
            r"weights must be one number or \[steps",
        ),
        (
            lambda: theory.filters(-VALUES, 1.0, 0.5, steps=2),
            "eigenvalues must be at least 0, the smallest is -1",
        ),
        (lambda: theory.filters(EYE, 1.0, 0.5, steps=2), r"eigenvalues must be \[n\]"),
        (lambda: theory.filter_at(VALUES, 1.0, 0.5, 0), "step must be 1 or more"),
        (lambda: theory.filter_at(VALUES, 1.0, jnp.inf, 1), "weight must be finite"),
        (lambda: theory.weights_of(VALUES), "coefficients must sum to 1, they sum to 3"),
        (lambda: theory.filter_ratios(jnp.zeros((2, 0))), "filters must be"),
        (
            lambda: theory.limit(EYE, ONES, 1.0, 0.0),
            r"weight in \(0, 1\], got 0\.0.*shrink to zero",
        ),
        (lambda: theory.limit(EYE, ONES, 1.0, 1.5), r"weight in \(0, 1\], got 1\.5"),
        (lambda: theory.limit_filter(VALUES, 1.0, -0.5), r"weight in \(0, 1\], got -0\.5"),
        (lambda: theory.limit_rate(VALUES, 1.0, 0.0), r"weight in \(0, 1\]"),
        (lambda: theory.limit(EYE, ONES, 1.0, jnp.nan), "weight must be finite"),
        (lambda: theory.spectral_fit(FOUND, ONES[:2], 1.0), r"targets must be \[3, c\]"),
        (lambda: theory.leave_one_out(FOUND, ONES, 0.0), "ridge must be above 0"),
        (lambda: theory.generalised_cross_validation(FOUND, ONES, -1.0), "ridge must be above 0"),
        (lambda: theory.predict(EYE, ONES[:2]), r"cross must be \[m, n\]"),
        (
            lambda: theory.optimal_weight(ONES, ONES, ONES[:2]),
            "targets and distilled must have one shape",
        ),
        (lambda: theory.optimal_weight(ONES, ONES * jnp.nan, ONES), "first must be finite"),
        (
            lambda: theory.chosen_path(EYE, ONES, 1.0, EYE[:, :2], ONES, steps=2),
            r"cross must be \[m, 3\]",
        ),
        (
            lambda: theory.chosen_path(EYE, ONES, 1.0, EYE, ONES[:2], steps=2),
            r"validation must be \[3, c\]",
        ),
        (lambda: theory.chosen_path(EYE, ONES, 1.0, EYE, EYE, steps=2), "the 1 outputs of targets"),
        (lambda: theory.chosen_path(EYE, ONES, 1.0, EYE, ONES, steps=0), "steps must be 1 or more"),
        (lambda: theory.constrained_rounds(VALUES, VALUES, 0.0, 2), "error must be above 0"),
        (
            lambda: theory.constrained_rounds(VALUES.at[0].set(0), VALUES, 0.1, 2),
            "eigenvalues must be above 0",
        ),
        (lambda: theory.constrained_rounds(VALUES, VALUES[:2], 0.1, 2), "one entry per eigenvalue"),
        (lambda: theory.constrained_rounds(VALUES, VALUES, 0.1, 0), "rounds must be 1 or more"),
        (lambda: theory.multiplier_bounds(VALUES, 1.0, 3.0), "collapsed to zero"),
        (lambda: theory.linear_student(EYE, ONES[:2]), r"x must be \[n, d\] and teacher \[d, c\]"),
        (lambda: theory.linear_student(NAN, ONES), "x must be finite"),
        (lambda: theory.noisy_labels(VALUES, VALUES, -1.0, 1.0), "noise must be at least 0"),
        (lambda: theory.noisy_labels(VALUES, VALUES, 1.0, 0.0), "ridge must be above 0"),
        (lambda: theory.noisy_labels(VALUES, VALUES[:1], 1.0, 1.0), "signal must have one entry"),
        (
            lambda: theory.several_steps(VALUES, VALUES, VALUES[:2], 1.0, steps=1),
            "signal and noise",
        ),
        (
            lambda: theory.several_steps(VALUES, VALUES, VALUES, 1.0, steps=-1),
            "steps must be 0 or more",
        ),
        (lambda: theory.data_centric(VALUES, jnp.array([1.0, 0.0])), "ridges must be above 0"),
        (lambda: theory.distribution_centric(VALUES, EYE), r"ridges must be \[steps\]"),
        (
            lambda: theory.effective_logits(VALUES, VALUES, weight=1.0),
            r"weight must be in \[0, 1\), got 1\.0",
        ),
        (
            lambda: theory.effective_logits(VALUES, 2 * VALUES, weight=0.5),
            r"labels must be in \[0, 1\].* to 2\.0",
        ),
        (
            lambda: theory.effective_logits(VALUES, VALUES, weight=0.5, temperature=0.0),
            "temperature must be above 0",
        ),
        (lambda: theory.rbf(EYE, gamma=0.0), "gamma must be above 0"),
        (lambda: theory.rbf(EYE, EYE[:, :2]), "as many features, got 3 and 2"),
        (lambda: theory.rbf(VALUES), r"x must be points"),
        (lambda: theory.matern(EYE, smoothness=2.0), "unknown smoothness '2.0'"),
        (lambda: theory.polynomial(EYE, degree=0), "degree must be 1 or more, got 0"),
        (lambda: theory.polynomial(EYE, offset=-1.0), "offset must be at least 0"),
        (lambda: theory.ntk(EYE, depth=-1), "depth must be 0 or more"),
        (lambda: theory.ntk(EYE, angles="product"), "did you mean 'products'"),
        (lambda: theory.nngp(EYE, bias_variance=-1.0), "bias_variance must be at least 0"),
        (lambda: theory.gram(theory.linear, EYE, block=0), "block must be 1 or more"),
        (
            lambda: theory.empirical_ntk(None, {}, {}, EYE, outputs="sum"),
            "unknown kind of outputs 'sum'",
        ),
        (lambda: theory.empirical_ntk(None, {}, {}, {"a": EYE, "b": EYE[:2]}), "one leading size"),
    ],
)
def test_all_else(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_rows_that_devices_cannot_share():
    mesh = jax.make_mesh((2,), ("data",), devices=jax.devices()[:2])
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    with pytest.raises(ValueError, match=r"3 rows cannot be shared evenly by 2 devices \('data'\)"):
        theory.gram(theory.linear, EYE, sharding=sharding)


def test_shapes_are_checked_while_tracing_and_values_are_not():
    with pytest.raises(ValueError, match="kernel must be"):
        jax.jit(theory.ridge_fit)(EYE[:2], ONES, 1.0)
    with pytest.raises(ValueError, match="targets must be"):
        jax.eval_shape(lambda k, y: theory.path(k, y, 1.0, 0.5, steps=2), EYE, ONES[:2])
    with pytest.raises(ValueError, match="steps must be 1 or more"):
        jax.jit(lambda k, y: theory.path(k, y, 1.0, 0.5, steps=0))(EYE, ONES)
    found = jax.jit(theory.ridge_fit)(LOPSIDED, ONES, -0.1)
    assert found.fitted.shape == (3, 1)
    # What is known while tracing is checked.
    with pytest.raises(ValueError, match="ridge must be at least 0"):
        jax.jit(lambda y: theory.ridge_fit(EYE, y, -0.1))(ONES)
    with pytest.raises(ValueError, match="kernel must be symmetric"):
        jax.jit(lambda y: theory.ridge_fit(LOPSIDED, y, 0.1))(ONES)


def test_numpy_integers_and_half_floats_come_in():
    fit = theory.ridge_fit(np.eye(3, dtype=np.int32), np.ones((3, 1), np.float16), 1)
    assert fit.fitted.dtype == jnp.float32
    np.testing.assert_allclose(fit.fitted, 0.5)


def test_the_import_brings_nothing_but_jax():
    code = (
        "import sys; from jaxdistill import theory; import jaxdistill.theory; "
        "print(*[n for n in ('flax', 'optax', 'scipy.stats', 'sklearn', 'tensorflow', 'orbax') "
        "if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    assert all(hasattr(theory, name) for name in theory.__all__)
