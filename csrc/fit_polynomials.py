"""Fits the polynomial coefficients of philox.h and elu.h and prints them as C hexadecimal floats.

Each polynomial is the minimax fit of a smooth function g(t) on [a, b] under a weight w(t), found by the Remez
exchange in 30-digit arithmetic (Remez 1934; Muller, Elementary Functions, ch. 3). The weight turns the error of the
polynomial into the error of the function that it completes:

    log1p(f) = f - f^2/2 + f^3 P(f)          f in [-1/3, 1/3]       relative error
    sin(a)   = a + a s S(s)                  s = a^2 <= (pi/4)^2    relative error
    cos(a)   = 1 - s/2 + s^2 C(s)            s = a^2 <= (pi/4)^2    absolute error
    expm1(r) = r + r^2 E(r)                  r in [-ln2/2, ln2/2]   relative error

The coefficients are rounded to float32 from the lowest up; after each rounding the ones above it are fitted again, so
that they absorb its error. Run: python csrc/fit_polynomials.py (needs mpmath); the output is pasted into philox.h,
elu.h and reference.py, and a test runs this file and compares.
"""

import functools
import struct

import mpmath as mp

mp.mp.dps = 30
GRID = 400


def remez(g, weight, a, b, degree, fixed):
    """Coefficients c[0..degree] minimising max |weight (g - sum c_k t^k)| on [a, b]; c[:len(fixed)] are given."""
    free = degree + 1 - len(fixed)
    rest = lambda t: g(t) - mp.polyval(fixed[::-1], t) if fixed else g(t)  # noqa: E731
    points = [(a + b) / 2 - (b - a) / 2 * mp.cos(mp.pi * k / free) for k in range(free + 1)]
    for _ in range(30):
        system = mp.matrix(free + 1, free + 1)
        rhs = mp.matrix(free + 1, 1)
        for row, t in enumerate(points):
            for k in range(free):
                system[row, k] = t ** (k + len(fixed))
            system[row, free] = (-1) ** row / weight(t)
            rhs[row] = rest(t)
        solution = mp.lu_solve(system, rhs)
        coefficients = list(fixed) + [solution[k] for k in range(free)]
        error = [weight(t) * (g(t) - mp.polyval(coefficients[::-1], t)) for t in grid(a, b)]
        moved = extrema(grid(a, b), error, free + 1)
        if moved is None or max(abs(p - q) for p, q in zip(moved, points, strict=True)) < (b - a) / GRID / 2:
            break
        points = moved
    return coefficients


def grid(a, b):
    return [a + (b - a) * mp.mpf(k) / GRID for k in range(GRID + 1)]


def extrema(points, error, count):
    """The `count` neighbouring sign-alternating extrema of largest magnitude, or None where there are fewer."""
    peaks = []
    for t, e in zip(points, error, strict=True):
        if peaks and (peaks[-1][1] > 0) == (e > 0):
            if abs(e) > abs(peaks[-1][1]):
                peaks[-1] = (t, e)
        else:
            peaks.append((t, e))
    while len(peaks) > count:
        peaks.pop(0 if abs(peaks[0][1]) < abs(peaks[-1][1]) else -1)
    return [t for t, _ in peaks] if len(peaks) == count else None


def to_float32(value):
    return mp.mpf(struct.unpack("f", struct.pack("f", float(value)))[0])


def fit(g, weight, a, b, degree):
    """Float32 coefficients and the largest weighted error, lowest coefficient first."""
    g, weight = functools.cache(g), functools.cache(weight)  # the grid is the same in every exchange
    fixed = []
    for _ in range(degree + 1):
        fixed.append(to_float32(remez(g, weight, a, b, degree, fixed)[len(fixed)]))
    return fixed, max(abs(weight(t) * (g(t) - mp.polyval(fixed[::-1], t))) for t in grid(a, b))


def series(coefficient, t, terms=80):
    """sum coefficient(k) t^k: the functions below without the cancellation at t = 0."""
    return mp.fsum(coefficient(k) * t**k for k in range(terms))


def log_tail(f):
    return series(lambda k: mp.mpf(-1) ** k / (k + 3), f)


def sin_tail(s):
    return series(lambda k: mp.mpf(-1) ** (k + 1) / mp.factorial(2 * k + 3), s, 20)


def cos_tail(s):
    return series(lambda k: mp.mpf(-1) ** k / mp.factorial(2 * k + 4), s, 20)


def expm1_tail(r):
    return series(lambda k: 1 / mp.factorial(k + 2), r, 30)


def log_weight(f):
    return f**3 / mp.log1p(f) if f else mp.mpf(0.0001) ** 2


def expm1_weight(r):
    return r**2 / mp.expm1(r) if r else mp.mpf(0)


def fits():
    third, top = mp.mpf(1) / 3, (mp.pi / 4) ** 2
    half_ln2 = mp.log(2) / 2
    tiny = mp.mpf(10) ** -6
    return {
        "kLog": fit(log_tail, lambda f: abs(log_weight(f)) + tiny, -third, third, 7),
        "kSin": fit(sin_tail, lambda s: s + tiny, mp.mpf(0), top, 2),
        "kCos": fit(cos_tail, lambda s: s**2 + tiny, mp.mpf(0), top, 2),
        "kExpm1": fit(expm1_tail, lambda r: abs(expm1_weight(r)) + tiny, -half_ln2, half_ln2, 4),
    }


if __name__ == "__main__":
    for name, (coefficients, error) in fits().items():
        print(f"// {name}: largest error {mp.nstr(error, 3)}")
        print(f"{name}[{len(coefficients)}] = {{" + ", ".join(f"{float(c).hex()}f" for c in coefficients) + "};")
