"""What did the adversary do? How few examples it left, which ones, and whether it ever acted."""

from __future__ import annotations

import re

import numpy as np
from scipy.special import ndtri
from scipy.stats import binomtest

from dro_core import AmbiguitySet, bias_bound, effective_sample_size, parse_ambiguity, worst_case
from dro_core.spec import Spec

from ..adversary.ledger import VERDICT
from ..adversary.radius.bearing import margins_of
from .diagnosis import Finding, Severity, Unchecked, Verdict
from .learning import no_better_than_a_coin
from .record import RunRecord, Values

_FEW = 5.0  # effective examples: fewer, and a step follows single pairs
_SMALL_SHARE = 0.1  # of the batch
_WRONG = 0.05  # share of sure pairs against their label; the clean runs this was tried on had at most 0.03
_PLAIN = Unchecked("plain training has no adversary")
_WEAK = Unchecked("no logged step had the full ambiguity set")


def too_few_effective(run: RunRecord) -> Verdict:
    """An effective sample size below five, or below a tenth of the batch."""
    if not run.robust:
        return _PLAIN
    sizes = run.column("effective_sample_size", full_strength=True)
    if not len(sizes):
        return _WEAK
    size, batch = float(np.nanmean(sizes)), run.batch or np.inf
    counted = run.column("prompts_counted", full_strength=True)
    few = _FEW if np.isnan(counted).all() else min(_FEW, 0.8 * float(np.nanmean(counted)))  # not those left out before
    if size >= few and (run.batch is None or size >= min(few, _SMALL_SHARE * batch)):
        return None
    return Finding(
        Severity.PROBLEM if size < _FEW else Severity.WARNING,
        "the weights rest on too few examples",
        f"effective sample size {size:.1f} of {run.batch or '?'} at full strength, over {len(sizes)} logged steps",
        _gentler(run),
    )


def single_examples(run: RunRecord) -> Verdict:
    """One example that holds more than half of all weight: the radius is too large for the batch."""
    if not run.robust:
        return _PLAIN
    if run.batch is None:
        return Unchecked("the size of the batch is unknown")
    largest, counted = (run.column(name, full_strength=True) for name in ("largest_multiplier", "prompts_counted"))
    if not len(largest):
        return _WEAK
    weighed = np.where(np.isnan(counted), run.batch, counted)  # policies leave prompts out beforehand
    largest = (largest / weighed)[weighed >= 2]
    share = float(np.mean(largest > 0.5)) if len(largest) else 0.0
    if share < 0.1 or run.batch < 2:
        return None
    return Finding(
        Severity.PROBLEM,
        "the radius is too large for the batch",
        f"in {share:.0%} of the logged steps at full strength one example holds more than half of the weight "
        f"({largest.mean():.0%} on average){_bias(run)}",
        _gentler(run),
    )


def mostly_ignored(run: RunRecord) -> Verdict:
    """Most of every batch has weight zero."""
    if not run.robust:
        return _PLAIN
    zero = run.column("zero_share", full_strength=True)
    if not len(zero):
        return _WEAK
    share = float(np.nanmean(zero))
    if share <= 0.75:
        return None
    return Finding(
        Severity.PROBLEM,
        "most of every batch is ignored",
        f"{share:.0%} of the examples have weight zero at full strength",
        "lower the radius (cvar: raise the level), or take a set that ignores fewer examples: chi2 or kl",
    )


