"""Numbers in words: digits that mean something, and no exponents where none is needed."""

from __future__ import annotations

import pytest

from sciml_hpc.studies.efficiency import Interval
from sciml_hpc.studies.wording import interval, number, pair, scaled, seconds


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0"), (1, "1.00"), (0.99951, "1.00"), (9.9951, "10.0"), (999.6, "1,000"), (41234.5, "41,234"),
        (1.5e9, "1,500,000,000"), (0.00123, "0.00123"), (1.234e-7, "1.23 × 10⁻⁷"),
        (-46.94, "−46.9"), (1e20, "1.00 × 10²⁰"),
    ],
)  # fmt: skip
def test_number(value: float, words: str) -> None:
    assert number(value) == words


def test_an_interval_has_two_digits_of_its_half_width() -> None:
    assert interval(Interval(0.93214, 0.92101, 0.94329, 5)) == "0.932 (0.921–0.943)"
    assert interval(Interval(41234.6, 40980.2, 41490.9, 5)) == "41,235 (40,980–41,491)"
    assert interval(Interval(0.5, None, None, 1)) == "0.500"
    assert interval(Interval(0.199, 0.0009, 44.2, 2)) == "0.199 (0.000900–44.2)"  # two runs that scatter
    assert interval(Interval(1.0, 1.0, 1.0, 3)) == "1.00"
    assert pair(Interval(0.9996112, 0.9995012, 0.9997212, 5), most=3) == ("1.000", "1.000–1.000")
    assert interval(Interval(2e-6, 1e-6, 3e-6, 3)) == "2.00 × 10⁻⁶ (1.00 × 10⁻⁶–3.00 × 10⁻⁶)"


def test_times_and_quantities() -> None:
    assert [seconds(x) for x in (2e-5, 0.0123, 12.34, 1234.5, 14035)] == [
        "20.0 µs",
        "12.3 ms",
        "12.3 s",
        "1,234 s (20.6 min)",
        "14,035 s (3.90 h)",
    ]
    assert [scaled(x, "B") for x in (0, 512, 4096, 4e6, 999_999, 1.25e12)] == [
        "0 B",
        "512 B",
        "4.10 kB",
        "4.00 MB",
        "1.00 MB",
        "1.25 TB",
    ]
