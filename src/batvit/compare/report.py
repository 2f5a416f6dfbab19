"""What a comparison found, as one HTML file that needs nothing else."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from batvit.compare import ranking
from batvit.compare.columns import (
    COLUMNS,
    DIFFERENCE,
    TIMES,
    UNKNOWN,
    Column,
    Fields,
    cell,
    finite,
    number,
    percent,
)
from batvit.compare.rows import COSTS, DENSE, is_bat

METADATA = ("model", "data", "samples", "precision", "device", "batch_size", "rounds", "command")
# so many plans are named in a sentence
NAMED = 4
PLOT = (
    '<figure class="plot"><div class="scroll" role="region" aria-label="plot" tabindex="0">'
    '<img alt="accuracy over measured speed-up, a point for each row of the tables" src="{}"></div>'
    "<figcaption>Right and up is better. Bars, where labels are known: 95 % intervals. The upright "
    "axis is finer near the dense model.</figcaption></figure>"
)
PICTURE = (
    '<figure><label><input type="checkbox" aria-label="enlarge {title}">'
    '<img alt="{title}" src="{source}"></label><figcaption>{title}</figcaption></figure>'
)
TABLE = (
    '<h3 id="{name}">{title}</h3>'
    '<div class="scroll" role="region" aria-labelledby="{name}" tabindex="0">'
    '<table aria-labelledby="{name}"><thead><tr><th scope="col" data-less>plan</th>{head}'
    '<th scope="col" data-less>tokens left</th></tr></thead>'
    '<tbody class="dense">{dense}</tbody><tbody>{lines}</tbody></table></div>{configurations}'
)


def html(
    result: Mapping[str, Any], *, plot: bytes | None, pictures: Sequence[tuple[str, bytes]]
) -> str:
    """Write the whole page.

    Every text in the result is escaped, no script but the page's own runs, and no address leads out
    of the file. Numbers may be missing anywhere; a column that nobody has is left out. Plans are
    ordered by what they keep of top-1.

    Args:
        result: what :meth:`batvit.compare.Comparison.to_dict` gives.
        plot: a PNG of accuracy over time.
        pictures: title and PNG of each picture of groups.
    """
    template = Path(__file__).with_name("report.html").read_text(encoding="utf-8")
    script = template.partition("<script>")[2].partition("</script>")[0]
    targets = list(dict.fromkeys(row["target"] for row in result["rows"]))
    tables = [_target(result, target, i) for i, target in enumerate(targets)]
    page = Template(template).substitute(
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        **{name: escape(str(result.get(name, ""))) for name in METADATA},
        img_size=escape(" x ".join(map(str, result.get("img_size", ())))),
        summary=_summary(result),
        plot="" if plot is None else PLOT.format(_data(plot)),
        tables="".join(tables),
        failed=_failed(result.get("failed", ())),
        pictures=_pictures(pictures),
        environment=_environment(result.get("environment", {})),
    )
    # a path may hold what is no character
    return page.encode("utf-8", "replace").decode("utf-8")


def _summary(result: Mapping[str, Any]) -> str:
    """A sentence or two for each group, and how many goals were not reached."""
    text = (
        "All plans reduce the same model and saw the same pictures. Differences are to the dense "
        "model's top-1, in points, with their 95 % intervals in brackets."
    )
    unsteady = sum(ranking.is_unsteady(row) for row in result["rows"])
    if unsteady:
        text += (
            f" The times of {unsteady} of {len(result['rows'])} rows spread too much to rank by: "
            "something else may have run on this machine. They are marked, and at equal time not "
            "ranked."
        )
    missing = len(result.get("failed", ()))
    if missing:
        text += f" Goals that were not reached: {missing}; the reasons stand below the tables."
    groups = ranking.groups(result)
    if not groups:
        return f"<p>{text}</p><p>Nothing was measured.</p>"
    items = [f"<li>{_lead(result, target, at)}</li>" for target, at in groups]
    return f"<p>{text}</p><ul>{''.join(items)}</ul>"


def _lead(result: Mapping[str, Any], target: Any, at: Any) -> str:
    """Which plan keeps most in a group, and how sure that is."""
    lead = ranking.lead(result, target, at)
    where = f"At {escape(percent(target))} of the dense model's {escape(_cost(at))}"
    if lead.first is None:
        missing = "no plan is near" if lead.some_off_target else "no accuracy is known"
        if lead.some_unsteady:
            missing = "times spread too much to rank the plans"
        return f"{where}, {missing}."
    text = f"{where}, {_plan(lead.first)} loses least: {_kept(lead.first)}"
    if lead.second is not None:
        text += f"; then {_plan(lead.second)}: {_kept(lead.second)}"
    text += "."
    if lead.no_certain_loss:
        text += " Its interval holds 0: these pictures show no certain loss."
    if lead.overlapping:
        names = ", ".join(lead.overlapping[:NAMED])
        more = len(lead.overlapping) - NAMED
        if more > 0:
            names += f" and {more} more"
        text += (
            f" Its interval overlaps with {escape(names)}: these pictures may not tell them apart."
        )
    return text


def _plan(row: Fields) -> str:
    return f"<strong>{escape(str(row['plan']))}</strong>"


def _kept(row: Fields) -> str:
    """What a plan keeps, and at what speed."""
    text = cell(row, DIFFERENCE)
    speedup = number(row, "speedup")
    return text if speedup is None else f"{text}, {speedup:.2f} times as fast"


def _target(result: Mapping[str, Any], target: Any, i: int) -> str:
    """The tables of one target."""
    tables = []
    for k, (of_target, at) in enumerate(ranking.groups(result)):
        if of_target == target:
            tables.append(_table(result, target, at, f"t{i}-{k}"))
    title = f"{escape(percent(target))} of the dense model's cost"
    return f"<section><h2>{title}</h2>{''.join(tables)}</section>"


def _table(result: Mapping[str, Any], target: Any, at: Any, name: str) -> str:
    rows = ranking.ranked(result, target, at)
    columns = _known_columns([result["dense"], *result["rows"]])
    best = {}
    for column in columns:
        eligible = [row for row in rows if _can_be_best(row, column)]
        best[column.name] = _best(eligible, column)
    head = [_head(column, sorted_by=column is DIFFERENCE) for column in columns]
    lines = [_line(row, columns, best) for row in rows]
    return TABLE.format(
        name=name,
        title=f"Equal {escape(_cost(at))}: {escape(percent(target))}",
        head="".join(head),
        dense=_line(result["dense"], columns, best),
        lines="".join(lines),
        configurations=_configurations(rows),
    )


def _known_columns(rows: Sequence[Fields]) -> list[Column]:
    """The columns that some row has a number for."""
    columns = []
    for column in COLUMNS:
        if any(number(row, column.name) is not None for row in rows):
            columns.append(column)
    return columns


def _head(column: Column, *, sorted_by: bool) -> str:
    less = " data-less" if column.more is False else ""
    order = " aria-sort=descending" if sorted_by else ""
    return f'<th scope="col"{less}{order}>{escape(column.title)}</th>'


def _best(rows: Sequence[Fields], column: Column) -> str:
    """How the best value is written, so that all that look like it are bold; "" for none."""
    if column.more is None:
        return ""
    values = []
    for row in rows:
        value = number(row, column.name)
        if value is not None:
            values.append(value)
    # where all of several rows look the same, none is the best
    different = {column.text.format(value) for value in values}
    if not different or (len(different) == 1 and len(rows) > 1):
        return ""
    return column.text.format(max(values) if column.more else min(values))


def _can_be_best(row: Fields, column: Column) -> bool:
    if ranking.is_unranked(row):
        return False
    return not (column.name in TIMES and ranking.is_unsteady(row))


def _line(row: Fields, columns: Sequence[Column], best: Mapping[str, str]) -> str:
    plan = str(row["plan"])
    cells = []
    for column in columns:
        value = number(row, column.name)
        text = escape(cell(row, column))
        can_be_best = value is not None and plan != DENSE and _can_be_best(row, column)
        if can_be_best and best[column.name] == column.text.format(value):
            text = f"<strong>{text}</strong>"
        cells.append(_cell(value, text))
    tokens = row.get("tokens")
    left = finite(tokens[-1]) if tokens else None
    cells.append(_cell(left, UNKNOWN if left is None else f"{left:.0f}"))
    kind = ' class="bat"' if is_bat(plan) else ""
    remark = ""
    if ranking.is_off(row):
        speedup = number(row, "speedup")
        taken = f"{100 / speedup:.3g} %" if speedup else UNKNOWN
        remark = f'<br><span class="faint">off target: {taken}</span>'
    if ranking.is_unsteady(row):
        remark += f'<br><span class="faint">times spread too much{_middle(row)}</span>'
    return f'<tr{kind}><th scope="row">{escape(plan)}{remark}</th>{"".join(cells)}</tr>'


def _middle(row: Fields) -> str:
    """The middle half of a row's speed-ups, behind what is said of them."""
    low = number(row, "speedup_low")
    high = number(row, "speedup_high")
    if low is None or high is None:
        return ""
    return f": {low:.2f} to {high:.2f} times as fast"


