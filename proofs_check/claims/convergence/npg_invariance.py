"""Claims: where the weighting of the prompts cannot matter to natural policy gradient (theory.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from proofs_check.claim import Array, Claim, Instances, Relation, dyadic, mutant, shrunk, stated
from synthetic.bandits.mdp import KLRegulariser, TabularMDP, garnet, prompts
from synthetic.bandits.policies import LogLinearPolicy, TabularPolicy, natural_gradient, policy_gradient

Table = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class TabularDirection:
    """One natural gradient at given logits ``(s, a)``, weighted by masses over the states of a random MDP."""

    logits: Table
    masses: tuple[float, ...]
    discount: float
    number: int

    @property
    def mdp(self) -> TabularMDP:
        """A garnet of the size of the logits; a bandit at discount 0."""
        states, actions = np.shape(self.logits)
        return garnet(states, actions, min(2, states), self.discount, np.random.default_rng(self.number))

    @property
    def policy(self) -> TabularPolicy:
        """The tabular class."""
        return TabularPolicy(*np.shape(self.logits))

    @property
    def weights(self) -> Array:
        """The start distribution q."""
        return np.array(self.masses) / sum(self.masses)


@dataclass(frozen=True)
class LogLinearDirection:
    """A bandit whose reward is <truth, features> plus a baseline per prompt, and a point of the log-linear class.

    ``features`` are ``(x, a, d)``; the reference policy has the logits ``reference`` ``(x, a)``.
    """

    features: tuple[Table, ...]
    reference: Table
    baselines: tuple[float, ...]
    truth: tuple[float, ...]
    parameters: tuple[float, ...]
    masses: tuple[float, ...]
    beta: float

    @property
    def rewards(self) -> Array:
        """Shape ``(x, a)``."""
        return np.array(self.features) @ np.array(self.truth) + np.array(self.baselines)[:, None]

    @property
    def regulariser(self) -> KLRegulariser:
        """KL to the reference policy."""
        return KLRegulariser(softmax_rows(self.reference), self.beta)

    @property
    def weights(self) -> Array:
        """The prompt distribution q."""
        return np.array(self.masses) / sum(self.masses)

    @property
    def centred(self) -> Array:
        """Features minus their mean over the answers of a prompt, one row per prompt and answer."""
        features = np.array(self.features)
        return (features - features.mean(axis=1, keepdims=True)).reshape(-1, features.shape[2])


def softmax_rows(logits: Table) -> Array:
    """Probabilities of every row."""
    return np.exp(LogLinearPolicy(np.array(logits)[..., None]).log_probabilities([1.0]))


@stated
def npg_tabular_invariance() -> Claim[TabularDirection]:
    """On tabular softmax policies every weighting of the prompts gives the same natural gradient.

    Problem: direction F_q^+ g_q at theta, q a distribution over start states, d_q(s) > 0 in every state.
    Guarantee (exact): entry (s, a) is A(s, a) / (1 - gamma) minus its mean over a: q has cancelled. So robust and
        plain natural policy gradient take the same steps for as long as the adversary leaves every prompt some
        mass: for KL unless its radius puts all mass on one prompt, for total variation while no prompt is drained
        to zero.
    Source: theory.md section 3, `npg-tabular-invariance`; [AKLM21, Lemma 5.1] for one q.
    Example: rewards (1, 0) at a prompt, uniform policy: (1/2, -1/2) whatever its mass.
    """

    def fitted(x: TabularDirection, weights: Array) -> Array:
        # Through the general least-squares solution, which knows nothing of the closed form.
        return natural_gradient(x.policy.as_log_linear(), np.ravel(x.logits), x.mdp, start=weights)

    def closed_form(x: TabularDirection) -> Array:
        advantages = x.mdp.advantages(softmax_rows(x.logits)) / (1 - x.discount)
        return (advantages - advantages.mean(axis=1, keepdims=True)).ravel()

    def without_first_prompt(x: TabularDirection) -> Array:
        return fitted(x, np.array([0.0, *x.masses[1:]]) / sum(x.masses[1:]))

    claim = Claim[TabularDirection](
        label="npg-tabular-invariance",
        statement="F_q^+ g_q = centred A / (1 - gamma) for every strictly positive q (tabular softmax)",
        reference="theory.md section 3",
        assumptions={
            "every mass of q at least 1/64": lambda x: min(x.masses) >= 1 / 64 and max(x.masses) <= 1,
            "0 <= gamma <= 0.9": lambda x: 0 <= x.discount <= 0.9,
            "logits in [-4, 4]": lambda x: np.abs(x.logits).max() <= 4,
        },
        instances=_tabular_directions(),
        lhs=lambda x: fitted(x, x.weights),
        rhs=closed_form,
        scale=lambda x: (1 - x.discount) ** -2,
        relation=Relation.EQUAL,
        effort=0.5,
    )

    def weighted_gradient(x: TabularDirection) -> Array:
        return policy_gradient(x.policy, np.ravel(x.logits), x.mdp, start=x.weights)

    return claim.with_mutants(
        mutant(claim, "a prompt without mass", lhs=without_first_prompt),
        mutant(claim, "plain instead of natural gradient", lhs=weighted_gradient),
        mutant(claim, "advantages not centred", rhs=lambda x: np.ravel(x.mdp.advantages(softmax_rows(x.logits)))),
        shrunk(claim),
    )


@stated
def npg_realizable_invariance() -> Claim[LogLinearDirection]:
    """Log-linear policies with a reward linear in the same features: the weighting does not matter either.

    Problem: bandit with r(x, a) = <w, phi(x, a)> + b(x), value E_pi r - beta KL(pi || pi_ref), policies
        pi_theta(a|x) proportional to pi_ref(a|x) exp <theta, phi(x, a)>: pi_ref is the point theta = 0 of the class.
    Guarantee (exact): for strictly positive q, F_q^+ g_q is the projection of w - beta theta on the span of
        phi(x, a) - phi(x, b) over all x, a, b; it is w - beta theta itself if they span R^d. Proof: the reward less
        the charge is <w - beta theta, phi> + c(x), so the least-squares fit has no residual for any q.
    Needed: linear in the features up to a term per prompt (baselines are free); pi_ref inside the class; q > 0, or at
        least a support with the same span. Without KL, beta = 0: the direction is w at every theta.
    Source: theory.md section 3, `npg-realizable-invariance`.
    Example: d = 1, phi = (1, 0) at both prompts, r = phi: the direction is 1 - beta theta for every q.
    """

    def fitted(x: LogLinearDirection, rewards: Array, weights: Array, *, inside: bool = True) -> Array:
        policy = LogLinearPolicy(np.array(x.features), softmax_rows(x.reference) if inside else None)
        return natural_gradient(policy, x.parameters, prompts(rewards), start=weights, regulariser=x.regulariser)

    def projected(x: LogLinearDirection, beta: float) -> Array:
        _, sizes, rows = np.linalg.svd(x.centred, full_matrices=False)
        basis = rows[sizes > _NO_RANK]
        return np.asarray(basis.T @ basis @ (np.array(x.truth) - beta * np.array(x.parameters)), float)

    def misspecified(x: LogLinearDirection) -> Array:
        bonus = np.zeros_like(x.rewards)
        bonus[0, 0] = 1.0
        return fitted(x, x.rewards + bonus, x.weights)

    def without_first_prompt(x: LogLinearDirection) -> Array:
        return fitted(x, x.rewards, np.array([0.0, *x.masses[1:]]) / sum(x.masses[1:]))

    claim = Claim[LogLinearDirection](
        label="npg-realizable-invariance",
        statement="F_q^+ g_q = projection of w - beta theta for every q > 0 (log-linear policy, reward linear, KL)",
        reference="theory.md section 3",
        assumptions={
            "every mass of q at least 1/64": lambda x: min(x.masses) >= 1 / 64 and max(x.masses) <= 1,
            "1/64 <= beta <= 4": lambda x: 1 / 64 <= x.beta <= 4,
            "logits in [-8, 8]": lambda x: _largest_logit(x) <= 8,
            # A direction in which the features hardly move is found with an error of the inverse of that.
            "singular values of the features 0 or at least 1/8": _well_conditioned,
        },
        instances=_log_linear_directions(),
        lhs=lambda x: fitted(x, x.rewards, x.weights),
        rhs=lambda x: projected(x, x.beta),
        scale=lambda x: 1 + float(np.abs(x.rewards).max()) + x.beta * _largest_logit(x),
        relation=Relation.EQUAL,
        effort=0.5,
    )
    return claim.with_mutants(
        mutant(claim, "reward not linear", lhs=misspecified),
        mutant(claim, "a prompt without mass", lhs=without_first_prompt),
        mutant(claim, "reference outside the class", lhs=lambda x: fitted(x, x.rewards, x.weights, inside=False)),
        mutant(claim, "KL forgotten", rhs=lambda x: projected(x, 0.0)),
        shrunk(claim),
    )


_NO_RANK = 1e-9


def _largest_logit(x: LogLinearDirection) -> float:
    logits = np.array(x.features) @ np.array(x.parameters)
    return float(max(np.abs(logits).max(), np.abs(x.reference).max()))


def _well_conditioned(x: LogLinearDirection) -> bool:
    sizes = np.linalg.svd(x.centred, compute_uv=False)
    return bool(np.all((sizes < _NO_RANK) | (sizes >= 1 / 8)) and sizes[0] >= 1 / 8)


def _tabular_directions() -> Instances[TabularDirection]:
    corners = (
        TabularDirection(((0.0, 0.0), (1.0, -1.0)), (0.25, 0.75), 0.0, 0),
        TabularDirection(((0.0, 2.0, 0.0), (1.0, -1.0, 0.0), (0.0, 0.0, 0.0)), (1 / 64, 1.0, 0.5), 0.875, 1),
    )

    def drawn(states: int, actions: int) -> st.SearchStrategy[TabularDirection]:
        logits = st.tuples(*[st.tuples(*[dyadic(-2, 2)] * actions)] * states)
        masses = st.tuples(*[dyadic(1 / 64, 1)] * states)
        return st.builds(TabularDirection, logits, masses, dyadic(0, 0.875), st.integers(0, 999))

    return Instances(TabularDirection, corners, st.one_of(drawn(1, 2), drawn(2, 3), drawn(4, 2)))


def _log_linear_directions() -> Instances[LogLinearDirection]:
    opposite = (((1.0, 0.0), (0.0, 0.0)), ((0.0, 1.0), (0.0, 0.0)))  # each prompt tells of one feature only
    redundant = (((1.0, 1.0), (0.0, 0.0)), ((2.0, 2.0), (0.0, 0.0)))  # the features are always equal
    tilted = ((0.0, 1.0), (0.5, 0.0))
    corners = tuple(
        LogLinearDirection(features, tilted, (0.0, 3.0), (1.0, -1.0), (0.5, 0.25), (0.25, 1.0), 0.5)
        for features in (opposite, redundant)
    )

    def drawn(states: int, actions: int, d: int) -> st.SearchStrategy[LogLinearDirection]:
        def vector(n: int, low: float = -2.0, high: float = 2.0) -> st.SearchStrategy[tuple[float, ...]]:
            return st.tuples(*[dyadic(low, high)] * n)

        features = st.tuples(*[st.tuples(*[vector(d)] * actions)] * states)
        reference = st.tuples(*[vector(actions)] * states)
        points = vector(states), vector(d), vector(d, -1.0, 1.0), vector(states, 1 / 64, 1.0)
        return st.builds(LogLinearDirection, features, reference, *points, dyadic(1 / 64, 2))

    return Instances(LogLinearDirection, corners, st.one_of(drawn(2, 2, 1), drawn(3, 2, 2), drawn(3, 4, 3)))
