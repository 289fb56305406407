"""How far a minibatch is from the population: one function per kind of theorem, one case per set.

Throughout, n scenarios are drawn independently, with replacement, from any distribution whose losses lie in
an interval of length B = ``loss_range``. q are the weights that ``worst_case`` gives the draws (reference
uniform), Lbar_n is the mean of its value, L the value on the population. [L20] and the other keys are those of
the theory notes; for what is marked [derived] the docstring has the proof.
"""

from __future__ import annotations

from math import expm1, inf, sqrt

from ..sets.ambiguity import AmbiguitySet, require_one_size
from ..sets.burg import Burg, BurgPenalty
from ..sets.composed import Charged
from ..sets.divergences import KL, CressieRead, Hellinger
from ..sets.penalties import ChiSquarePenalty, CressieReadPenalty, KLPenalty, Priced
from ..sets.sorted import ChiSquare, CVaR, Spectral, TotalVariation
from .moments import (
    LAW_ONLY,
    Tailed,
    bennett,
    checked_count,
    checked_levels,
    checked_size,
    checked_spread,
    difference_square,
    envelope_square,
    hoelder,
    kl_ball,
    ordered_moment,
    ratio_moment,
    refuse,
    refuse_blindness,
    tail_bias,
    tail_mixture,
)


def excess_bound(ambiguity: AmbiguitySet, loss_range: float, *, variance: float | None = None) -> float:
    """Bound how far the worst-case value lies above the mean, on any distribution.

    0 <= L - E l <= the smallest of B and, with V = min(variance, B^2/4):

        TotalVariation(r, c)   r B (claim tv-gap); with c also (1 - 1/c) B and sqrt(c r V)
        CVaR(a)                (1 - a) B and sqrt((1/a - 1) V)
        ChiSquare(r)           sqrt(2 r V), attained while every weight is positive [DN19]
        KL(r)                  sqrt(r/2) B (Pinsker) and B v psi^-1(r/v), v = V/B^2 (Bennett; see ``bias_bound``)
        CressieRead, Spectral  sqrt((S - 1) V), S as in ``effective_sample_size_bound``; order < 2: that of KL
        ChiSquarePenalty(s)    V/(2s), attained for s >= B
        KLPenalty(t)          B^2/(8t) (Hoeffding), and BurgPenalty(t) (Pinsker)
        CressieReadPenalty    k B^2/(8s) for an order k > 1, and k V/(4s) for k >= 2
        Burg(r), Hellinger(r) B sqrt(min(r/2, 1 - e^-r)) (Pinsker, Bretagnolle-Huber); B sqrt(1 - (1 - r/2)^2)
        a set and a penalty   the smaller of the two

    Proof: <q - p, l> is at most TV(q, p) B, and by Cauchy-Schwarz at most sqrt(E (q/p - 1)^2 V). A divergence of order
    k > 1 is at least KL/k (Jensen, as in the ball that holds it), and for k >= 2 E (q/p - 1)^2/k (Lyapunov).

    Args:
        ambiguity: The set.
        loss_range: B, in the units of the losses.
        variance: The variance of the losses, or a bound on it.

    Raises:
        ValueError: A negative or infinite number, or a set without a bound; for CressieRead of order < 1 and the
            sets with groups, costs or constraints only B is known.

    Example:
        >>> from dro_core import ChiSquare, CVaR
        >>> excess_bound(CVaR(0.75), 2.0), excess_bound(ChiSquare(0.5), 2.0, variance=0.25)
        (0.5, 0.5)
    """
    require_one_size(ambiguity)
    spread, variance = checked_spread(loss_range, variance)
    if variance == 0:
        return 0.0
    match ambiguity:
        case TotalVariation(radius=radius):
            moved = min(radius, 1 - 1 / (ambiguity.max_ratio or inf))
            bound = min(moved * spread, sqrt((ratio_moment(ambiguity) - 1) * variance))
        case CVaR(alpha=alpha):
            bound = min((1 - alpha) * spread, sqrt((1 / alpha - 1) * variance) if alpha else inf)
        case ChiSquarePenalty(strength=strength):
            bound = variance / (2 * strength)
        case KLPenalty(temperature=price) | BurgPenalty(strength=price):
            bound = spread**2 / (8 * price)
        case CressieReadPenalty(order=order, strength=strength) if order > 1:
            bound = order * min(spread**2 / 8, variance / 4 if order >= 2 else inf) / strength
        case Burg(radius=radius):
            bound = spread * sqrt(min(radius / 2, -expm1(-radius)))
        case Hellinger(radius=radius):
            bound = spread * sqrt(1 - (1 - radius / 2) ** 2)
        case Charged(base=base, price=price):
            bound = min(excess_bound(part, spread, variance=variance) for part in (base, price))
        case KL(radius=radius):
            bound = spread * min(sqrt(radius / 2), bennett(radius, variance / spread**2))
        case CressieRead(order=order) if 1 < order < 2:
            bound = excess_bound(kl_ball(ambiguity), spread, variance=variance)
        case _:
            bound = sqrt((ratio_moment(ambiguity) - 1) * variance)
    return min(bound, spread)


