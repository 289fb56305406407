"""Did the run learn, and the right thing? Losses, held-out metrics, length."""

from __future__ import annotations

from math import log
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from ..run.files import JsonObject
from ..statistics.ties import EARLIER_RULE
from .diagnosis import Finding, Severity, Unchecked, Verdict
from .record import RunRecord, Values

COIN = log(2)  # the logistic loss of a model that gives every pair the margin 0
_FEW = 50  # steps from which on a loss should have moved
_ROWS = 8  # fewer logged steps than this allow no statement about a trend
_LEVEL = 0.05  # of the test for a downward trend
_INDIFFERENT = 0.01  # nats below log 2 that are nothing worth having where the loss does not fall
TOO_FEW = Unchecked(f"fewer than {_ROWS} losses were logged: lower logging_steps")


def not_finite(run: RunRecord) -> Verdict:
    """A loss or gradient that is nan or infinite."""
    for name in ("mean_loss", "robust_loss", "grad_norm"):
        values = run.column(name)
        logged = np.array([name in row for row in run.training])
        if (broken := logged & ~np.isfinite(values)).any():
            step = run.training[int(np.argmax(broken))].get("step")
            return Finding(
                Severity.PROBLEM,
                "the training broke",
                f"{name} is not finite at {int(broken.sum())} of {len(values)} logged steps, first at step {step}",
                "lower learning_rate, keep max_grad_norm at 1, and train in bfloat16 or float32 instead of float16",
            )
    return None


def no_better_than_a_coin(run: RunRecord) -> Verdict:
    """The loss ends at log 2: within noise of it, or beside it without a downward trend."""
    if not run.logistic:
        return Unchecked("the loss of this kind of run has no value that stands for knowing nothing")
    losses = _losses(run)
    if len(losses) < _ROWS:
        return TOO_FEW
    end, error = _mean_and_error(_last(losses))
    falls = _falls(losses)
    if end < COIN - 2 * error and (falls or end < COIN - _INDIFFERENT):
        return None
    evidence = (
        f"the mean loss of the last quarter is {end:.4f} +- {error:.4f}, a coin's is {COIN:.4f}; over the run it "
        f"{'falls, too slowly' if falls else 'shows no downward trend'} (Kendall's tau {_tau(losses)[0]:+.2f})"
    )
    if falls and not run.finished:
        return Finding(Severity.WARNING, "the run has learned nothing yet", evidence, "let it go on, or train faster")
    title = "the learning rate is too low" if falls else "the loss is stuck at log 2"
    return Finding(Severity.PROBLEM, title, evidence, _few_steps(run) + _unstick(run, losses, falls=falls))


def _few_steps(run: RunRecord) -> str:
    """What to try before anything else where a run has hardly begun; "" of longer ones."""
    if run.steps >= _FEW:
        return ""
    epochs = run.training[-1].get("epoch")
    said = f" ({epochs:.3g} epochs)" if isinstance(epochs, int | float) else ""
    return f"{run.steps} steps{said} are few: train longer first (num_train_epochs); if that is not enough, "


def _unstick(run: RunRecord, losses: Values, *, falls: bool) -> str:
    """What holds a loss at log 2, the likeliest first."""
    rate = run.learning_rate
    if not rate:
        return "the learning rate is 0: set learning_rate"
    if falls:
        return f"raise learning_rate (now {rate:g}) or train longer"
    if losses.max() > 2 * COIN:
        return f"it once was {losses.max():.2f}, so the steps are too large: lower learning_rate (now {rate:g})"
    if run.robust:
        return (
            "train with --ambiguity erm: if that learns, the adversary is too strong for a model that knows little, "
            "so raise plain_share, lower the radius or cap it (max_ratio=4); with noisy labels trim (trim=0.1); "
            f"if it does not learn either, change learning_rate (now {rate:g})"
        )
    return (
        f"change learning_rate (now {rate:g}) tenfold either way, and look at the pairs: do their labels say anything?"
    )


