"""README says what the code does: its code runs, its models and its tables are the real ones."""

import re
import statistics
from pathlib import Path

import pytest
import timm
from PIL import Image
from safetensors.torch import save_file

import batvit
from batvit.config.config import USUAL_FIELDS
from batvit.config.presets import PRESETS

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
FAMILIES = re.compile(r"^\| (?P<library>\w+)[^|]* \| (?P<families>[^|]+) \|$", re.MULTILINE)
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
COMMIT = "0" * 40
# what stands beside the sentences of a document
NO_SENTENCES = re.compile(r"```.*?```|<!--.*?-->|^\|.*?$|^#.*?$|!\[.*?\)", re.DOTALL | re.MULTILINE)


@pytest.fixture
def results(imported):
    """The script that writes the tables."""
    return imported("benchmarks/results.py")


def test_the_table_names_every_supported_family():
    table = {}
    for row in FAMILIES.finditer((ROOT / "docs" / "models.md").read_text()):
        table.setdefault(row["library"], set()).update(row["families"].split("; "))
    table.pop("Library")
    assert table == {library: set(families) for library, families in batvit.supported().items()}


def test_the_families_are_counted():
    counts = {library: len(families) for library, families in batvit.supported().items()}
    counted = re.search(r"(\d+) families \((.*?)\)", README.read_text())
    assert int(counted[1]) == sum(counts.values())
    found = {}
    for part in counted[2].split(", "):
        library, _, number = part.partition(" ")
        found[library] = int(number)
    assert found == counts


def test_its_code_runs(tmp_path, monkeypatch, capsys):
    (block,) = BLOCK.findall(README.read_text())
    _cached(tmp_path / "cache", "deit_small_patch16_224")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (300, 200), (90, 60, 30)).save(tmp_path / "picture.jpg")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(block, names)
    assert batvit.config_of(names["model"]).keep_rate == 0.7
    assert re.fullmatch(r"tensor\(\d+\)", capsys.readouterr().out.strip())


def _cached(cache, name):
    """Put random weights where the hub's cache has those of a model."""
    model = timm.create_model(name)
    repository = model.pretrained_cfg["hf_hub_id"]
    folder = cache / f"models--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(COMMIT)
    save_file(model.state_dict(), snapshot / "model.safetensors")


def test_it_is_short():
    text = README.read_text()
    assert len(text.splitlines()) <= 120
    assert max(map(len, text.splitlines())) <= 100
    prose = NO_SENTENCES.sub("", text)
    sentences = re.split(r"(?<=[.:!?])\s", prose)
    words = [len(sentence.split()) for sentence in sentences if sentence.strip()]
    assert statistics.median(words) < 18


def test_the_tables_are_those_of_the_results(results):
    for path in results.DOCUMENTS:
        assert results.render(path.read_text()) == path.read_text(), "run make results"


def test_every_field_stands_in_its_group_with_its_value_in_each_preset(results):
    text = (ROOT / "docs" / "configuration.md").read_text()
    usual, research = text.split("## For research")
    for name in batvit.BATConfig().to_dict():
        group = usual if name in USUAL_FIELDS else research
        row = re.search(rf"^\| `{name}` \| .+ \| (.+) \| (.+) \| (.+) \|$", group, re.MULTILINE)
        values = [getattr(batvit.BATConfig.preset(mode), name) for mode in PRESETS]
        shown = [None if name == "keep_rate" else value for value in values]
        assert list(row.groups()) == list(map(str, shown))


def test_every_result_is_shown_and_says_where_it_comes_from(results):
    shown = {
        match["name"] for match in results.REGION.finditer((ROOT / "docs/results.md").read_text())
    }
    assert shown == {path.stem for path in results.RESULTS.glob("*.json")}
    for name in shown:
        result = results.load(name)
        for key in ("title", "says", "note", "command", "commit", "date", "hardware", "software"):
            assert result[key].strip(), (name, key)
        assert result["rows"], name


def test_a_changed_result_changes_the_documents(results, monkeypatch, tmp_path):
    changed = (results.RESULTS / "accuracy.json").read_text().replace("86.7", "12.3")
    (tmp_path / "accuracy.json").write_text(changed)
    monkeypatch.setattr(results, "RESULTS", tmp_path)
    document = "<!-- table accuracy; where model=dense; columns top-1 -->\nold\n<!-- end -->\n"
    written = results.render(document)
    assert "| 12.3 |" in written
    assert "old" not in written
    assert results.render(written) == written
