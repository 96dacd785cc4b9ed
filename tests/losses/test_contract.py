"""Every loss keeps the contract: see ``jaxdistill.testing``."""

import pytest

from jaxdistill import losses, testing


@pytest.mark.parametrize("entry", losses.catalogue(), ids=lambda entry: entry.name)
def test_contract(entry):
    testing.check_loss(entry)


def test_names_are_unique():
    names = [entry.name for entry in losses.catalogue()]
    assert len(names) == len(set(names))


def test_every_public_loss_is_in_the_catalogue_or_says_why_not():
    public = {name for name in losses.__all__ if callable(getattr(losses, name))}
    known = {entry.loss.__name__ for entry in losses.catalogue()}
    assert public == known | set(losses.NOT_LOSSES) | set(losses.FUSED) | {
        "Entry",
        "catalogue",
        "forward_kl",
    }


@pytest.mark.parametrize(
    ("change", "check"),
    [
        (lambda value: value.astype("bfloat16"), "check_shape"),
        (lambda value: value / (value - value), "check_shape"),
        (lambda value: value + 1, "check_hard"),
    ],
)
def test_a_broken_loss_is_found(change, check):
    def broken(student, teacher):
        return change(losses.hinton_kd(student, teacher))

    entry = testing.Entry(
        broken,
        "logits",
        testing.PER_EXAMPLE,
        "",
        "",
        testing.scores(),
        scores=True,
        zero_at_equality=True,
    )
    with pytest.raises(AssertionError, match=f"breaks its contract:(.|\n)*{check}"):
        testing.check_loss(entry)