def ends_worse(run: RunRecord) -> Verdict:
    """The plain mean of the training loss rises: the adversary is too strong, or the steps are too large."""
    losses = _losses(run)
    if len(losses) < _ROWS:
        return TOO_FEW
    (start, early), (end, late) = _mean_and_error(losses[: len(losses) // 4]), _mean_and_error(_last(losses))
    worse = end - start > max(3 * np.hypot(early, late), 0.1 * start)
    spike = run.logistic and losses.max() > 2 * COIN and int(np.argmax(losses)) > 0
    if not worse and not spike:
        return None
    evidence = (
        f"the mean loss was {start:.3f} in the first quarter, is {end:.3f} in the last, and {losses.max():.3g} at most"
    )
    if worse and _fell_plainly(run, start):
        return Finding(
            Severity.WARNING,
            "the adversary undoes what plain training learned",
            f"{evidence}; it was {np.nanmin(_plain(run)):.3f} before the adversary acted",
            "lower the radius, cap it (tv: max_ratio=4), or let it grow more slowly (ramp_share); compare with erm",
        )
    return Finding(
        Severity.PROBLEM if worse else Severity.WARNING,
        "the loss rises in training" if worse else "the loss jumped on the way",
        evidence,
        f"lower learning_rate (now {run.learning_rate or 0:g}) by half or more, or warm up longer (warmup_steps)",
    )


def _fell_plainly(run: RunRecord, start: float) -> bool:
    """Whether the loss had come down when the adversary began to act."""
    plain = _plain(run)
    return run.robust and len(plain) > 1 and bool(np.mean(plain[-2:]) < start)


def _plain(run: RunRecord) -> Values:
    return run.column("mean_loss")[run.column("radius_fraction") == 0]


def held_out_rises(run: RunRecord) -> Verdict:
    """The training loss falls while the loss of the worst held-out category rises."""
    worst, losses = run.evaluated("worst_category_loss"), _losses(run)
    if len(worst) < 4 or not np.isfinite(worst).all():
        return Unchecked("fewer than four evaluations on held-out pairs: set eval_file and eval_strategy")
    best = int(np.argmin(worst))
    rise, jitter = worst[-1] - worst[best], np.std(np.diff(worst[: best + 2]), ddof=1) if best else 0.0
    since = len(worst) - 1 - best
    if since < 2 or rise < max(2 * jitter, 0.1 * worst[best]) or not _falls(losses):
        return None
    kept = run.config.get("final") == "best"
    return Finding(
        Severity.WARNING if kept else Severity.PROBLEM,
        "the worst held-out category gets worse while the training loss falls",
        f"its loss was {worst[best]:.3f} at step {run.evaluations[best].get('step')} and is {worst[-1]:.3f} after "
        f"{since} more evaluations; the training loss fell to {np.nanmean(_last(losses)):.3f}",
        "stop there next time: fewer epochs, or patience"
        if kept
        else "export the best checkpoint (final=best), train fewer epochs, or more weight_decay",
    )


def only_length(run: RunRecord) -> Verdict:
    """Margins follow length, and accuracy is not shown to be above that of "the longer answer wins"."""
    suites = {name: suite["overall"] for name, suite in run.suites.items() if suite["overall"].get("pairs")}
    if not suites:
        return Unchecked("the model was not judged on suites")
    followed = {name: record for name, record in suites.items() if _follows_length(record)}
    if 2 * len(followed) <= len(suites):
        return None
    said = "; ".join(
        f"{name}: accuracy {record['accuracy']:.3f}, longer wins {record['longer_wins']:.3f}, "
        f"rank correlation of margin and length {record['length_correlation'] or 0:.2f}"
        + (f" ({run.rule})" if record.get("ties") and run.rule == EARLIER_RULE else "")
        for name, record in followed.items()
    )
    return Finding(
        Severity.PROBLEM,
        "length is all the model learned",
        said,
        "train longer or from a better model, on pairs balanced in length (half of the chosen answers the shorter one)",
    )


def _follows_length(record: JsonObject) -> bool:
    """Whether accuracy is not shown to be above the rule's, and margins mostly are on its side.

    Of accuracy a and the rule's l it follows that margin and length agree in sign on at least |a + l - 1| of the pairs.
    """
    low, longer, correlation = record["low"], record["longer_wins"], record["length_correlation"]
    if low is None or low > max(longer, 0.5):
        return False
    return (correlation or 0.0) >= 0.5 or abs(record["accuracy"] + longer - 1) >= 0.8


def _losses(run: RunRecord) -> Values:
    losses = run.column("mean_loss")
    return losses[np.isfinite(losses)]


def _last(values: Values) -> Values:
    return values[-max(len(values) // 4, 2) :]


def _mean_and_error(values: Values) -> tuple[float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))


def _falls(losses: Values) -> bool:
    tau, p = _tau(losses)
    return tau < 0 and p < _LEVEL


def _tau(losses: Values) -> tuple[float, float]:
    """Kendall's tau of loss and time, and the p-value of "no downward trend"; constant losses have no trend."""
    if len(losses) < 2 or np.ptp(losses) == 0:
        return 0.0, 1.0
    test: Any = kendalltau(np.arange(len(losses)), losses, alternative="less")
    return float(test.statistic), float(test.pvalue)
