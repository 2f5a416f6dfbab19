"""What a comparison found, as one HTML file that needs nothing else."""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Column(NamedTuple):
    """A number of every row: its heading, its field, how it is written, and whether more is better (None: neither)."""

    title: str
    name: str
    text: str
    more: bool | None


DIFFERENCE = Column("difference [95 %]", "difference", "{:+z.1f}", True)
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
COSTS = {"macs": "MACs", "time": "measured time"}
PLOT = (
    '<figure class="plot"><div class="scroll" role="region" aria-label="plot" tabindex="0"><img alt="accuracy over measured '
    'speed-up, a point for each row of the tables" src="{}"></div><figcaption>Right and up is better. Bars, where labels are '
    "known: 95 % intervals. The upright axis is finer near the dense model.</figcaption></figure>"
)
UNKNOWN, MINUS, NAMED = "\N{EN DASH}", "\N{MINUS SIGN}", 4


def html(result: Mapping[str, Any], *, plot: bytes | None, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The whole page. Every text in the result is escaped, no other script runs, and no address leads out of the file.

    Numbers may be missing anywhere; a column that nobody has is left out. Plans are ordered by what they keep: of top-1, or of
    the dense model's class where no difference of top-1 is known.

    Args:
        result: what :func:`batvit.study.as_result` gives.
        plot: a PNG of accuracy over time.
        pictures: title and PNG of each picture of groups.
    """
    text = (files("batvit") / "report.html").read_text(encoding="utf-8")
    script = text.partition("<script>")[2].partition("</script>")[0]
    targets = list(dict.fromkeys(row["target"] for row in result["rows"]))
    page = Template(text).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **{name: escape(str(result.get(name, ""))) for name in ABOUT},
        img_size=escape(" x ".join(map(str, result.get("img_size", ())))),
        summary=_summary(result),
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


def _number(row: Row, name: str) -> float | None:
    """A finite number, or nothing."""
    value = row.get(name)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _shown(row: Row, column: Column) -> str:
    """As it is written in a table, with a minus that is one; nothing if it is missing."""
    value = _number(row, column.name)
    if value is None or (column.name == "difference" and row["plan"] == "dense"):
        return UNKNOWN
    text = column.text.format(value)
    if column.name == "difference":
        low, high = (_number(row, name) for name in ("difference_low", "difference_high"))
        text += "" if low is None or high is None else f" [{low:+z.1f}, {high:+z.1f}]"
    spread = _number(row, "step_time_iqr") if column.name == "step_time" else None
    return (text if spread is None else f"{text} ({spread:.1f})").replace("-", MINUS)


def _share(target: Any) -> str:
    return f"{100 * target:.4g} %" if isinstance(target, int | float) else str(target)


def _measure(result: Mapping[str, Any]) -> str:
    return "difference" if any(_number(row, "difference") is not None for row in result["rows"]) else "agreement"


def _ranked(result: Mapping[str, Any], target: Any, at: Any) -> list[Row]:
    """Those that keep most first, those of whom that is not known last."""
    name = _measure(result)
    rows = [row for row in result["rows"] if (row["target"], row["at"]) == (target, at)]
    return sorted(rows, key=lambda row: -math.inf if (value := _number(row, name)) is None else value, reverse=True)


def _groups(result: Mapping[str, Any]) -> list[tuple[Any, Any]]:
    return list(dict.fromkeys((row["target"], row["at"]) for row in result["rows"]))


def _summary(result: Mapping[str, Any]) -> str:
    """A sentence or two for each target and cost, and how many there are not."""
    text = "All plans reduce the same model and saw the same pictures."
    if _measure(result) == "difference":
        text += " Differences are to the dense model's top-1, in points, with their 95 % intervals in brackets."
    if missing := len(result.get("failed", ())):
        text += f" Goals that were not reached: {missing}; the reasons stand below the tables."
    items = "".join(f"<li>{_verdict(result, *group)}</li>" for group in _groups(result))
    return f"<p>{text}</p>" + (f"<ul>{items}</ul>" if items else "<p>Nothing was measured.</p>")


def _verdict(result: Mapping[str, Any], target: Any, at: Any) -> str:
    """Which plan keeps most, and whom the intervals do not set apart from it."""
    name = _measure(result)
    rows = [row for row in _ranked(result, target, at) if _number(row, name) is not None]
    where = f"At {escape(_share(target))} of the dense model's {escape(COSTS.get(at, str(at)))}"
    if not rows:
        return f"{where}, no accuracy is known."
    plans = [f"<strong>{escape(str(row['plan']))}</strong>" for row in rows]
    if name == "agreement":
        said = [f"{row[name]:.1f} %" + (f", KL {kl:.3f}" if (kl := _number(row, "kl")) is not None else "") for row in rows]
        what = "gives the dense model's class most often"
    else:
        said, what = [_shown(row, DIFFERENCE) for row in rows], "loses least"
    text = f"{where}, {plans[0]} {what}: {said[0]}" + (f"; then {plans[1]}: {said[1]}." if rows[1:] else ".")
    return text + _doubt(rows[0], rows[1:])


def _doubt(first: Row, others: Sequence[Row]) -> str:
    """What the intervals leave open: each is that of a difference to the dense model, not of one to another plan."""
    low, high = (_number(first, name) for name in ("difference_low", "difference_high"))
    if low is None or high is None:
        return ""
    text = " Its interval holds 0: these pictures show no certain loss." if low <= 0 <= high else ""
    near = [str(row["plan"]) for row in others if (top := _number(row, "difference_high")) is not None and top >= low]
    if not near:
        return text
    names = ", ".join(near[:NAMED]) + (f" and {len(near) - NAMED} more" if len(near) > NAMED else "")
    return f"{text} Its interval overlaps with {escape(names)}: these pictures may not tell them apart."


def _target(result: Mapping[str, Any], target: Any, i: int) -> str:
    """The tables of one target."""
    tables = [_table(result, target, at, f"t{i}-{k}") for k, (its, at) in enumerate(_groups(result)) if its == target]
    return f"<section><h2>{escape(_share(target))} of the dense model's cost</h2>{''.join(tables)}</section>"


def _table(result: Mapping[str, Any], target: Any, at: Any, name: str) -> str:
    rows, sorts = _ranked(result, target, at), _measure(result)
    every = [result["dense"], *result["rows"]]
    columns = [column for column in COLUMNS if any(_number(row, column.name) is not None for row in every)]
    best = {column.name: _best(rows, column) for column in columns}
    head = "".join(
        f'<th scope="col"{" data-less" * (column.more is False)}'
        f"{' aria-sort=descending' * (column.name == sorts)}>{escape(column.title)}</th>"
        for column in columns
    )
    dense, *lines = (_line(row, columns, best) for row in (result["dense"], *rows))
    return (
        f'<h3 id="{name}">Equal {escape(COSTS.get(at, str(at)))}: {escape(_share(target))}</h3>'
        f'<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0"><table aria-labelledby="{name}"><thead><tr>'
        f'<th scope="col" data-less>plan</th>{head}<th scope="col" data-less>tokens left</th></tr></thead>'
        f'<tbody class="dense">{dense}</tbody><tbody>{"".join(lines)}</tbody></table></div>{_configurations(rows)}'
    )


def _best(rows: Sequence[Row], column: Column) -> str:
    """How the best value is written, so that those that look the same are all bold; nothing if all do."""
    known = [value for row in rows if (value := _number(row, column.name)) is not None]
    if column.more is None or len({column.text.format(value) for value in known}) < min(2, len(rows)):
        return ""
    return column.text.format(max(known) if column.more else min(known))


def _line(row: Row, columns: Sequence[Column], best: Mapping[str, str]) -> str:
    plan, cells = str(row["plan"]), []
    for column in columns:
        value, shown = _number(row, column.name), escape(_shown(row, column))
        if value is not None and plan != "dense" and best[column.name] == column.text.format(value):
            shown = f"<strong>{shown}</strong>"
        cells.append(_cell(value, shown))
    left = _number({"left": row["tokens"][-1]} if row.get("tokens") else {}, "left")
    cells.append(_cell(left, UNKNOWN if left is None else f"{left:.0f}"))
    kind = ' class="bat"' if plan.partition("_")[0] == "bat" else ""
    return f'<tr{kind}><th scope="row">{escape(plan)}</th>{"".join(cells)}</tr>'


def _cell(value: float | None, shown: str) -> str:
    return f"<td>{shown}</td>" if value is None else f'<td data-value="{value!r}">{shown}</td>'


def _configurations(rows: Sequence[Row]) -> str:
    """To open: the tokens after each site of every plan, and its configuration."""
    items = []
    for row in rows:
        tokens, blocks = (", ".join(map(str, row.get(name) or ["none"])) for name in ("tokens", "blocks"))
        config = json.dumps(row.get("config"), indent=1, ensure_ascii=False, default=str)
        what = escape(f"{row['plan']}: {tokens} tokens after the blocks {blocks}")
        items.append(f"<details><summary>{what}</summary><pre>{escape(config)}</pre></details>")
    return f'<details class="more"><summary>Tokens and configurations</summary>{"".join(items)}</details>'


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    if not failed:
        return ""
    lines = []
    for one in failed:
        plan, target, at, reason = (one.get(name) for name in ("plan", "target", "at", "reason"))
        where = escape(f"{_share(target)} of the {COSTS.get(str(at), str(at))}: {reason}")
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