def bias_bound(ambiguity: AmbiguitySet, n: int, loss_range: float, *, variance: float | None = None) -> float:
    """Bound L - Lbar_n >= 0, by how much a minibatch understates the worst case on average.

    With v = (2 + log 4n)/(8n) and psi(u) = (1 + u) log(1 + u) - u, the smaller of ``excess_bound`` and

        CVaR(a)               b(a) = B E (1 - K/(a n))_+, K binomial(n, a): attained by a loss of B with probability
                              a; at most B/2 sqrt((1 - a)/(a n)) ([L20, (41)]: 3 B/sqrt(a n))
        TotalVariation(r, c)  (1 - r) b(1 - r) + r b(r/(c - 1)), or b(1/c) if c (1 - r) <= 1
        Spectral              sum_j c_j b(j/k), where it is the mixture of CVaR(j/k) with weights c_j
        ChiSquare(r)          B sqrt(2 r v) ([L20]: 3 B sqrt((1 + 2r)(4 + log n)/(4n)))
        CressieRead(k, r)     B sqrt((S - 1) v) for k >= 2; for 1 < k < 2 of order B n^-(1 - 1/k) (Hoelder)
        KL(r)                 B v psi^-1(r/v), which falls only like B r/log n, and so does the worst bias
        ChiSquarePenalty(s)   V/(2 s n) for s >= B, else B/n min(S - 1, V/s^2) ([L20]: sqrt(2) B^2/(s n))
        KLPenalty(t)          t (exp(B/(2t)) - 1)^2/n, or that of a KL ball that holds its maximiser
        CressieReadPenalty    B sqrt((S - 1) v) for k > 1, and likewise a set with a penalty: the set's S

    Proof [derived; the start is L20's]. H(a) = a (bias of CVaR_a) <= B E (a - K/n)_+ [(40)] <= B h(a), h = min(a,
    1 - a, sqrt(a (1 - a)/n)/2). The bias is at most -int H dr <= B int r h' for the density r of some member,
    nonincreasing [(42)]. h' <= 1 has mean 0 and mean square v: Cauchy-Schwarz on r - 1, Hoelder on r, or Bennett.
    ChiSquarePenalty: the bias is the mean of f(eta*) - min f, f the minibatch's dual; f' is concave, and this
    makes it at most B f'(eta*)^2, with f'(eta*) of mean 0 and variance (E r^2 - 1)/n, r = (l - eta*)_+/s.
    KLPenalty: -log y <= 1/y - 1 for y, the minibatch's mean of exp(l/t) over the population's.

    Args:
        ambiguity: The set.
        n: Draws in the minibatch.
        loss_range: B, in the units of the losses.
        variance: As in ``excess_bound``; it sharpens the bounds of ChiSquarePenalty.

    Raises:
        ValueError: A parameter outside its interval, or a set without a bound that falls with n: plain total
            variation and CressieRead of order < 1, because of losses too rare for a minibatch, and sets for
            which the losses' distribution is not all that counts.

    Example:
        >>> from dro_core import CVaR, TotalVariation
        >>> [round(bias_bound(CVaR(0.1), n, 1.0), 3) for n in (16, 64, 256)]
        [0.309, 0.151, 0.075]
        >>> round(bias_bound(TotalVariation(0.2, max_ratio=8), 64, 1.0), 3)
        0.078
    """
    n, (spread, variance) = checked_count("n", n), checked_spread(loss_range, variance)
    refuse_blindness(ambiguity)
    most = excess_bound(ambiguity, spread, variance=variance)
    if most == 0:
        return 0.0
    match ambiguity:
        case CVaR() | TotalVariation() | Spectral():
            bound = spread * sum(mass * tail_bias(alpha, n) for mass, alpha in tail_mixture(ambiguity))
        case ChiSquarePenalty(strength=strength) if strength >= spread:
            bound = variance / (2 * strength * n)
        case ChiSquarePenalty(strength=strength):
            moment = ratio_moment(ambiguity, loss_range=spread)
            bound = spread / n * min(moment - 1, variance / strength**2)
        case KLPenalty(temperature=temperature):
            x = spread / temperature
            fast, slow = expm1(min(x / 2, 300)) ** 2 / (x * n), bennett(min(x, x * x / 8), envelope_square(n))
            bound = spread * min(fast, slow)
        case KL(radius=radius):
            bound = spread * bennett(radius, envelope_square(n))
        case CressieRead(order=order) if order < 2:
            bound = min(spread * hoelder(ambiguity, n), bias_bound(kl_ball(ambiguity), n, spread))
        case _:
            bound = spread * sqrt((ratio_moment(ambiguity, loss_range=spread) - 1) * envelope_square(n))
    return min(bound, most)