def one_source(run: RunRecord) -> Verdict:
    """One source holds nearly all weight that the adversary gives, against its share of the pairs."""
    if not run.robust:
        return _PLAIN
    groups = run.adversary.get("by_source", run.adversary.get("source"))
    if groups is None:
        return Unchecked("nothing in the folder says which source an example is of")
    if len(groups) < 2:
        return Unchecked("all examples are of one source")
    if run.adversary.get("weighted") and any("mass" not in group for group in groups.values()):
        return Unchecked("pairs have weights, and an earlier version kept no sums of them by source")
    masses = (group.get("mass", group.get("pairs", group.get("prompts", 0))) for group in groups.values())
    pairs = np.fromiter(masses, dtype=float)
    weight = pairs * np.array([group["multiplier"] for group in groups.values()])
    pairs, weight = pairs / pairs.sum(), _without_plain(weight / weight.sum(), pairs / pairs.sum(), run)
    top, share = (
        int(np.argmax(weight - pairs)),
        "weight of plain training" if run.adversary.get("weighted") else "pairs",
    )
    if weight[top] < 0.5 or weight[top] < 2 * pairs[top]:
        return None
    return Finding(
        Severity.PROBLEM if weight[top] >= 0.75 else Severity.WARNING,
        "one source takes the weight",
        f"{list(groups)[top]} has {pairs[top]:.0%} of the {share} and {weight[top]:.0%} of the weight in robust steps",
        "look at its pairs for wrong labels and cut answers; then lower the radius, cap it (max_ratio=2), or weigh "
        "single pairs instead of sources (no by=)",
    )


def likely_mislabelled(run: RunRecord) -> Verdict:
    """Weight on pairs that the model is sure of and the label contradicts, more often than right labels allow."""
    if not run.logistic:
        return Unchecked("margins are known under the logistic loss only")
    if run.ledger is None:
        return Unchecked("there is no checkpoint with the last loss of every pair")
    if isinstance(no_better_than_a_coin(run), Finding):
        return Unchecked("a model that learned nothing cannot tell a wrong label from a right one")
    visited = run.ledger.visits > 0
    margins, weight = margins_of(run.ledger.last_loss[visited]), run.ledger.mean_multiplier()[visited]
    sure = np.abs(margins) >= np.quantile(np.abs(margins), 0.9)
    against = sure & (margins < 0)
    if sure.sum() < 50:
        return Unchecked("fewer than 500 training pairs")
    low = binomtest(int(against.sum()), int(sure.sum())).proportion_ci(0.95).low
    if low < _WRONG:
        return None
    share = _without_plain(np.array([weight[against].sum() / weight.sum()]), np.array([against.mean()]), run)[0]
    heavy = run.robust and share > 1.5 * against.mean()
    return Finding(
        Severity.PROBLEM if heavy else Severity.WARNING,
        "weight goes to pairs that are likely mislabelled" if heavy else "labels are likely wrong",
        f"of the tenth of the training pairs with the largest margins {against.sum() / sure.sum():.0%} contradict "
        f"their label (at least {low:.0%} with 97.5 % confidence, right labels leave hardly any); they are "
        f"{against.mean():.1%} of the pairs and hold {share:.1%} of the weight{_again(run)}",
        "read the most weighted pairs in run.json; trim the largest losses (trim=0.1), cap the weights (max_ratio=2), "
        "weigh groups instead of pairs (by=source), or use dr_dpo, which weighs large losses down",
    )


def did_not_act(run: RunRecord) -> Verdict:
    """The weights were equal at every step, so that the run is plain training under another name."""
    if not run.robust:
        return _PLAIN
    if not run.finished:
        return Unchecked("the run has not come to its end")
    strength, size = run.column("radius_fraction"), run.column("effective_sample_size", full_strength=True)
    if run.inaction is None and strength.max() > 0:
        return None
    seen = f", effective sample size {np.nanmean(size):.1f} of {run.batch or '?'} at full strength" if len(size) else ""
    return Finding(
        Severity.PROBLEM,
        VERDICT,
        f"{run.inaction or 'the schedule of the radius left it no step'}; strength {strength.max():.2f} at most{seen}",
        _schedule_remedy(run)
        if strength.max() == 0
        else "take a larger radius or larger batches; with by=, data of several groups in every batch; or call it erm",
    )


def never_at_full_strength(run: RunRecord) -> Verdict:
    """The schedule left hardly any steps to the full ambiguity set."""
    if not run.robust:
        return _PLAIN
    if not run.finished:
        return Unchecked("the run has not come to its end")
    strength = run.column("radius_fraction")
    full = float(np.mean(strength >= 0.999))
    if full >= 0.1 or strength.max() == 0:
        return None
    config = run.config
    return Finding(
        Severity.WARNING,
        "the full ambiguity set was hardly ever reached",
        f"strength {strength.max():.2f} at most, 1 in {full:.0%} of the logged steps (plain_share "
        f"{config.get('plain_share', 0):g}, ramp_share {config.get('ramp_share', 0):g}"
        f"{', adapt_radius' if config.get('adapt_radius') else ''})",
        _schedule_remedy(run),
    )


