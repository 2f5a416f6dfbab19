"""What a comparison found, as one HTML file that needs nothing else."""

import base64
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

Row = Mapping[str, Any]

# heading, what it reads, how it is written, whether more is better (None: neither)
COLUMNS: tuple[tuple[str, str, str, bool | None], ...] = (
    ("top-1 %", "top1", "{:.1f}", True),
    ("difference", "difference", "{:+.1f}", True),
    ("95 %", "difference_low", "", None),
    ("top-5 %", "top5", "{:.1f}", True),
    ("same class %", "agreement", "{:.1f}", True),
    ("KL", "kl", "{:.4f}", False),
    ("G MACs", "gmacs", "{:.3f}", None),
    ("of dense", "mac_share", "{:.1%}", None),
    ("speed-up", "speedup", "{:.2f}", True),
    ("realised", "realised_share", "{:.2f}", True),
    ("images/s", "samples_per_sec", "{:.1f}", True),
    ("ms a batch", "step_time", "{:.1f}", False),
    ("ms, 1 picture", "latency_ms", "{:.1f}", False),
    ("peak MB", "peak_memory_mb", "{:.0f}", False),
)
NAMES = {"macs": "MACs", "time": "time"}


def html(result: Mapping[str, Any], *, plot: bytes | None, pictures: Sequence[tuple[str, bytes]]) -> str:
    """The whole page. Every text in the result is escaped, and no address leads out of the file.

    Args:
        result: what :func:`batvit.study.as_result` gives.
        plot: a PNG of accuracy over time.
        pictures: title and PNG of each picture of groups.
    """
    groups = list(dict.fromkeys((row["target"], row["at"]) for row in result["rows"]))
    page = Template((files("batvit") / "report.html").read_text(encoding="utf-8"))
    height, width = result["img_size"]
    about = (
        f"{result['samples']} pictures of {result['data']}, {height} x {width}, {result['precision']}, {result['device']}, "
        f"batches of {result['batch_size']}, {result['rounds']} rounds"
    )
    return page.substitute(
        title=escape(f"Reductions of {result['model']}, compared"),
        about=escape(about),
        summary="".join(f"<p>{escape(_verdict(result, *group))}</p>" for group in groups),
        plot="" if plot is None else _figure("accuracy over measured speed-up", plot),
        tables="".join(_table(result, *group) for group in groups),
        failed=_failed(result["failed"]),
        pictures=_pictures(pictures),
        command=escape(str(result.get("command", ""))),
        environment="".join(
            f"<dt>{escape(str(name))}</dt><dd>{escape(str(value))}</dd>"
            for name, value in result.get("environment", {}).items()
            if value is not None
        ),
    )


def _of(result: Mapping[str, Any], target: float, at: str) -> list[Row]:
    return [row for row in result["rows"] if (row["target"], row["at"]) == (target, at)]


def _verdict(result: Mapping[str, Any], target: float, at: str) -> str:
    """Which plan keeps most, in a sentence."""
    what = "difference" if result["dense"].get("top1") is not None else "agreement"
    rows = sorted((row for row in _of(result, target, at) if row.get(what) is not None), key=lambda row: -row[what])
    where = f"At {target:.0%} of the dense model's {NAMES[at]}"
    if not rows:
        return f"{where} nothing was measured."
    first, others = rows[0], rows[1:2]
    if what == "agreement":
        text = f"{where}, {first['plan']} keeps the dense model's class most often ({first[what]:.1f} %)"
        return text + "".join(f", then {row['plan']} ({row[what]:.1f} %)." for row in others) + "." * (not others)
    text = f"{where}, {first['plan']} keeps most: {_interval(first)} points of top-1"
    if not others:
        return f"{text}."
    second = others[0]
    near = first["difference_low"] <= second["difference_high"]
    close = ". Their intervals overlap: these pictures may not tell them apart" if near else ""
    return f"{text}; then {second['plan']}, {_interval(second)}{close}."


def _interval(row: Row) -> str:
    if row.get("difference_low") is None:
        return "" if row.get("difference") is None else f"{row['difference']:+.1f}"
    return f"{row['difference']:+.1f} [{row['difference_low']:+.1f}, {row['difference_high']:+.1f}]"


def _table(result: Mapping[str, Any], target: float, at: str) -> str:
    rows = _of(result, target, at)
    best: dict[str, Any] = {}
    for _, name, _, more in COLUMNS:
        known = [row[name] for row in rows if row.get(name) is not None]
        if more is not None and known:
            choose: Callable[..., Any] = max if more else min
            best[name] = choose(known)
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title, *_ in COLUMNS)
    body = "".join(_line(row, best) for row in (result["dense"], *rows))
    name = f"{target:.0%} of the {NAMES[at]}"
    return (
        f'<section><h2>At {escape(name)}</h2><div class="scroll"><table><caption>Best of the plans in bold; a click on a '
        f'heading sorts.</caption><thead><tr><th scope="col">plan</th>{head}<th scope="col">tokens</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div></section>"
    )


def _line(row: Row, best: Mapping[str, Any]) -> str:
    cells = []
    for _, name, text, _ in COLUMNS:
        value = row.get(name)
        shown = "" if value is None else text.format(value)
        if name == "difference_low" and value is not None:
            shown = "" if row["plan"] == "dense" else f"{value:+.1f} … {row['difference_high']:+.1f}"
        bold = row["plan"] != "dense" and value is not None and best.get(name) == value
        cells.append(f"<td>{'<strong>' if bold else ''}{escape(shown)}{'</strong>' if bold else ''}</td>")
    kind = "dense" if row["plan"] == "dense" else "bat" if row["plan"].startswith("bat") else "peer"
    return f'<tr class="{kind}"><th scope="row">{escape(str(row["plan"]))}</th>{"".join(cells)}<td>{_tokens(row)}</td></tr>'


def _tokens(row: Row) -> str:
    """The tokens after each site, and the whole configuration to open."""
    if row.get("config") is None:
        return ""
    sites = ", ".join(f"{block}: {left}" for block, left in zip(row["blocks"], row["tokens"], strict=True))
    config = escape(json.dumps(row["config"], indent=1))
    return f"<details><summary>{len(row['tokens'])} sites</summary>after block {escape(sites)}<pre>{config}</pre></details>"


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    if not failed:
        return ""
    lines = "".join(
        f"<li><strong>{escape(str(one['plan']))}</strong> at {escape(str(one['target']))} of the "
        f"{escape(NAMES.get(one['at'], str(one['at'])))}: {escape(str(one['reason']))}</li>"
        for one in failed
    )
    return f"<section><h2>Not reached</h2><ul>{lines}</ul></section>"


def _pictures(pictures: Sequence[tuple[str, bytes]]) -> str:
    if not pictures:
        return ""
    return f"<section><h2>What became of each patch</h2>{''.join(_figure(*one) for one in pictures)}</section>"


def _figure(title: str, png: bytes) -> str:
    name, data = escape(title), base64.b64encode(png).decode()
    return f'<figure><img alt="{name}" src="data:image/png;base64,{data}"><figcaption>{name}</figcaption></figure>'
