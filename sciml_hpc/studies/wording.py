"""Numbers as people read them: enough digits and no more, no exponents where a figure can be written out."""

from __future__ import annotations

from sciml_hpc.studies.efficiency import Interval

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, digits: int = 3) -> str:
    """`value` with at least so many significant digits, all of them before the point, thousands apart."""
    if value == 0:
        return "0"
    size = _magnitude(value, digits)
    if not -4 <= size < 15:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa} × 10{str(int(power)).translate(_SUPERSCRIPT)}".replace("-", "−")
    return f"{value:,.{max(0, digits - 1 - size)}f}".replace("-", "−")


def pair(x: Interval, most: int = 4) -> tuple[str, str]:
    """(value, its interval as low–high), to two digits of the interval's half-width, but at `most` so many digits after
    the point. No interval: an empty text.
    """
    if x.low is None or x.high is None:
        return number(x.value), ""
    half = (x.high - x.low) / 2
    if half <= 0:
        return number(x.value), ""
    if min(abs(x.low), abs(x.value)) < 1e-4 or half > abs(x.value):  # digits of the half-width would leave none
        return number(x.value), f"{number(x.low)}–{number(x.high)}"
    places = max(0, min(1 - _magnitude(half, 2), 4 - _magnitude(x.value, 5), most))
    return f"{x.value:,.{places}f}", f"{x.low:,.{places}f}–{x.high:,.{places}f}"


def interval(x: Interval) -> str:
    """The value and, in brackets, its interval."""
    value, between = pair(x)
    return f"{value} ({between})" if between else value


def seconds(value: float) -> str:
    """A time, in minutes or hours besides where it is long."""
    if abs(value) < 1e-3:
        return f"{number(value * 1e6)} µs"
    if abs(value) < 1:
        return f"{number(value * 1e3)} ms"
    if abs(value) < 300:
        return f"{number(value)} s"
    long = f"{number(value / 60)} min" if abs(value) < 7200 else f"{number(value / 3600)} h"
    return f"{number(value)} s ({long})"


def scaled(value: float, unit: str) -> str:
    """A quantity with the decimal prefix of its unit, as in 1.25 GB or 300 kJ."""
    power = 0 if value == 0 else max(0, min(6, _magnitude(value, 3) // 3))
    return f"{number(value / 1000**power)} {('', 'k', 'M', 'G', 'T', 'P', 'E')[power]}{unit}"


def plural(n: int, word: str) -> str:
    """The word as it stands with so many of the things."""
    return word if n == 1 else f"{word}s"


def capital(words: str) -> str:
    """With a capital letter at the beginning."""
    return words[:1].upper() + words[1:]


def _magnitude(value: float, digits: int) -> int:
    """The power of ten of the first digit, once rounded to so many digits."""
    return int(f"{value:.{digits - 1}e}".partition("e")[2])
