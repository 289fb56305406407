"""Every claim that can be checked, in the order of theory.md section 3; claims it does not list follow their kin."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from proofs_check.claim import Claim
from proofs_check.claims.collapse.criterion import (
    collapse_criterion,
    collapse_radius_entropies,
    collapse_radius_exact,
)
from proofs_check.claims.collapse.groups import (
    collapse_groups,
    collapse_groups_longer,
    collapse_groups_noise,
    collapse_groups_vacuous,
)
from proofs_check.claims.collapse.labels import collapse_labels, collapse_regret
from proofs_check.claims.collapse.margins import collapse_accuracy, collapse_accuracy_floor, collapse_signs
from proofs_check.claims.collapse.minibatches import collapse_minibatch
from proofs_check.claims.collapse.samples import collapse_sample, collapse_sample_estimates, collapse_sample_null
from proofs_check.claims.convergence.convergence import sgd_dpo, sgd_reward
from proofs_check.claims.convergence.group_dro import group_dro_online
from proofs_check.claims.convergence.long_runs import sgd_sampled
from proofs_check.claims.convergence.npg_invariance import npg_realizable_invariance, npg_tabular_invariance
from proofs_check.claims.convergence.parameter_rate import robust_parameter_rate, robust_parameter_rate_quarter
from proofs_check.claims.convergence.pointwise import pointwise_optimum, pointwise_optimum_mdp
from proofs_check.claims.convergence.policy_gradient import npg_tabular
from proofs_check.claims.convergence.robust_mdp import contamination_discount, robust_bellman_contracts
from proofs_check.claims.convergence.robust_npg import npg_best_iterate, npg_last_iterate
from proofs_check.claims.convergence.slower import npg_slower
from proofs_check.claims.convergence.subgradient import subgradient_optimal, subgradient_worst_case
from proofs_check.claims.convergence.unbiased import sgd_unbiased
from proofs_check.claims.convergence.value_iteration import value_iteration_bracket
from proofs_check.claims.convergence.weighted_policies import plugin_policy_weights, ppo_a_is_b, ppo_a_is_b_whitened
from proofs_check.claims.inner.divergence_duality import chi2_dual, kl_dual
from proofs_check.claims.inner.duality import cvar_dual, tv_closed_form, tv_dual
from proofs_check.claims.inner.hoeffding import kl_penalty_gap
from proofs_check.claims.inner.inner_problem import ball_nesting, chi2_variance, radius_concave, tv_gap
from proofs_check.claims.inner.published_bounds import (
    accelerated_gradient,
    effective_sample_size_bounds,
    excess_bounds,
)
from proofs_check.claims.inner.sensitivity import danskin, danskin_gradient, robust_convexity
from proofs_check.claims.inner.transport import wasserstein_is_tv, wasserstein_logistic
from proofs_check.claims.minibatch.bias_bounds import bias_layers, tv_capped_bias
from proofs_check.claims.minibatch.chi2_bias import chi2_bias, chi2_penalty_bias
from proofs_check.claims.minibatch.coverage import radius_covers, radius_covers_chi_square
from proofs_check.claims.minibatch.floors import tv_floor_bias
from proofs_check.claims.minibatch.minibatch import (
    cvar_bias,
    cvar_bias_sharp,
    plugin_underestimates,
    plugin_underestimates_divergences,
    tv_bias_root_n,
    tv_bias_split,
)
from proofs_check.claims.minibatch.minibatch_gradients import cvar_gradient_variance, tv_gradient_variance_floor
from proofs_check.claims.minibatch.multilevel import mlmc_unbiased
from proofs_check.claims.minibatch.partitions import (
    grouped_underestimates,
    microbatch_groups,
    microbatch_understates,
    microbatch_understates_exactly,
)
from proofs_check.claims.minibatch.quantiles import icdf_bias
from proofs_check.claims.minibatch.spectral import batch_size_is_a_radius, minibatch_is_spectral, minibatch_of_a_batch
from proofs_check.claims.preferences.asymptotics import bt_mle_coverage, bt_mle_slope
from proofs_check.claims.preferences.limits import coverage_caps_the_radius, separable_margin
from proofs_check.claims.preferences.noisy_labels import (
    cdpo_margin,
    noise_eats_radius,
    rdpo_robust_unbiased,
    rdpo_unbiased,
)
from proofs_check.claims.preferences.preferences import bt_mle_rate, dpo_identity
from proofs_check.claims.preferences.robust_shift import robust_shift_gain, robust_shift_parity
from proofs_check.claims.preferences.shift_counterexamples import robust_shift_labels, robust_shift_sample
from proofs_check.claims.preferences.tempered import drdpo_is_optimistic, kldpo_hidden_rate
from proofs_check.claims.preferences.zero_one import zero_one_groups, zero_one_invariance
from proofs_check.claims.verifiable.comonotone import antitone_is_worst_case, worst_case_is_antitone
from proofs_check.claims.verifiable.groups import group_weights, group_weights_underestimate, maxrl_groups
from proofs_check.claims.verifiable.offsets import easy_prompts_compare, regrets_compare
from proofs_check.claims.verifiable.penalties import utility_is_a_penalty
from proofs_check.claims.verifiable.published import (
    curverl_log_concave,
    difficulty_filter_is_no_worst_case,
    grpo_std_is_no_worst_case,
    riskpo_is_spectral,
)
from proofs_check.claims.verifiable.sampling import sampled_rates_flatten, sampled_rates_flatten_any, split_rates
from proofs_check.claims.verifiable.utilities import maxrl_limit, pass_at_k_is_robust, risk_seeking_is_robust
from proofs_check.claims.verifiable.waste import smooth_sets_waste_less, tv_drains_from_the_top
from proofs_check.claims.verifiable.witnesses import published_weights_are_robust
from proofs_check.formulas import FORMULAS
from proofs_check.proofs import PROOFS

_CLAIMS: tuple[Claim[Any], ...] = (
    # The inner problem
    tv_closed_form(),
    tv_dual(),
    cvar_dual(),
    chi2_dual(),
    kl_dual(),
    danskin(),
    danskin_gradient(),
    robust_convexity(),
    radius_concave(),
    tv_gap(),
    chi2_variance(),
    kl_penalty_gap(),
    ball_nesting(),
    excess_bounds(),
    effective_sample_size_bounds(),
    wasserstein_is_tv(),
    wasserstein_logistic(),
    # The minibatch estimator
    plugin_underestimates(),
    plugin_underestimates_divergences(),
    cvar_bias(),
    cvar_bias_sharp(),
    chi2_bias(),
    chi2_penalty_bias(),
    icdf_bias(),
    tv_bias_split(),
    tv_bias_root_n(),
    tv_capped_bias(),
    tv_floor_bias(),
    bias_layers(),
    mlmc_unbiased(),
    cvar_gradient_variance(),
    tv_gradient_variance_floor(),
    minibatch_is_spectral(),
    minibatch_of_a_batch(),
    batch_size_is_a_radius(),
    microbatch_understates(),
    microbatch_understates_exactly(),
    microbatch_groups(),
    grouped_underestimates(),
    radius_covers(),
    radius_covers_chi_square(),
    # Convergence
    sgd_reward(),
    sgd_dpo(),
    sgd_sampled(),
    sgd_unbiased(),
    subgradient_worst_case(),
    subgradient_optimal(),
    accelerated_gradient(),
    group_dro_online(),
    robust_parameter_rate(),
    robust_parameter_rate_quarter(),
    npg_tabular(),
    npg_tabular_invariance(),
    npg_realizable_invariance(),
    npg_last_iterate(),
    npg_best_iterate(),
    npg_slower(),
    ppo_a_is_b(),
    ppo_a_is_b_whitened(),
    plugin_policy_weights(),
    robust_bellman_contracts(),
    contamination_discount(),
    value_iteration_bracket(),
    pointwise_optimum(),
    pointwise_optimum_mdp(),
    # Preferences
    dpo_identity(),
    bt_mle_rate(),
    bt_mle_slope(),
    bt_mle_coverage(),
    robust_shift_gain(),
    robust_shift_parity(),
    robust_shift_labels(),
    robust_shift_sample(),
    zero_one_invariance(),
    zero_one_groups(),
    separable_margin(),
    coverage_caps_the_radius(),
    noise_eats_radius(),
    rdpo_unbiased(),
    rdpo_robust_unbiased(),
    cdpo_margin(),
    kldpo_hidden_rate(),
    drdpo_is_optimistic(),
    # The collapse radius
    collapse_criterion(),
    collapse_radius_exact(),
    collapse_radius_entropies(),
    collapse_signs(),
    collapse_accuracy(),
    collapse_accuracy_floor(),
    collapse_sample(),
    collapse_sample_null(),
    collapse_sample_estimates(),
    collapse_minibatch(),
    collapse_groups(),
    collapse_groups_vacuous(),
    collapse_groups_noise(),
    collapse_groups_longer(),
    collapse_labels(),
    collapse_regret(),
    # Prompts with verifiable rewards
    antitone_is_worst_case(),
    worst_case_is_antitone(),
    risk_seeking_is_robust(),
    maxrl_limit(),
    pass_at_k_is_robust(),
    utility_is_a_penalty(),
    grpo_std_is_no_worst_case(),
    difficulty_filter_is_no_worst_case(),
    curverl_log_concave(),
    riskpo_is_spectral(),
    published_weights_are_robust(),
    group_weights(),
    group_weights_underestimate(),
    maxrl_groups(),
    sampled_rates_flatten(),
    sampled_rates_flatten_any(),
    split_rates(),
    tv_drains_from_the_top(),
    smooth_sets_waste_less(),
    easy_prompts_compare(),
    regrets_compare(),
)

CLAIMS: tuple[Claim[Any], ...] = tuple(
    replace(claim, formula=FORMULAS.get(claim.label), proof=PROOFS.get(claim.label)) for claim in _CLAIMS
)
