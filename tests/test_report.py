"""The report: everything is in it, nothing leads out of it, nothing is believed."""

import re
from html.parser import HTMLParser

import pytest

from batvit.plots import plot_pareto
from batvit.report import html
from batvit.visualize import save

VOID = {"meta", "img", "br", "link", "hr"}


def row(plan, target=0.5, at="macs", difference=-1.0, **fields):
    known = {
        "plan": plan,
        "target": target,
        "at": at,
        "config": {"method": plan},
        "blocks": [3],
        "tokens": [98],
        "gmacs": 0.6,
        "mac_share": 0.5,
        "step_time": 10.0,
        "step_time_iqr": 0.1,
        "samples_per_sec": 100.0,
        "speedup": 1.8,
        "realised_share": 0.9,
        "peak_memory_mb": 12.0,
        "latency_ms": 3.0,
        "latency_speedup": 1.2,
        "top1": 80.0 + difference,
        "top5": 95.0,
        "difference": difference,
        "difference_low": difference - 0.5,
        "difference_high": difference + 0.5,
        "agreement": 95.0 + difference,
        "kl": 0.1 - difference,
    }
    return known | fields


def result(*rows, **fields):
    dense = row("dense", None, None, 0.0, config=None, blocks=[], tokens=[], speedup=1.0)
    return {
        "model": "deit",
        "img_size": [224, 224],
        "samples": 10,
        "data": "pictures",
        "precision": "fp32",
        "device": "cpu",
        "batch_size": 16,
        "rounds": 15,
        "command": "batvit compare deit",
        "environment": {"cpu": "one", "gpu": None, "commit": "abc"},
        "dense": dense,
        "rows": list(rows),
        "failed": [],
    } | fields


class Page(HTMLParser):
    """Checks that tags are closed in order, and keeps the texts of the cells of each row."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.cell = [], [], None
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            self.rows[-1][-1] += data


def test_every_row_is_in_the_table_of_its_target():
    rows = [row(plan, target, at) for target in (0.65, 0.5) for at in ("macs", "time") for plan in ("bat", "tome")]
    page = Page(html(result(*rows), plot=None, pictures=[]))
    assert [cells[0] for cells in page.rows] == ["plan", "dense", "bat", "tome"] * 4
    assert all(len(cells) == len(page.rows[0]) for cells in page.rows)


def test_the_best_of_a_column_is_bold_and_dense_never():
    text = html(result(row("bat", difference=-0.3), row("tome", difference=-2.0)), plot=None, pictures=[])
    assert re.search(r"<th scope=.row.>bat</th><td><strong>79.7</strong>", text)
    assert re.search(r"<th scope=.row.>tome</th><td>78.0</td>", text)
    assert re.search(r"<th scope=.row.>dense</th><td>80.0</td>", text)


def test_the_summary_says_who_keeps_most_and_how_sure_that_is():
    near = html(result(row("tome", difference=-1.2), row("bat", difference=-1.0)), plot=None, pictures=[])
    assert "bat keeps most: -1.0 [-1.5, -0.5] points of top-1; then tome, -1.2 [-1.7, -0.7]. Their intervals overlap" in near
    far = html(result(row("tome", difference=-5.0), row("bat", difference=-1.0)), plot=None, pictures=[])
    assert "overlap" not in far


def test_without_labels_the_dense_models_class_counts():
    nothing = {"top1": None, "top5": None, "difference": None, "difference_low": None, "difference_high": None}
    found = result(row("bat") | nothing, row("tome", difference=-3.0) | nothing)
    found["dense"] |= nothing
    text = html(found, plot=None, pictures=[])
    Page(text)
    assert "bat keeps the dense model&#x27;s class most often (94.0 %), then tome (92.0 %)." in text
    (axes,) = plot_pareto(found["rows"], found["dense"]).axes
    assert axes.get_ylabel() == "same class as dense (%)"


def test_what_is_missing_is_left_empty():
    missing = row("bat", **dict.fromkeys(("kl", "latency_ms", "peak_memory_mb", "difference_low"), None))
    Page(html(result(missing), plot=None, pictures=[]))


def test_nothing_that_comes_in_is_believed():
    evil = "<script>alert('1')</script>\"&"
    found = result(row(evil), model=evil, data=evil, command=evil, environment={evil: evil})
    found["failed"] = [{"plan": evil, "target": 0.5, "at": "macs", "reason": evil}]
    text = html(found, plot=None, pictures=[(evil, b"png")])
    Page(text)
    assert "alert('1')" not in text
    assert text.count("<script>") == 1
    assert 'alt="&lt;script&gt;' in text


def test_nothing_leads_out_of_the_file():
    text = html(result(row("bat")), plot=b"png", pictures=[("one", b"png")])
    assert text.count("data:image/png;base64,cG5n") == 2
    assert not re.findall(r"(?:src|href)=.(?!data:)", text)
    assert "http" not in text


def test_what_failed_is_named():
    failed = [{"plan": "tome", "target": 0.3, "at": "time", "reason": "too slow"}]
    assert "<strong>tome</strong> at 0.3 of the time: too slow" in html(
        result(row("bat"), failed=failed), plot=None, pictures=[]
    )


def test_the_plot_has_every_plan_filled_and_hollow_and_the_front(tmp_path):
    rows = [row("bat", speedup=1.8), row("tome", speedup=1.5, difference=-3.0), row("tome", at="time", difference=-2.0)]
    figure = plot_pareto(rows, result()["dense"])
    (axes,) = figure.axes
    (legend,) = figure.legends
    assert {text.get_text() for text in legend.get_texts()} == {"bat", "tome", "dense"}
    step = next(line for line in axes.lines if line.get_drawstyle() == "steps-pre")
    assert step.get_xydata().tolist() == [[1.0, 80.0], [1.8, 79.0]]
    faces = [line.get_markerfacecolor() for line in axes.lines if len(line.get_xdata()) and line.get_linestyle() == "None"]
    assert faces.count("white") == 1
    assert (
        save(figure, tmp_path / "a.png").read_bytes()
        == save(plot_pareto(rows, result()["dense"]), tmp_path / "b.png").read_bytes()
    )


def test_a_plot_of_nothing_is_refused():
    with pytest.raises(ValueError, match="rows is empty"):
        plot_pareto([], result()["dense"])