def _cell(value: float | None, text: str) -> str:
    return f"<td>{text}</td>" if value is None else f'<td data-value="{value!r}">{text}</td>'


def _configurations(rows: Sequence[Fields]) -> str:
    """To open: the tokens after each site of every plan, and its configuration."""
    items = []
    for row in rows:
        tokens = ", ".join(map(str, row.get("tokens") or ["none"]))
        blocks = ", ".join(map(str, row.get("blocks") or ["none"]))
        title = escape(f"{row['plan']}: {tokens} tokens after the blocks {blocks}")
        config = json.dumps(row.get("config"), indent=1, ensure_ascii=False, default=str)
        items.append(f"<details><summary>{title}</summary><pre>{escape(config)}</pre></details>")
    return (
        '<details class="more"><summary>Tokens and configurations</summary>'
        f"{''.join(items)}</details>"
    )


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    if not failed:
        return ""
    lines = []
    for failure in failed:
        plan = escape(str(failure.get("plan")))
        where = f"{percent(failure.get('target'))} of the {_cost(failure.get('at'))}"
        text = escape(f"{where}: {failure.get('reason')}")
        lines.append(f"<li><strong>{plan}</strong> at {text}</li>")
    return f"<section><h2>Not reached</h2><ul>{''.join(lines)}</ul></section>"


def _pictures(pictures: Sequence[tuple[str, bytes]]) -> str:
    """Side by side; each can be enlarged, without any script."""
    if not pictures:
        return ""
    figures = []
    for title, png in pictures:
        figures.append(PICTURE.format(title=escape(title), source=_data(png)))
    return (
        '<section class="pictures"><h2>What became of each patch</h2>'
        f'<div class="grid">{"".join(figures)}</div></section>'
    )


def _environment(environment: Mapping[str, Any]) -> str:
    entries = []
    for name, value in environment.items():
        if value is not None:
            entries.append(f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>")
    return "".join(entries)


def _cost(at: Any) -> str:
    """What a target is a share of; as it is, if it is neither of the two."""
    return COSTS.get(str(at), str(at))


def _data(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
