"""What single plans fail with: kept, and said in one line."""

import pytest

from batvit.compare.failures import collect_errors, reason


def test_what_one_fails_with_is_kept_and_the_others_go_on():
    errors = {}
    for number in (2, 0, 1):
        with collect_errors(errors, number):
            1 / number
    assert list(errors) == [0]
    assert isinstance(errors[0], ZeroDivisionError)
    # a traceback holds all that the frames hold
    assert errors[0].__traceback__ is None


def test_an_interrupt_is_no_failure():
    with pytest.raises(KeyboardInterrupt), collect_errors({}, 0):
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("too\n  much"), "too much"),
        (RuntimeError(""), "RuntimeError"),
        (KeyError("x"), "KeyError: 'x'"),
        (IndexError("out of range"), "IndexError: out of range"),
    ],
)
def test_a_reason_is_one_line_that_makes_sense_alone(error, said):
    assert reason(error) == said
