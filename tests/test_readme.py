"""The README's table of models is what the code supports and the tests run."""

import re
from pathlib import Path

import batvit

ROOT = Path(__file__).parents[1]
ROW = re.compile(r"^\| (?P<library>\w+)[^|]* \| (?P<families>[^|]+) \| whole", re.MULTILINE)


def test_the_table_names_every_supported_family():
    table = {}
    for row in ROW.finditer((ROOT / "README.md").read_text()):
        table.setdefault(row["library"], set()).update(row["families"].split("; "))
    assert table == {library: set(families) for library, families in batvit.supported().items()}
