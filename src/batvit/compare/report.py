"""What a comparison found, as one HTML file that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from batvit.compare.plot import is_bat
from batvit.compare.ranking import (
    DIFFERENCE,
    UNKNOWN,
    Column,
    Fields,
    groups,
    is_off,
    measure,
    number,
    ranked,
    share,
    shown,
    summary,
)
from batvit.compare.results import COSTS

COLUMNS = (
    Column("top-1 %", "top1", "{:.1f}", True),
    DIFFERENCE,
    Column("top-5 %", "top5", "{:.1f}", True),
    Column("same class %", "agreement", "{:.1f}", True),
    Column("KL", "kl", "{:.3f}", False),
    Column("G MACs", "gmacs", "{:.3f}", None),
    Column("MACs left", "mac_share", "{:.1%}", None),
    Column("speed-up", "speedup", "{:.2f}", True),
    Column("realised", "realised_share", "{:.2f}", True),
    Column("images/s", "samples_per_sec", "{:.1f}", True),
    Column("ms/batch (IQR)", "step_time", "{:.1f}", False),
    Column("ms alone", "latency_ms", "{:.1f}", False),
    Column("peak MB", "peak_memory_mb", "{:.0f}", False),
)
ABOUT = ("model", "data", "samples", "precision", "device", "batch_size", "rounds", "command")
PLOT = (
    '<figure class="plot"><div class="scroll" role="region" aria-label="plot" tabindex="0"><img alt="accuracy over measured '
    'speed-up, a point for each row of the tables" src="{}"></div><figcaption>Right and up is better. Bars, where labels are '
    "known: 95 % intervals. The upright axis is finer near the dense model.</figcaption></figure>"
)


def html(
    result: Mapping[str, Any], *, plot: bytes | None, pictures: Sequence[tuple[str, bytes]]
) -> str:
    """The whole page. Every text in the result is escaped, no other script runs, and no address leads out of the file.

    Numbers may be missing anywhere; a column that nobody has is left out. Plans are ordered by what they keep: of top-1, or of
    the dense model's class where no difference of top-1 is known.

    Args:
        result: what :func:`batvit.study.as_result` gives.
        plot: a PNG of accuracy over time.
        pictures: title and PNG of each picture of groups.
    """
    text = (files("batvit.compare") / "report.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    targets = list(dict.fromkeys(row["target"] for row in result["rows"]))
    page = Template(text).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **{name: escape(str(result.get(name, ""))) for name in ABOUT},
        img_size=escape(" x ".join(map(str, result.get("img_size", ())))),
        summary=summary(result),
        plot="" if plot is None else PLOT.format(_data(plot)),
        tables="".join(_target(result, target, i) for i, target in enumerate(targets)),
        failed=_failed(result.get("failed", ())),
        pictures=_pictures(pictures),
        environment="".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
            for name, value in result.get("environment", {}).items()
            if value is not None
        ),
    )
    # a path may hold what is no character
    return page.encode("utf-8", "replace").decode("utf-8")


def _target(result: Mapping[str, Any], target: Any, i: int) -> str:
    """The tables of one target."""
    tables = [
        _table(result, target, at, f"t{i}-{k}")
        for k, (its, at) in enumerate(groups(result))
        if its == target
    ]
    return f"<section><h2>{escape(share(target))} of the dense model's cost</h2>{''.join(tables)}</section>"


def _table(result: Mapping[str, Any], target: Any, at: Any, name: str) -> str:
    rows, sorts = ranked(result, target, at), measure(result)
    every = [result["dense"], *result["rows"]]
    columns = [
        column for column in COLUMNS if any(number(row, column.name) is not None for row in every)
    ]
    best = {
        column.name: _best([row for row in rows if not is_off(row)], column) for column in columns
    }
    head = "".join(
        f'<th scope="col"{" data-less" * (column.more is False)}'
        f"{' aria-sort=descending' * (column.name == sorts)}>{escape(column.title)}</th>"
        for column in columns
    )
    dense, *lines = (_line(row, columns, best) for row in (result["dense"], *rows))
    return (
        f'<h3 id="{name}">Equal {escape(COSTS.get(at, str(at)))}: {escape(share(target))}</h3>'
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table aria-labelledby="{name}"><thead><tr>'
        f'<th scope="col" data-less>plan</th>{head}<th scope="col" data-less>tokens left</th></tr></thead>'
        f'<tbody class="dense">{dense}</tbody><tbody>{"".join(lines)}</tbody></table></div>{_configurations(rows)}'
    )


def _best(rows: Sequence[Fields], column: Column) -> str:
    """How the best value is written, so that those that look the same are all bold; nothing if all do."""
    known = [value for row in rows if (value := number(row, column.name)) is not None]
    if column.more is None or len({column.text.format(value) for value in known}) < max(
        1, min(2, len(rows))
    ):
        return ""
    return column.text.format(max(known) if column.more else min(known))


def _line(row: Fields, columns: Sequence[Column], best: Mapping[str, str]) -> str:
    plan, off, cells = str(row["plan"]), is_off(row), []
    for column in columns:
        value, text = number(row, column.name), escape(shown(row, column))
        if (
            value is not None
            and plan != "dense"
            and not off
            and best[column.name] == column.text.format(value)
        ):
            text = f"<strong>{text}</strong>"
        cells.append(_cell(value, text))
    left = number({"left": row["tokens"][-1]} if row.get("tokens") else {}, "left")
    cells.append(_cell(left, UNKNOWN if left is None else f"{left:.0f}"))
    kind = ' class="bat"' if is_bat(plan) else ""
    taken = f"{100 / speed:.3g} %" if (speed := number(row, "speedup")) else UNKNOWN
    beside = f'<br><span class="faint">off target: {taken}</span>' if off else ""
    return f'<tr{kind}><th scope="row">{escape(plan)}{beside}</th>{"".join(cells)}</tr>'


def _cell(value: float | None, text: str) -> str:
    return f"<td>{text}</td>" if value is None else f'<td data-value="{value!r}">{text}</td>'


def _configurations(rows: Sequence[Fields]) -> str:
    """To open: the tokens after each site of every plan, and its configuration."""
    items = []
    for row in rows:
        tokens, blocks = (
            ", ".join(map(str, row.get(name) or ["none"])) for name in ("tokens", "blocks")
        )
        config = json.dumps(row.get("config"), indent=1, ensure_ascii=False, default=str)
        what = escape(f"{row['plan']}: {tokens} tokens after the blocks {blocks}")
        items.append(f"<details><summary>{what}</summary><pre>{escape(config)}</pre></details>")
    return f'<details class="more"><summary>Tokens and configurations</summary>{"".join(items)}</details>'


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    if not failed:
        return ""
    lines = []
    for one in failed:
        plan, target, at, reason = map(one.get, ("plan", "target", "at", "reason"))
        where = escape(f"{share(target)} of the {COSTS.get(str(at), str(at))}: {reason}")
        lines.append(f"<li><strong>{escape(str(plan))}</strong> at {where}</li>")
    return f"<section><h2>Not reached</h2><ul>{''.join(lines)}</ul></section>"


def _pictures(pictures: Sequence[tuple[str, bytes]]) -> str:
    """Side by side; each can be enlarged, without any script."""
    if not pictures:
        return ""
    figures = "".join(
        f'<figure><label><input type="checkbox" aria-label="enlarge {escape(title)}"><img alt="{escape(title)}" '
        f'src="{_data(png)}"></label><figcaption>{escape(title)}</figcaption></figure>'
        for title, png in pictures
    )
    return f'<section class="pictures"><h2>What became of each patch</h2><div class="grid">{figures}</div></section>'


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
