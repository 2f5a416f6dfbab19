"""Tables of the documents, written from the committed results in docs/results.

    python benchmarks/results.py            # writes README.md and docs/results.md again
    python benchmarks/results.py --check    # fails if that would change them

A result is a JSON file: what was measured (``rows``), how a row is shown (``columns``: a heading
and a format string for each), and where it comes from (command, commit, hardware, software, date).
A document asks for one between two comments, whose text in between is written here:

    <!-- result NAME -->         the table, what it says, and where it comes from
    <!-- table NAME -->          the table alone
    <!-- fields usual -->        what BATConfig's fields are, and in each preset: usual, or research
    <!-- end -->

``; where KEY=VALUE|VALUE`` after the name chooses rows, ``; columns HEADING|HEADING`` columns.
"""

import argparse
import datetime
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from batvit.config import BATConfig
from batvit.config.config import USUAL_FIELDS
from batvit.config.field_help import field_help
from batvit.config.presets import PRESETS

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs" / "results"
DOCUMENTS = tuple(
    REPOSITORY / name for name in ("README.md", "docs/results.md", "docs/configuration.md")
)
REGION = re.compile(
    r"<!-- (?P<kind>result|table|fields) (?P<name>\w+)(?P<choice>[^>]*) -->\n.*?<!-- end -->",
    re.DOTALL,
)
PACKAGES = ("torch", "timm", "transformers", "onnxruntime", "openvino")

Result = dict[str, Any]
Row = dict[str, Any]


def main() -> None:
    """Write the documents again, or check that they are what the results say."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    args = parser.parse_args()
    stale = []
    for path in DOCUMENTS:
        text = path.read_text()
        written = render(text)
        if written == text:
            continue
        stale.append(path.name)
        if not args.check:
            path.write_text(written)
    if args.check and stale:
        sys.exit(f"{', '.join(stale)} differ from docs/results; run make results")


def load(name: str) -> Result:
    """Return a committed result."""
    result: Result = json.loads((RESULTS / f"{name}.json").read_text())
    return result


def render(document: str) -> str:
    """Return a document whose regions say what the results say."""
    return REGION.sub(_region, document)


def record(name: str, rows: Sequence[Row], *, columns: dict[str, str] | None = None) -> None:
    """Keep new rows of a result, with the commit, machine and versions they were measured with."""
    result = load(name)
    result |= {
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "hardware": _processor(),
        "software": ", ".join(_versions()),
        "columns": columns or result["columns"],
        "rows": list(rows),
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def show(
    name: str,
    rows: Sequence[Row],
    *,
    keep: bool,
    columns: dict[str, str] | None = None,
    path: str | None = None,
) -> None:
    """Print what a benchmark found in the columns of its result.

    Args:
        name: of the result.
        rows: what was found.
        keep: whether to keep it in docs/results.
        columns: if they are not those of the result.
        path: where the rows are written, too.
    """
    print(table(columns or load(name)["columns"], rows))
    if path is not None:
        Path(path).write_text(json.dumps(rows, indent=2) + "\n")
    if keep:
        record(name, rows, columns=columns)


def table(columns: dict[str, str], rows: Sequence[Row]) -> str:
    """Return a table in Markdown; a cell whose value a row lacks stays empty."""
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    for row in rows:
        cells = [_cell(form, row) for form in columns.values()]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(form: str, row: Row) -> str:
    try:
        return form.format_map(row)
    except KeyError:
        return ""


def fields_table(*, usual: bool) -> str:
    """Return what the fields of BATConfig are: those that most users set, or the others."""
    columns = {"field": "`{name}`", "what it is": "{text}"}
    columns |= {f"`{mode}`": f"{{{mode}}}" for mode in PRESETS}
    rows = []
    for name, text in field_help(BATConfig).items():
        if (name in USUAL_FIELDS) == usual:
            values = {
                mode: fields.get(name, getattr(BATConfig, name)) for mode, fields in PRESETS.items()
            }
            rows.append({"name": name, "text": text.replace("%%", "%")} | values)
    return table(columns, rows)


def _region(match: re.Match[str]) -> str:
    if match["kind"] == "fields":
        text = fields_table(usual=match["name"] == "usual")
        return f"<!-- fields {match['name']} -->\n{text}\n<!-- end -->"
    result = load(match["name"])
    wanted, columns = _choose(result, match["choice"])
    groups = {}
    for heading, rows in groupby(wanted, key=lambda row: _cell(result.get("group", ""), row)):
        groups[heading] = table(columns, list(rows))
    # one table alone needs no heading
    text = "\n\n".join(groups.values())
    if len(groups) > 1:
        text = "\n\n".join(f"**{heading}**\n\n{rows}" for heading, rows in groups.items())
    if match["kind"] == "result":
        text = "\n\n".join([_wrap(result["says"]), text, _wrap(result["note"]), _origin(result)])
    opening = match[0].partition("-->")[0]
    return f"{opening}-->\n\n{text}\n\n<!-- end -->"


def _choose(result: Result, choice: str) -> tuple[list[Row], dict[str, str]]:
    rows = result["rows"]
    columns = result["columns"]
    for part in choice.split(";")[1:]:
        word, _, text = part.strip().partition(" ")
        if word == "where":
            key, _, values = text.partition("=")
            rows = [row for row in rows if str(row[key]) in values.split("|")]
        elif word == "columns":
            columns = {heading: columns[heading] for heading in text.split("|")}
        else:
            raise ValueError(f"{part.strip()!r} is neither where nor columns")
    if not rows:
        raise ValueError(f"no row is left by {choice!r}")
    return rows, columns


def _origin(result: Result) -> str:
    origin = "Measured on {hardware}; {software}; commit {commit}, {date}.".format_map(result)
    return f"```\n{result['command']}\n```\n\n{_wrap(origin)}"


def _wrap(text: str) -> str:
    return textwrap.fill(text, width=100, break_long_words=False)


def _commit() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words],  # noqa: S607
            cwd=REPOSITORY,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()

    changed = git("status", "--porcelain", "--", "src", "benchmarks")
    if changed:
        sys.exit("a result names its commit; commit what has changed in src and benchmarks first")
    return git("rev-parse", "--short", "HEAD")


def _processor() -> str:
    cores = len(os.sched_getaffinity(0))
    names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{cores} cores of {names[0] if names else platform.machine()}"


def _versions() -> list[str]:
    found = []
    for package in PACKAGES:
        if package in sys.modules:
            found.append(f"{package} {importlib.metadata.version(package)}")
    return found


if __name__ == "__main__":
    main()
