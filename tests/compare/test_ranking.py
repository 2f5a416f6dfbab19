"""Which plan keeps most, in values."""

from batvit.compare.ranking import groups, lead, ranked


def row(plan, difference, at="macs", spread=0.5, **fields):
    known = {
        "plan": plan,
        "target": 0.5,
        "at": at,
        "difference": difference,
        "difference_low": difference - spread,
        "difference_high": difference + spread,
    }
    return known | fields


UNLABELLED = {"difference": None, "difference_low": None, "difference_high": None}


def result(*rows):
    return {"rows": list(rows)}


def test_groups_are_in_the_order_of_the_rows():
    rows = [row("a", -1.0, "time"), row("a", -1.0), row("b", -1.0, "time")]
    assert groups(result(*rows)) == [(0.5, "time"), (0.5, "macs")]


def test_first_who_keeps_most_then_who_is_unknown_then_who_is_off_target():
    rows = [
        row("off", -0.1, off_target=True),
        row("unknown", -1.0) | UNLABELLED,
        row("second", -2.0),
        row("first", -1.0),
        row("elsewhere", 0.0, "time"),
    ]
    found = [row["plan"] for row in ranked(result(*rows), 0.5, "macs")]
    assert found == ["first", "second", "unknown", "off"]


def test_the_lead_names_whom_its_interval_does_not_set_apart():
    found = lead(result(row("a", -1.0), row("far", -4.0), row("near", -1.8)), 0.5, "macs")
    assert (found.first["plan"], found.second["plan"]) == ("a", "near")
    assert found.overlapping == ("near",)
    assert not found.no_certain_loss
    assert lead(result(row("a", -0.3)), 0.5, "macs").no_certain_loss
    assert lead(result(row("a", -0.3)), 0.5, "macs").second is None
    unknown = lead(result(row("a", -0.3, difference_low=None), row("b", -0.4)), 0.5, "macs")
    assert (unknown.overlapping, unknown.no_certain_loss) == ((), False)


def test_who_is_off_target_leads_nothing():
    found = lead(result(row("a", -1.0, off_target=True)), 0.5, "macs")
    assert (found.first, found.second, found.some_off_target) == (None, None, True)
    unknown = row("a", -1.0) | UNLABELLED
    assert lead(result(unknown), 0.5, "macs").first is None


def test_who_spreads_too_much_is_ranked_at_equal_macs_alone():
    rows = [row(plan, -i, at) for i, plan in enumerate("abc") for at in ("macs", "time")]
    for one in rows[:2]:
        one["unsteady"] = True
    found = result(*rows)
    assert [one["plan"] for one in ranked(found, 0.5, "macs")] == ["a", "b", "c"]
    assert [one["plan"] for one in ranked(found, 0.5, "time")] == ["b", "c", "a"]
    by_macs = lead(found, 0.5, "macs")
    by_time = lead(found, 0.5, "time")
    assert (by_macs.first["plan"], by_macs.some_unsteady) == ("a", False)
    assert (by_time.first["plan"], by_time.some_unsteady) == ("b", True)
    alone = lead(result(rows[1]), 0.5, "time")
    assert (alone.first, alone.some_unsteady) == (None, True)
