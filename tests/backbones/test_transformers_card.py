"""The model card of a saved model says that it is reduced."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import transformers
from huggingface_hub import ModelCard
from saved_vit import saved_reduced, vit

import batvit


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return saved_reduced(tmp_path_factory.mktemp("saved") / "reduced")


def test_the_card_states_the_reduction_and_the_line_that_loads_it(folder):
    card = (folder / "README.md").read_text()
    assert 'batvit.load("reduced")' in card
    assert '"keep_rate": 0.5' in card
    assert "trust_remote_code" not in card


def test_the_card_follows_what_is_saved_and_keeps_the_words_of_others(tmp_path):
    (tmp_path / "README.md").write_text("# Mine\n")
    model = batvit.patch(vit(), keep_rate=0.5, blocks=(1,))
    model.save_pretrained(tmp_path)
    batvit.patch(model, keep_rate=0.7, blocks=(1,)).save_pretrained(tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert card.startswith("# Mine\n")
    assert card.count("batvit.load(") == 1
    assert '"keep_rate": 0.7' in card
    batvit.unpatch(model).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_text() == "# Mine\n"


def test_a_card_in_another_encoding_keeps_every_byte(tmp_path):
    (tmp_path / "README.md").write_bytes(b"# caf\xe9\n")
    model = batvit.patch(vit(), keep_rate=0.5, blocks=(1,))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes().startswith(b"# caf\xe9\n")
    assert b"batvit.load(" in (tmp_path / "README.md").read_bytes()
    batvit.unpatch(model).save_pretrained(tmp_path)
    assert (tmp_path / "README.md").read_bytes() == b"# caf\xe9\n"


@pytest.mark.parametrize("through", ["push_to_hub", "save_pretrained"])
def test_the_card_that_goes_to_a_hub_states_it(tmp_path, monkeypatch, through):
    sent = []

    class Hub:
        """Takes the place of the server, and keeps what it is sent."""

        def create_repo(self, repo_id, **arguments):
            return SimpleNamespace(repo_id=repo_id)

        def create_commit(self, repo_id, operations, **arguments):
            for operation in operations:
                if operation.path_in_repo == "README.md":
                    sent.append(Path(operation.path_or_fileobj).read_text())

        def create_branch(self, *args, **arguments):
            pass

    hub = Hub()
    for module in (transformers.utils.hub, transformers.modeling_utils):
        monkeypatch.setattr(module, "hf_api", lambda: hub)
        monkeypatch.setattr(
            module, "create_and_tag_model_card", lambda *args, **arguments: ModelCard("# Card\n")
        )
    model = batvit.patch(vit(), keep_rate=0.5, blocks=(1,))
    if through == "push_to_hub":
        model.push_to_hub("mine/reduced")
    else:
        model.save_pretrained(tmp_path / "reduced", push_to_hub=True, repo_id="mine/reduced")
    (card,) = sent
    assert "# Card" in card
    assert card.count('batvit.load("mine/reduced")') == 1


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_card_of_a_trainer_states_it_too(tmp_path):
    arguments = transformers.TrainingArguments(tmp_path, report_to=[], use_cpu=True)
    trainer = transformers.Trainer(batvit.patch(vit(), keep_rate=0.5, blocks=(1,)), arguments)
    trainer.save_model()
    trainer.create_model_card(model_name="mine")
    card = (tmp_path / "README.md").read_text()
    assert "Training procedure" in card
    assert card.count("batvit.load(") == 1