def inverse_cdf_bias_bound(ambiguity: AmbiguitySet, n: int, lipschitz: float) -> float:
    """Bound L - Lbar_n by G/(n + 1) where the quantile function of the losses is G-Lipschitz [L20, (11)].

    It holds for every set that sees only the distribution of the losses, the whole simplex included, so for
    plain total variation too. Uniform losses and their maximum attain it. Losses with atoms have quantiles
    that jump: no G.

    Args:
        ambiguity: The set.
        n: Draws in the minibatch.
        lipschitz: G, in the units of the losses; for uniform losses their range.

    Raises:
        ValueError: A parameter outside its interval, or a set that sees more than the losses' distribution.

    Example:
        >>> from dro_core import TotalVariation
        >>> inverse_cdf_bias_bound(TotalVariation(0.2), 9, 1.0)
        0.1
    """
    require_one_size(ambiguity)
    if not isinstance(ambiguity, (Tailed, ChiSquare, KL, CressieRead, Hellinger, Burg, Priced, Charged)):
        refuse(ambiguity, "bias bound", LAW_ONLY)
    return checked_size("lipschitz", "the steepest slope of the quantiles", lipschitz) / (checked_count("n", n) + 1)


def effective_sample_size_bound(ambiguity: AmbiguitySet, n: int, *, loss_range: float | None = None) -> float:
    """Bound from below the effective sample size 1/sum q^2 of the weights of any n losses, by n/S.

    S bounds sum q^2/(1/n) = E (q/p)^2, which is 1 plus twice the divergence of ``ChiSquare`` [derived]:

        CVaR(a)               1/a, attained when a n is an integer
        TotalVariation(r, c)  min(c, 1 + c r)
        TotalVariation(r)     1 + r + n r^2, from sum q^2 <= (1 - r)/n + 2r/n + r^2, attained by distinct losses
                              when r n is an integer: however large n, the size tends to 1/r^2
        Spectral              k sum spectrum^2
        ChiSquare(r)          1 + 2r
        CressieRead(k, r)     (1 + k(k - 1) r)^(1/(k - 1)) for k >= 2 (Lyapunov), n^(2 - k) (1 + k(k - 1) r) for k < 2
        ChiSquarePenalty(s)   B/s if that is >= 2, else 1 + B^2/(4 s^2) ([L20, claim 4]: 1 + 2B/s)
        KLPenalty(t)          cosh(B/(2t))^2 (Kantorovich)
        CressieReadPenalty    (1 + (k - 1) B/s)^(1/(k - 1)) for k > 1, a bound of q/p: some loss has q <= p, so eta >= 0
        a set and a penalty   that of the set; KL with its penalty: that of the penalty

    ChiSquarePenalty: q/p = (l - eta)_+/s for losses in [0, B]. Where eta >= 0, q/p <= B/s. Else E (q/p)^2 - 1 =
    Var l/s^2 with E l = s + eta < s, and Var l <= E l (B - E l).

    Args:
        ambiguity: The set.
        n: Scenarios in the minibatch.
        loss_range: B, which only the penalties need.

    Raises:
        ValueError: A parameter outside its interval, or a set without such a bound: under KL and CressieRead of
            order < 1 a single draw may carry a mass that falls more slowly than any power of n, or not at all.

    Example:
        >>> from dro_core import TotalVariation
        >>> [round(effective_sample_size_bound(TotalVariation(0.2), n), 1) for n in (24, 64, 10**6)]
        [11.1, 17.0, 25.0]
    """
    return checked_count("n", n) / ratio_moment(ambiguity, n, loss_range)