def _schedule_remedy(run: RunRecord) -> str:
    if "auto=" in str(run.config.get("ambiguity")):
        return (
            "the pairs of auto_slice showed too late, or never, that anything was learned: train longer, or erm first"
        )
    if run.config.get("adapt_radius"):
        return "the held-out worst category asked for no more (adapt_radius); a fixed schedule shows the full set"
    return "lower plain_share and ramp_share, or train longer"


def _without_plain(weight: Values, pairs: Values, run: RunRecord) -> Values:
    """Shares of the weight in robust steps alone: in the plain ones they are the shares of the pairs."""
    plain = min(run.plain_share, 0.95)
    return np.clip((weight - plain * pairs) / (1 - plain), 0, 1)


def _again(run: RunRecord) -> str:
    """Whether the same examples come up at the top again and again."""
    top = [example for example in run.adversary.get("top", []) if example.get("margin") is not None]
    often = [example for example in top if example["visits"] > 1 and example["margin"] < 0]
    if not often:
        return ""
    visits = np.mean([example["visits"] for example in often])
    return f"; {len(often)} of the {len(top)} most weighted pairs still contradict the model after {visits:.0f} visits"


def _spec(run: RunRecord) -> Spec:
    return Spec.of(str(run.config.get("ambiguity")))


def _set(run: RunRecord) -> AmbiguitySet | None:
    """The ambiguity set, where it is one that knows examples by their losses alone."""
    spec = _spec(run)
    try:
        return None if "by" in dict(spec.options) else parse_ambiguity(str(spec))
    except ValueError:
        return None  # a rule, of which there is no weaker version to suggest


def _gentler(run: RunRecord) -> str:
    """The strongest version of the set, and the smallest batch, that keep enough examples in play."""
    ambiguity, batch = _set(run), run.batch
    cap = ", or cap the weights (max_ratio=4)" if _spec(run).name == "tv" else ""
    setting = "prompts_per_step" if run.kind == "policy" else "gradient_accumulation_steps"
    advice = f"lower the radius (cvar: raise the level), enlarge the batch ({setting}){cap}"
    if ambiguity is None or not batch:
        return advice
    fractions = (step / 20 for step in range(19, 0, -1))
    weaker = next((a for a in map(ambiguity.with_strength, fractions) if _keeps_enough(a, batch)), None)
    larger = next((batch * factor for factor in (2, 4, 8, 16) if _keeps_enough(ambiguity, batch * factor)), None)
    ways = [f"--ambiguity {_rounded(str(weaker))}"] if weaker is not None else []
    ways += [f"batches of {larger} ({setting})"] if larger else []
    return f"{' or '.join(ways)} keeps enough in play{cap}" if ways else advice


def _rounded(spec: str) -> str:
    """Text of a set with numbers of three digits: 0.36 for 0.36000000000000004."""
    return re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3g}", spec)


def _keeps_enough(ambiguity: AmbiguitySet, n: int) -> bool:
    """Whether n losses with normal quantiles have an effective sample size that raises no finding."""
    weights = worst_case(ndtri((np.arange(n) + 0.5) / n), ambiguity).weights
    return float(effective_sample_size(weights)) >= max(_FEW, _SMALL_SHARE * n)


def _bias(run: RunRecord) -> str:
    """What theory says of the worst case that batches of this size understate."""
    ambiguity = _set(run)
    if ambiguity is None or not run.batch:
        return ""
    try:
        bound = bias_bound(ambiguity, run.batch, 1.0)
    except ValueError:
        return "; for this set no bound on what small batches understate exists"
    return f"; batches of {run.batch} may understate the worst case by {bound:.0%} of the losses' range"
