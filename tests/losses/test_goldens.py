"""Every loss against numbers made by running public implementations: values and gradients.

The numbers lie in ``tests/goldens`` (where they come from is in its ORIGIN.md), the cases in
``goldens_<family>.py`` beside this file: a dict ``CASES`` of functions from the inputs of a case to
its value, a dict ``LEFT_OUT`` with a reason for every case that is not met, and, where the
reference rounds to float32 inside, a set ``FLOAT32_INSIDE`` of the names.
"""

import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

HERE = pathlib.Path(__file__).parent
GOLDENS = HERE.parent / "goldens"
FLOAT32 = 1e-5
FLOAT64 = 1e-9
ROUNDED = (
    2e-6  # for cases of FLOAT32_INSIDE: the reference rounded although its inputs were float64
)


def _tables():
    cases, left_out, float32_inside = {}, {}, set()
    for path in sorted(HERE.glob("goldens_*.py")):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        assert not cases.keys() & module.CASES.keys()
        cases |= module.CASES
        left_out |= module.LEFT_OUT
        float32_inside |= getattr(module, "FLOAT32_INSIDE", set())
    return cases, left_out, float32_inside


CASES, LEFT_OUT, FLOAT32_INSIDE = _tables()


def _load(name):
    with np.load(GOLDENS / f"{name}.npz", allow_pickle=False) as file:
        return {key: file[key] for key in file.files}


def _error(ours, theirs):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, (ours.shape, theirs.shape)
    return np.max(np.abs(ours - theirs)) / max(np.max(np.abs(theirs)), 1e-30)


def _compare(name, dtype, tolerance):
    stored = _load(name)
    inputs, constants, targets = {}, {}, {}
    for key, value in stored.items():
        kind, _, short = key.partition("__")
        if kind in ("in", "param"):
            wide = value.astype(dtype) if value.dtype.kind == "f" else value.astype(np.int32)
            (inputs if f"grad__{short}" in stored else constants)[short] = jnp.asarray(wide)
        elif kind in ("out", "grad"):
            targets[key] = value

    def summed(inputs, constants):
        out = CASES[name]({**inputs, **constants})
        out = out if isinstance(out, dict) else {"loss": out}
        return sum(jnp.sum(jnp.asarray(x)) for x in out.values()), out

    if inputs:
        grads, out = jax.jit(jax.grad(summed, has_aux=True))(inputs, constants)
    else:
        grads, out = {}, jax.jit(summed)(inputs, constants)[1]
    got = {f"out__{k}": v for k, v in out.items()} | {f"grad__{k}": v for k, v in grads.items()}
    assert got.keys() == targets.keys()
    for key, value in got.items():
        assert value.dtype == dtype or value.dtype.kind != "f", key
        assert _error(value, targets[key]) <= tolerance, key


@pytest.mark.parametrize("name", sorted(CASES))
def test_float64(name):
    with jax.enable_x64(True):
        _compare(name, jnp.float64, ROUNDED if name in FLOAT32_INSIDE else FLOAT64)


@pytest.mark.parametrize("name", sorted(CASES))
def test_float32(name):
    _compare(name, jnp.float32, FLOAT32)


def test_every_case_is_met_or_listed():
    # Met in tests of stores, samplers, condensing, data, models and adapters.
    elsewhere = ("bitpack_", "logprob_compress_", "lcm_", "guidance_scale_", "gradient_match_")
    elsewhere += ("fmu_", "pmu_", "random_masking_", "ofa_sepconv", "ofa_patch_merging", "scm_")
    elsewhere += ("ctm_", "meanflow", "pcm_", "progressive_", "sana_", "shortcut", "tcd_", "lora_")
    elsewhere += ("dse_pair_features", "dse_pooler")
    names = (path.stem for path in GOLDENS.glob("*.npz"))
    stored = {name for name in names if not name.startswith(elsewhere)}
    assert stored == CASES.keys()
    assert not CASES.keys() & LEFT_OUT.keys()
    assert len(CASES) >= 126


def test_origin_is_stated_for_every_case():
    origin = (GOLDENS / "ORIGIN.md").read_text()
    assert all(f"| {name} |" in origin for name in CASES)
    assert all(f"| {name} |" in origin for name in LEFT_OUT)
    assert sum(path.stat().st_size for path in GOLDENS.iterdir()) < 3_000_000