def gradient_variance_bound(
    ambiguity: AmbiguitySet, n: int, gradient_norm: float, *, loss_range: float | None = None
) -> float:
    """Bound the variance E ||g - E g||^2 of the plug-in gradient g = sum_i q_i g_i, all ||g_i|| <= G.

    It is at most G^2, 4 G^2 S/n with the S of ``effective_sample_size_bound``, and, where the value is a mixture
    of CVaR(a_j) with weights c_j (a = 0 the maximum), G^2 (sum_j c_j min(1, 2/sqrt(a_j n)))^2. So 4 G^2/(a n)
    for CVaR(a), and no number below 4 will do (a -> 0, a n -> infinity). For plain total variation of radius r
    it tends to r^2 G^2, not to 0: one draw has the weight r (claim tv-gradient-variance-floor).

    Proof [L20, Proposition 2'; 4 derived]. Efron-Stein: Var g <= n/2 E ||g - g'||^2, draw I replaced. All
    thresholds move in one direction, so do the other weights, by |q_I - q'_I| in total, and ||g - g'|| <=
    G (q_I + q'_I + |q_I - q'_I|) = 2G max(q_I, q'_I), where E max^2 <= 2 E q_I^2 = 2 E sum q^2/n.

    Args:
        ambiguity: CVaR, TotalVariation, Spectral or a penalty. In the other balls threshold and multiplier may
            move against each other: the variance of ChiSquare can stay near G^2 at every n [L20, Prop. 6].
        n: Draws in the minibatch.
        gradient_norm: G.
        loss_range: B, which only the penalties need.

    Raises:
        ValueError: A parameter outside its interval, or another set.

    Example:
        >>> from dro_core import CVaR, TotalVariation
        >>> gradient_variance_bound(CVaR(0.25), 64, 1.0)
        0.25
        >>> [round(gradient_variance_bound(TotalVariation(0.2), n, 1.0), 3) for n in (64, 10**6)]
        [0.179, 0.041]
    """
    norm, n = checked_size("gradient_norm", "the largest norm of a gradient", gradient_norm), checked_count("n", n)
    deviation = 1.0
    if isinstance(ambiguity, Tailed):
        deviation = sum(mass * (min(1, 2 / sqrt(a * n)) if a else 1) for mass, a in tail_mixture(ambiguity))
    return norm**2 * min(1.0, deviation**2, 4 * ordered_moment(ambiguity, n, loss_range) / n)


def multilevel_second_moment_bound(
    ambiguity: AmbiguitySet, n_min: int, n_max: int, gradient_norm: float, *, loss_range: float | None = None
) -> float:
    """Bound E ||g||^2 of the gradient of ``multilevel_estimate``, all ||g_i|| <= G.

    G^2 (1 + sqrt(sum_j d_k^2/P(J = j)))^2, k = n_min 2^j, with d_k^2 = (S - 1)/(k - 1), S for k draws as in
    ``effective_sample_size_bound``; for mixtures of tails d_k is the mixture of those of CVaR. About G^2 (1 +
    sqrt((S - 1) log2(n_max/n_min)/n_min))^2 if S is fixed; it grows like n_max for plain total variation.

    Proof [L20, Proposition 4'; constants derived]. By their one threshold the k weights, less half those of a
    half, have one sign on that half. So the difference has norm <= 2G |Q - 1/2|, Q the weight of a random half,
    of variance sum (q - 1/k)^2 k/(4 (k - 1)). Minkowski adds tails, and the first term.

    Args, errors: as in ``gradient_variance_bound`` and ``multilevel_estimate``.

    Example:
        >>> from dro_core import CVaR
        >>> round(multilevel_second_moment_bound(CVaR(0.25), 16, 1024, 1.0), 2)
        4.09
    """
    norm, levels = (
        checked_size("gradient_norm", "the largest norm of a gradient", gradient_norm),
        checked_levels(n_min, n_max),
    )
    square = 0.0
    for level in range(1, levels + 1):
        k, chance = n_min << level, 2.0 ** -min(level, levels - 1)
        square += difference_square(ambiguity, k, loss_range) / chance
    return norm**2 * (1 + sqrt(square)) ** 2
