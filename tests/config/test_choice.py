"""Which of a preset, a file, fields and saved weights decides."""

import pytest

from batvit.config import BATConfig
from batvit.config.choice import choose


@pytest.fixture
def weights(tmp_path):
    BATConfig.preset("gradual", keep_rate=0.6).save(tmp_path / "model.batvit.json")
    return tmp_path / "model.safetensors"


def test_without_any_choice_it_is_the_default_preset(tmp_path):
    assert choose({}) == (BATConfig.preset(), None)
    assert choose({}, tmp_path / "model.safetensors") == (BATConfig.preset(), None)


def test_what_lies_beside_the_weights_is_used_and_said(weights, tmp_path):
    config, note = choose({}, weights)
    assert config == BATConfig.preset("gradual", keep_rate=0.6)
    assert note == f"configuration from {tmp_path / 'model.batvit.json'}"


@pytest.mark.parametrize("given", [{"mode": "paper"}, {"pairs": 3}, {"neighbours": None}])
def test_any_choice_takes_the_place_of_what_lies_beside_the_weights(weights, given):
    config, note = choose(given, weights)
    assert config == BATConfig.preset(**given)
    assert str(note).endswith("model.batvit.json is not used")


def test_fields_are_set_otherwise_in_a_file_which_needs_no_preset(tmp_path, weights):
    BATConfig.preset("paper", blocks=(2, 5)).save(tmp_path / "own.json")
    own = {"config": tmp_path / "own.json"}
    config, note = choose(own | {"keep_rate": 0.5, "blocks": None}, weights)
    assert (config.keep_rate, config.blocks, note) == (0.5, None, None)
    with pytest.raises(ValueError, match=r"give config=.*own.json or mode=paper, not both"):
        choose(own | {"mode": "paper"})


@pytest.mark.parametrize("name", ["neighbours", "blocks", "tokens"])
def test_a_field_that_is_given_as_none_is_none(name):
    fields = {"neighbours": 2, "blocks": (3,), "tokens": (9,)}
    value = choose({name: fields[name]}).config
    assert getattr(value, name) == fields[name]
    assert getattr(choose({name: None}).config, name) is None


def test_a_refused_field_is_named():
    with pytest.raises(ValueError, match="keep_rate"):
        choose({"keep_rate": 2.0})
