"""Write the tables of sampled-weights.md: python -m experiments.tv_bias.sampled_weights (half a minute).

Everything is a sum over all ways in which the answers can come out, with exact probabilities: no sampling.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from scipy.stats import binom

from dro_core import AmbiguitySet, parse_ambiguity, worst_case

from ..page_tables import RESULTS, filled, markdown

SUCCESS = np.array([0.3, 0.5, 0.7])  # chances that an answer to each of three prompts is right
SETS = ("tv:0.34", "cvar:0.5", "kl:0.3", "kl_penalty:0.3")
SAMPLES = (2, 4, 8, 16, 32, 64)


def weights(values: np.ndarray, ambiguity: AmbiguitySet) -> np.ndarray:
    """Worst-case weights of prompts with these values, ``(draws, 3)``."""
    return worst_case(-values, ambiguity).weights


def draws(samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Share of right answers of every prompt in every draw, ``(draws, 3)``, and the probability of the draw."""
    counts = np.array(list(product(range(samples + 1), repeat=3)))
    return counts / samples, binom.pmf(counts, samples, SUCCESS).prod(axis=1)


def same_answers(samples: int, ambiguity: AmbiguitySet) -> tuple[np.ndarray, float]:
    """Mean gradient with respect to the logits, and mean value, where the weighed answers choose their weights."""
    means, chances = draws(samples)
    q = weights(means, ambiguity)
    # Leave-one-out advantages times scores, summed over answers of which a share m is right: K/(K-1) m (1 - m).
    gradient = q * samples / (samples - 1) * means * (1 - means)
    return chances @ gradient, float(chances @ (q * means).sum(axis=1))


def other_half(samples: int, ambiguity: AmbiguitySet) -> tuple[np.ndarray, float]:
    """The same where each half of the answers is weighed by the other: the weights' mean times what they multiply."""
    means, chances = draws(samples // 2)
    q = chances @ weights(means, ambiguity)
    return q * SUCCESS * (1 - SUCCESS), float(q @ SUCCESS)


def percent(found: np.ndarray, exact: np.ndarray) -> str:
    """Relative error of a gradient."""
    return f"{100 * np.linalg.norm(found - exact) / np.linalg.norm(exact):.1f} %"


def main() -> None:
    """Write both tables."""
    gradients = [("set", "answers", *(str(samples) for samples in SAMPLES))]
    values = [("set", "exact", "read from", *(str(samples) for samples in SAMPLES))]
    for text in SETS:
        ambiguity = parse_ambiguity(text)
        assert ambiguity is not None
        exact = weights(SUCCESS, ambiguity)
        slopes, value = SUCCESS * (1 - SUCCESS), float(exact @ SUCCESS)
        for name, estimate in (("same", same_answers), ("split", other_half)):
            found = [estimate(samples, ambiguity) for samples in SAMPLES]
            gradients.append((f"`{text}`", name, *(percent(gradient, exact * slopes) for gradient, _ in found)))
            where = "weighed answers" if name == "same" else "other half"
            values.append((f"`{text}`", f"{value:.4f}", where, *(f"{mean:.4f}" for _, mean in found)))
    page = RESULTS / "sampled-weights.md"
    page.write_text(filled(page.read_text(), {"gradients": markdown(gradients), "values": markdown(values)}))


if __name__ == "__main__":
    main()
