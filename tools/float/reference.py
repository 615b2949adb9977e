#!/usr/bin/env python3
"""Correctly rounded transcendental results with Python's decimal module: a second oracle, which sees the last bit.

Writes lines "name control-word st0 st1 result"; 80-bit values as in record.c. The argument of the trigonometric ones is reduced
by the processor's 66-bit pi. Usage: reference.py COUNT SEED > src/float/testdata/reference.txt
"""
import random
import sys
from decimal import Decimal, getcontext
from fractions import Fraction

getcontext().prec = 90
PI = Fraction(0xC90FDAA22168C234C, 1 << 66)
LN2 = Decimal(2).ln()


def value(sign, exponent, significand):
    size = Fraction(significand) * Fraction(2) ** (exponent - 16383 - 63)
    return -size if sign else size


def decimal(x):
    return Decimal(x.numerator) / Decimal(x.denominator)


def series(x, first):
    """sin (first = 1) or cos (first = 0) of a Decimal below 1."""
    term, total, k = x if first else Decimal(1), Decimal(0), first
    while abs(term) > Decimal(10) ** -120:
        total += term
        term *= -x * x / ((k + 1) * (k + 2))
        k += 2
    return total


def sine_and_cosine(x):
    n = round(x / (PI / 2))
    r = decimal(x - n * PI / 2)
    s, c = series(r, 1), series(r, 0)
    return [(s, c), (c, -s), (-s, -c), (-c, s)][n % 4]


def arctangent(t):
    """atan of a positive Decimal, by halving the angle until the series is short."""
    halvings = 0
    while t > Decimal("0.05"):
        t = t / (1 + (1 + t * t).sqrt())
        halvings += 1
    term, total, k = t, Decimal(0), 1
    while abs(term) > Decimal(10) ** -130:
        total += term / k
        term *= -t * t
        k += 2
    return total * 2 ** halvings


def log2_one_plus(x):
    # ln(1 + x) needs the digits that 1 + x loses.
    getcontext().prec = 140
    result = (1 + decimal(x)).ln() / Decimal(2).ln()
    getcontext().prec = 90
    return result


def power_minus_one(x):
    getcontext().prec = 140
    result = (decimal(x) * Decimal(2).ln()).exp() - 1
    getcontext().prec = 90
    return result


FUNCTIONS = {
    "f2xm1": lambda x, y: power_minus_one(x),
    "fyl2x": lambda x, y: decimal(y) * decimal(x).ln() / LN2,
    "fyl2xp1": lambda x, y: decimal(y) * log2_one_plus(x),
    "fpatan": lambda x, y: arctangent(decimal(y / x)),
    "fsin": lambda x, y: sine_and_cosine(x)[0],
    "fcos": lambda x, y: sine_and_cosine(x)[1],
    "fptan": lambda x, y: sine_and_cosine(x)[0] / sine_and_cosine(x)[1],
}
EXPONENTS = {"f2xm1": (-40, -1), "fyl2x": (-20, 20), "fyl2xp1": (-60, -3), "fpatan": (-10, 10), "fsin": (-30, 62), "fcos": (-30, 62), "fptan": (-30, 62)}


def rounded(result, control):
    sign, size = (1 if result < 0 else 0), Fraction(abs(result))
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if size < Fraction(2) ** exponent:
        exponent -= 1
    scaled = size / Fraction(2) ** (exponent - 63)
    whole = scaled.numerator // scaled.denominator
    up = [scaled - whole > Fraction(1, 2), sign == 1, sign == 0, False][control >> 10 & 3]
    whole += up
    if whole >> 64:
        whole, exponent = whole >> 1, exponent + 1
    return sign, exponent + 16383, whole


def text(sign, exponent, significand):
    return "%04x%016x" % (sign << 15 | exponent, significand)


def main():
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    generator = random.Random(seed)
    for name, function in FUNCTIONS.items():
        low, high = EXPONENTS[name]
        for _ in range(count):
            x, y = [(generator.randrange(2), 16383 + generator.randint(low, high), 1 << 63 | generator.getrandbits(63)) for _ in "xy"]
            if name in ("fyl2x", "fpatan"):
                x = (0,) + x[1:]
            if name == "fpatan":
                y = (0,) + y[1:]
            control = 0x33F | generator.randrange(4) << 10
            result = function(value(*x), value(*y))
            print("%s %x %s %s %s" % (name, control, text(*x), text(*y), text(*rounded(result, control))))


main()
