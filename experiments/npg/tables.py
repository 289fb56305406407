"""The tables of npg.md."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from .gains import (
    MATERIAL,
    OUTPUTS,
    SEARCHED,
    SETS,
    STRENGTHS,
    Setting,
    compared,
    difference,
    headroom,
    kl_name,
    share,
)
from .invariance import BROKEN, INVARIANT, distances
from .rates import (
    COMPARED,
    SCHEDULES,
    SOLVED,
    STEP_SIZES,
    TIMES,
    course,
    fitted_line,
    floors,
    mean_line,
    sampled,
    slopes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    Rows = Iterable[tuple[str, ...]]

BASE, LATE = Setting(), TIMES >= 64


def invariance_table() -> Rows:
    """Largest relative difference where it is rounding, else the median and the largest."""
    names = list(distances(INVARIANT["tabular, bandit"], count=1))
    yield ("problems", *names)
    for name, kind in (INVARIANT | BROKEN).items():
        yield (name, *map(_spread, distances(kind).values()))


def _spread(apart: np.ndarray) -> str:
    return f"≤ {apart.max():.0e}" if apart.max() < 1e-6 else f"{np.median(apart):.2f} (to {apart.max():.1f})"


def gains_table() -> Rows:
    """Robust less plain, at one n sum q^2."""
    yield ("KL", "set", "worst case, last iterate", "better", "worse", "mean over prompts")
    for strength in STRENGTHS:
        for ambiguity in SETS.values():
            plain, robust = compared(replace(BASE, strength=strength), ambiguity)
            yield (
                kl_name(strength),
                f"`{ambiguity}`",
                *_gain(plain.last, robust.last),
                difference(robust.mean - plain.mean),
            )


def _gain(plain: np.ndarray, robust: np.ndarray) -> tuple[str, str, str]:
    gain = robust - plain
    return difference(gain), share(gain > MATERIAL), share(gain < -MATERIAL)


def headroom_table() -> Rows:
    """How much there was to gain."""
    yield (
        "KL",
        "set",
        "plain lacks",
        "robust lacks",
        "plain lacks over 0.01 in",
        "robust lacks over 0.01 in",
        "starts that end at the best",
    )
    for strength in (0.03, 0.1):
        for ambiguity in SETS.values():
            setting = replace(BASE, strength=strength)
            best, found = headroom(setting, ambiguity)
            lacking = [best - each.last[:SEARCHED] for each in compared(setting, ambiguity)]
            lost, often = [difference(x)[1:] for x in lacking], [share(x > 0.01) for x in lacking]
            yield (kl_name(strength), f"`{ambiguity}`", *lost, *often, f"{100 * found:.0f} %")


def sweep_table() -> Rows:
    """One thing changed at a time, TV(0.2)."""
    changes = {
        "8 prompts, 3 features, noise 2": {}, "1 feature": {"features": 1}, "6 features": {"features": 6},
        "12 features": {"features": 12}, "4 prompts": {"prompts": 4}, "32 prompts": {"prompts": 32},
        "noise 0.5": {"noise": 0.5}, "noise 0: realizable": {"noise": 0.0},
        "steps of 1/4, 1024 of them": {"step": 0.25, "steps": 1024},
    }  # fmt: skip
    yield (
        "setting",
        *(f"KL {kl_name(s)}: {part}" for s in (0.0, 0.1) for part in ("worst case", "worse", "mean over prompts")),
    )
    for name, change in changes.items():
        cells: list[str] = []
        for strength in (0.0, 0.1):
            plain, robust = compared(replace(BASE, strength=strength, **change), SETS["TV"])
            gain, _, worse = _gain(plain.last, robust.last)
            cells += [gain, worse, difference(robust.mean - plain.mean)]
        yield (name, *cells)


def iterates_table() -> Rows:
    """Four outputs of both methods, as differences to the last iterate of the plain one."""
    yield ("KL", "set", "method", *OUTPUTS.values())
    for strength in (0.0, 0.1):
        for ambiguity in SETS.values():
            both = compared(replace(BASE, strength=strength), ambiguity)
            for method, found in zip(("plain", "robust"), both, strict=True):
                first, *others = (difference(getattr(found, output) - both[0].last) for output in OUTPUTS)
                yield (kl_name(strength), f"`{ambiguity}`", method, "0" if method == "plain" else first, *others)


def refuted_table() -> Rows:
    """How often the refuted claims fail."""
    yield (
        "KL",
        "set",
        "robust last < plain last",
        "by over 0.001",
        "robust best < plain last",
        "by over 0.001",
        "robust average of values < plain's",
    )
    for strength in STRENGTHS:
        for ambiguity in SETS.values():
            plain, robust = compared(replace(BASE, strength=strength), ambiguity)
            claims = (robust.last - plain.last, robust.best - plain.last)
            cells = [share(gain < -least) for gain in claims for least in (SOLVED, MATERIAL)]
            yield (kl_name(strength), f"`{ambiguity}`", *cells, share(robust.mixture < plain.mixture - SOLVED))


def rates_table() -> Rows:
    """Deterministic runs."""
    shown = (16, 64, 256, 1024)
    yield (
        "steps",
        "set",
        *(f"lacks at T = {t}" for t in shown),
        "short of its own local maximum (median)",
        "solved",
        "weights move",
    )
    for schedule in SCHEDULES:
        for name, ambiguity in COMPARED.items():
            found = course(ambiguity, schedule)
            means = (f"{found.lacking[t == TIMES].mean():.4f}" for t in shown)
            last = found.short[-1]
            moved = f"{found.moved.mean():.3f}" if found.moved.mean() > 5e-4 else "0"
            yield (schedule, name, *means, f"{np.median(last):.0e}", share(last < SOLVED), moved)


def slopes_table() -> Rows:
    """Exponents with intervals, and their paired differences."""
    yield ("what", *COMPARED, "TV less chi-square, same n sum q^2")
    balls, early = list(COMPARED.values()), TIMES <= 128
    medians = [np.median(course(ball, "1/4").short[early], axis=1) for ball in balls]
    yield ("log shortfall per step, steps 1/4", *(str(fitted_line(TIMES[early], np.log(x))) for x in medians), "")
    for schedule in ("1/sqrt(t)", "10/(9 + t)"):
        each = [slopes(TIMES[LATE], course(ball, schedule).short[LATE]) for ball in balls]
        yield (
            f"shortfall over T, steps {schedule}",
            *(str(mean_line(s)) for s in each),
            str(mean_line(each[0] - each[1])),
        )
    lost = [floors(ball) for ball in balls]
    cells = [
        str(fitted_line(np.log(STEP_SIZES), np.log(x.mean(axis=1)))) if x.max() > SOLVED else "no floor" for x in lost
    ]
    yield ("floor over the size of constant steps", *cells, "")


def floors_table() -> Rows:
    """What constant steps lose for good."""
    yield ("steps of", *(f"{size:g}" for size in STEP_SIZES))
    for name, ambiguity in COMPARED.items():
        lost = floors(ambiguity)
        yield (f"{name}: mean", *(f"{x.mean():.1e}" if x.mean() > SOLVED / 100 else "0" for x in lost))
    lost = floors(COMPARED["TV"])
    yield ("TV: share with a floor above 1e-6", *(share(x > SOLVED) for x in lost))


def minibatch_table() -> Rows:
    """Weights from minibatches."""
    shown = (64, 256, 1024)
    yield (
        "steps",
        "weights",
        *(f"own set, T = {t}" for t in shown),
        "slope from T = 128",
        "TV(0.2), T = 1024",
        "less plain's",
        "less TV's",
    )
    for schedule in ("1/4", "10/(9 + t)"):
        others = {"plain": sampled(None, schedule), "TV": sampled(COMPARED["TV"], schedule)}
        for name, ambiguity in {"plain": None, **COMPARED}.items():
            found = sampled(ambiguity, schedule)
            late = TIMES >= 128
            slope = fitted_line(np.log(TIMES[late]), np.log(found.own[late].mean(axis=1)))
            cells = [difference(found.own[t == TIMES][0])[1:] for t in shown]
            paired = {other: difference(found.by_tv[-1] - them.by_tv[-1]) for other, them in others.items()}
            less = (text if other != name else "" for other, text in paired.items())
            yield (schedule, name, *cells, str(slope), difference(found.by_tv[-1])[1:], *less)
