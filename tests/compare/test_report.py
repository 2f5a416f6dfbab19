"""The report: everything is in it, nothing leads out of it, nothing is believed."""

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from batvit.compare.report import html

VOID = {"meta", "img", "br", "link", "hr", "input"}


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
    """Checks that tags are closed in order; keeps all tags, and the texts of each row's cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.tags = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
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


def page(found, plot=None, pictures=()):
    return Page(html(found, plot=plot, pictures=pictures))


def summary(found):
    text = html(found, plot=None, pictures=[])
    return re.sub(
        "<[^>]*>", "", text.partition('<section class="summary">')[2].partition("</section>")[0]
    )


def without(*names, **fields):
    """A result whose rows and dense model lack these numbers."""
    found = result(row("bat", **fields), row("tome", difference=-3.0, **fields))
    for one in (found["dense"], *found["rows"]):
        one |= dict.fromkeys(names)
    return found


LABELLED = ("top1", "top5", "difference", "difference_low", "difference_high")
NUMBERS = [
    name
    for name, value in row("bat").items()
    if isinstance(value, int | float) and name != "target"
]
EVIL = "<script>alert('1')</script>\"&--></style>${title}"


def test_every_row_is_in_the_table_of_its_target_below_the_dense_model():
    rows = [
        row(plan, target, at)
        for target in (0.65, 0.5)
        for at in ("macs", "time")
        for plan in ("bat", "tome")
    ]
    found = page(result(*rows))
    assert [cells[0] for cells in found.rows] == ["plan", "dense", "bat", "tome"] * 4
    assert all(len(cells) == len(found.rows[0]) for cells in found.rows)
    text = html(result(*rows), plot=None, pictures=[])
    assert re.findall("<h2>(.*?) of the dense", text) == ["65 %", "50 %"]
    assert re.findall("<h3 id=.*?>(.*?)</h3>", text) == [
        f"Equal {cost}: {share} %" for share in (65, 50) for cost in ("MACs", "measured time")
    ]


def test_who_keeps_most_comes_first_and_the_table_says_so():
    rows = [row("a", difference=-3.0), row("b") | {"difference": None}, row("c", difference=-1.0)]
    found = page(result(*rows))
    assert [cells[0] for cells in found.rows] == ["plan", "dense", "c", "a", "b"]
    sorts = [attributes for attributes in found.all("th") if "aria-sort" in attributes]
    assert [each["aria-sort"] for each in sorts] == ["descending"]


def test_the_best_of_a_column_is_bold_and_dense_never():
    found = result(
        row("bat", difference=-0.3),
        row("tome", difference=-2.0, kl=0.01, step_time=9.0),
        row("evit", top5=96.0),
    )
    text = html(found, plot=None, pictures=[])
    bold = {
        plan: re.findall("<strong>(.*?)</strong>", cells)
        for plan, cells in re.findall('"row">(.*?)</th>(.*?)</tr>', text)
    }
    assert bold == {
        "dense": [],
        "bat": ["79.7", "\u22120.3 [\u22120.8, +0.2]", "94.7"],
        "tome": ["0.010", "9.0 (0.1)"],
        "evit": ["96.0"],
    }


def test_what_looks_the_same_is_bold_together_or_not_at_all():
    two = html(
        result(row("a", top5=95.01), row("b", top5=95.02), row("c", top5=90.0)),
        plot=None,
        pictures=[],
    )
    assert two.count("<strong>95.0</strong>") == 2
    all_three = html(result(row("a"), row("b"), row("c", kl=0.5)), plot=None, pictures=[])
    assert "<strong>95.0</strong>" not in all_three


def test_the_summary_says_who_loses_least_and_how_sure_that_is():
    near = summary(
        result(
            row("tome", difference=-1.2, speedup=1.7),
            row("bat", difference=-1.0),
            row("evit", difference=-4.0),
        )
    )
    assert (
        "At 50 % of the dense model's MACs, bat loses least: \u22121.0 [\u22121.5, \u22120.5], "
        "1.80 times as fast; then tome: \u22121.2 [\u22121.7, \u22120.7], 1.70 times as fast. "
        "Its interval overlaps with tome: these pictures may not tell them apart."
    ) in near
    assert "95 % intervals in brackets" in near
    far = summary(
        result(row("tome", at="time", difference=-5.0), row("bat", at="time", difference=-1.0))
    )
    assert "At 50 % of the dense model's measured time, bat loses least" in far
    assert "overlaps" not in far
    assert "Its interval holds 0: these pictures show no certain loss." in summary(
        result(row("bat", difference=-0.2))
    )
    assert "overlaps with b, c, d, e and 2 more:" in summary(
        result(*(row(plan) for plan in "abcdefg"))
    )


def test_who_is_off_target_is_shown_last_and_not_ranked():
    slow = row("tome", at="time", difference=-0.1, speedup=1.25, off_target=True)
    found = result(
        slow,
        row("bat", at="time", difference=-1.0),
        row("evit", at="time", difference=-2.0, top5=96.0),
    )
    assert (
        "bat loses least: \u22121.0 [\u22121.5, \u22120.5], 1.80 times as fast; then evit"
        in summary(found)
    )
    assert "tome" not in summary(found)
    cells = page(found).rows
    assert [line[0] for line in cells] == ["plan", "dense", "bat", "evit", "tomeoff target: 80 %"]
    assert all(len(line) == len(cells[0]) for line in cells)
    bold = re.findall('"row">(.*?)</th>(.*?)</tr>', html(found, plot=None, pictures=[]))
    assert ["<strong>" in cells for _, cells in bold] == [False, True, True, False]
    assert "measured time, no plan is near." in summary(result(slow))
    page(result(slow | {"speedup": None}))


@pytest.mark.parametrize("name", [*NUMBERS, "config", "tokens", "blocks", "everything"])
def test_whatever_is_missing_there_is_a_page(name):
    missing = [*NUMBERS, "config", "tokens", "blocks"] if name == "everything" else [name]
    page(without(*missing))
    one = result(row("bat"), row("tome") | dict.fromkeys(missing))
    assert [cells[0] for cells in page(one).rows] == ["plan", "dense", "bat", "tome"]


def test_a_missing_number_is_a_dash_and_no_number_at_all():
    cells = page(
        result(row("bat"), row("tome", kl=None, latency_ms=float("nan"), peak_memory_mb="<b>"))
    ).rows
    shown = dict(zip(cells[0], cells[3], strict=True))
    assert (shown["KL"], shown["ms alone (IQR)"], shown["peak MB"]) == ("\N{EN DASH}",) * 3
    assert "peak MB" not in page(without("peak_memory_mb")).rows[0]


def test_nothing_measured_is_said():
    assert "Nothing was measured." in summary(result())


def test_nothing_that_comes_in_is_believed():
    config = {EVIL: [EVIL]}
    found = result(
        row(EVIL, config=config, tokens=[EVIL], blocks=[EVIL]),
        row("b", EVIL, EVIL),
        environment={EVIL: EVIL},
    )
    found |= dict.fromkeys(
        ("model", "data", "command", "samples", "precision", "device", "batch_size", "rounds"), EVIL
    )
    found |= {
        "img_size": [EVIL, EVIL],
        "failed": [dict.fromkeys(("plan", "target", "at", "reason"), EVIL)],
    }
    text = html(found, plot=None, pictures=[(EVIL, b"png")])
    names = {name for tag, attributes in Page(text).tags for name in attributes}
    assert "alert('1')" not in text
    assert text.count("<script>") == text.count("</style>") == 1
    assert not {name for name in names if name.startswith("on")}
    assert Page(text).all("img")[0]["alt"] == EVIL
    assert text.count("alert(") > 20


@pytest.mark.parametrize(
    "huge", [10**400, -(10**400), float("inf"), float("nan")], ids=["huge", "least", "inf", "nan"]
)
def test_no_number_is_too_large(huge):
    one = row("bat", huge, tokens=[huge]) | {"top1": huge, "difference": huge, "speedup": huge}
    page(result(one, failed=[{"plan": "tome", "target": huge}]))


def test_a_path_that_is_no_text_is_written():
    html(result(row("bat"), data="caf\udce9"), plot=None, pictures=[]).encode()


def test_no_script_but_its_own_may_run():
    text = html(result(row("bat")), plot=None, pictures=[])
    (script,) = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    (policy,) = [each["content"] for each in Page(text).all("meta") if "http-equiv" in each]
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_nothing_leads_out_of_the_file():
    text = html(result(row("bat")), plot=b"png", pictures=[("one", b"png")])
    assert text.count("data:image/png;base64,cG5n") == 2
    assert not re.findall(r"(?:src|href)\s*=\s*.(?!data:|#)", text)
    assert not re.findall(r"https?:|url\(|@import|//\w", text)


def test_it_is_fit_for_every_reader():
    found = page(result(row("bat"), row("bat", at="time")), plot=b"png", pictures=[("one", b"png")])
    assert found.all("html") == [{"lang": "en"}]
    assert all(image["alt"] for image in found.all("img"))
    assert {head["scope"] for head in found.all("th")} == {"col", "row"}
    ids = [attributes["id"] for _, attributes in found.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {
        attributes["aria-labelledby"]
        for _, attributes in found.tags
        if "aria-labelledby" in attributes
    } == set(ids)


def test_tokens_and_configuration_can_be_opened():
    text = html(
        result(row("bat", config={"keep_rate": 0.7}, blocks=[3, 6], tokens=[98, 49])),
        plot=None,
        pictures=[],
    )
    assert (
        "<summary>bat: 98, 49 tokens after the blocks 3, 6</summary>"
        "<pre>{\n &quot;keep_rate&quot;: 0.7\n}</pre>" in text
    )
    assert Page(text).rows[2][-1] == "49"


def test_what_failed_is_named():
    failed = [{"plan": "tome", "target": 0.3, "at": "time", "reason": "too slow"}]
    found = result(row("bat"), failed=failed)
    assert "<strong>tome</strong> at 30 % of the measured time: too slow" in html(
        found, plot=None, pictures=[]
    )
    assert "Goals that were not reached: 1" in summary(found)


@pytest.mark.parametrize("at", ["macs", "time"])
def test_times_that_spread_too_much_are_marked_and_name_no_best(at):
    noisy = {"unsteady": True, "speedup_low": 1.2, "speedup_high": 3.1, "speedup": 2.4}
    rows = [row("bat", at=at, **noisy), row("tome", at=at, difference=-3.0), row("evit", at=at)]
    text = html(result(*rows), plot=None, pictures=[])
    assert "times spread too much: 1.20 to 3.10 times as fast" in text
    # the best speed-up is that of a steady row, or of none
    assert "<strong>2.40</strong>" not in text
    found = summary(result(*rows))
    assert "The times of 1 of 3 rows spread too much to rank by" in found
    first = "evit" if at == "time" else "bat"
    assert f", {first} loses least" in found
    quiet = summary(result(row("bat", at=at)))
    assert "spread" not in quiet


def test_where_all_times_spread_too_much_nobody_leads_at_equal_time():
    rows = [row(plan, at="time", unsteady=True) for plan in ("bat", "tome")]
    assert "measured time, times spread too much to rank the plans." in summary(result(*rows))
