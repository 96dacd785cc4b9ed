"""What each system is and how its claims were answered is written once, and is complete."""

from pathlib import Path

import pytest

from jaxdistill import config_files, systems

ROOT = Path(__file__).parents[1]


def test_every_config_has_its_entry_and_its_page():
    entries = systems.systems()
    assert sorted(each.config for each in entries) == config_files.names()
    for each in entries:
        assert each.distils in systems.KINDS
        assert (ROOT / "docs" / f"{each.page}.md").exists()


def test_answers_are_those_of_claims():
    for each in systems.systems():
        variants = config_files.variants(each.config)
        for answer in each.answers:
            assert answer.verdict in systems.VERDICTS
            assert answer.variant in variants, (each.config, answer)
            name = f"{each.config}:{answer.variant}" if answer.variant else each.config
            assert config_files.load(name).get("claim"), f"{name} makes no claim"


@pytest.mark.parametrize("page", systems.TABLES)
def test_tables_of_the_documentation_are_up_to_date(page):
    text = (ROOT / page).read_text()
    assert "<!-- systems -->" in text
    table = systems.TABLES[page]()
    assert text == systems.written(text, table), "run: python -m jaxdistill.systems"


@pytest.mark.parametrize(
    ("name", "config"), [("DMAE", "mae_vitb"), ("dsa", "dc"), ("DM", "dm"), ("mtt", "mtt")]
)
def test_a_system_is_shown_by_its_own_name_too(name, config):
    assert systems.shown(name) == systems.shown(config)


@pytest.mark.parametrize("each", systems.systems(), ids=lambda each: each.config)
def test_every_system_is_listed_and_shown(each):
    assert each in systems.found([each.config])
    text = systems.shown(each.config)
    # Commands are those of an installed library.
    assert "python -m" not in text
    assert "configs/" not in text
    assert f"jaxdistill run {each.config}" in text
    claim = config_files.load(f"{each.config}:small").get("claim")
    for words in ([claim["sentence"]] if claim else []) + [a.verdict for a in each.answers]:
        assert words in text


def test_words_narrow_the_list():
    names = [each.config for each in systems.found(["data set", "Fashion"])]
    assert names == ["ftd", "datm", "datadam"]
    with pytest.raises(ValueError, match="'samplr': did you mean 'sampler'"):
        systems.found(["samplr"])
    with pytest.raises(ValueError, match="no system has all of"):
        systems.found(["sampler", "herding"])
