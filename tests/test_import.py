"""The package is light to import, and its losses bring nothing but JAX."""

import subprocess
import sys

import pytest

HEAVY = ("tensorflow", "torch", "sklearn", "grain", "orbax", "tensorflow_datasets", "matplotlib")


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import jaxdistill", (*HEAVY, "flax", "optax")),
        ("from jaxdistill import losses", (*HEAVY, "flax", "optax", "jaxdistill.net")),
        ("from jaxdistill import fit, model_to_model, from_linen, run_stage, restore", HEAVY),
    ],
)
def test_what_an_import_brings(statement, absent):
    code = f"import sys; {statement}; print(*[name for name in {absent!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_every_public_name_is_there():
    import jaxdistill

    for name in jaxdistill.__all__:
        assert getattr(jaxdistill, name) is not None
    with pytest.raises(AttributeError, match="'restore'"):
        jaxdistill.restor  # noqa: B018
