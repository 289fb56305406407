"""The robust linear classifier as a scikit-learn estimator; needs the extra ``learn``."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np
import scipy.special as _special  # pyright: ignore[reportMissingTypeStubs]

from .._solvers.arrays import Array
from ..sets.ambiguity import AmbiguitySet
from .bearable import useful_below
from .linear import fit_linear
from .parameters import PREFIX, changed, numbers_of, parsed, with_groups

try:
    import sklearn.base as _base  # pyright: ignore[reportMissingTypeStubs]
    import sklearn.utils.multiclass as _multiclass  # pyright: ignore[reportMissingTypeStubs]
    import sklearn.utils.validation as _validation  # pyright: ignore[reportMissingTypeStubs]
except ImportError as error:
    raise ImportError(
        "RobustPreferenceClassifier needs scikit-learn: pip install 'robust-rlhf[learn]'. "
        "fit_linear and fit_pairs work without it."
    ) from error

special: Any = _special  # neither scipy nor scikit-learn ships type hints
ClassifierMixin: Any = _base.ClassifierMixin
BaseEstimator: Any = _base.BaseEstimator
validation: Any = _validation
multiclass: Any = _multiclass


_SPARSE = ["csr", "csc"]
_CONSTANT = 1e-6  # log odds that differ by less rank nothing


class RobustPreferenceClassifier(ClassifierMixin, BaseEstimator):
    """Logistic regression for the worst reweighting of its examples, for two classes.

        min_{w, b} max_q sum_i q_i log(1 + exp(-y_i (<w, x_i> + b))) + penalty/2 ||w||^2,   q in ``ambiguity``.

    See ``fit_linear`` for the method, its certificate and the penalty; there is nothing random in it. For preference
    pairs take as a row of X the features of the first answer minus those of the second, as y whether the first one
    was preferred, and ``fit_intercept=False``: then ``coef_`` is a linear Bradley-Terry reward.

    Args:
        ambiguity: A set, or its text: ``"tv:0.2"``, ``"cvar:0.3"``, ``"erm"`` for plain logistic regression. Its
            numbers are parameters too: ``ambiguity__radius`` in a grid search.
        penalty: Strength of the squared norm; scikit-learn's C is 1 / (n penalty).
        fit_intercept: Whether to fit b.
        tolerance: The certified gap to reach, relative to the value.

    Attributes:
        classes_: The two labels, sorted; the second one is y = 1.
        coef_: Shape ``(1, d)``.
        intercept_: Shape ``(1,)``.
        value_: The robust objective, in nats.
        gap_: ``value_`` less a proven lower bound of the minimum.
        weights_: Shape ``(n,)``, the adversary's distribution over the examples.
        collapsed_: Whether all examples have the same odds, because the set is larger than they bear: nothing is
            learned.
        n_iter_: Newton steps, shape ``(1,)``.
        n_features_in_: d.
        feature_names_in_: Where X names its columns.

    Example:
        >>> import numpy as np
        >>> from dro_core.learn.classifier import RobustPreferenceClassifier
        >>> features, answers = np.array([[-2.0], [-1.0], [0.5], [3.0]]), ["no", "no", "yes", "yes"]
        >>> model = RobustPreferenceClassifier("tv:0.2", penalty=0.1).fit(features, answers)
        >>> model.predict([[-1.5], [2.0]]).tolist()
        ['no', 'yes']
    """

    def __init__(
        self,
        ambiguity: AmbiguitySet | str | None = "tv:0.2",
        *,
        penalty: float = 1e-3,
        fit_intercept: bool = True,
        tolerance: float = 1e-9,
    ) -> None:
        self.ambiguity = ambiguity
        self.penalty = penalty
        self.fit_intercept = fit_intercept
        self.tolerance = tolerance

    def get_params(self, deep: bool = True) -> dict[str, Any]:  # noqa: FBT001, FBT002 - scikit-learn's signature
        """Return the parameters by name, with the numbers of the set (``ambiguity__radius``) if ``deep``."""
        found: dict[str, Any] = BaseEstimator.get_params(self, deep=deep)
        return found | {PREFIX + name: value for name, value in (numbers_of(self.ambiguity) if deep else {}).items()}

    def set_params(self, **params: Any) -> Self:
        """Set parameters by name; a number of the set changes that number only.

        Raises:
            ValueError: A name that neither the estimator nor the set has, or a number that the set refuses.
        """
        inside = {name: value for name, value in params.items() if name.startswith(PREFIX)}
        BaseEstimator.set_params(self, **{name: value for name, value in params.items() if name not in inside})
        for name, value in inside.items():
            self.ambiguity = changed(self.ambiguity, name.removeprefix(PREFIX), value)
        return self

    def fit(self, X: Array, y: Array, sample_weight: Array | None = None, groups: Any = None) -> Self:
        """Fit to ``X`` ``(n, d)`` and ``y`` ``(n,)``.

        Args:
            X: Features; a sparse matrix is made dense.
            y: Two kinds of labels, of any type. For more classes wrap the estimator in OneVsRestClassifier.
            sample_weight: Shape ``(n,)``, nonnegative; its shares are the reference distribution of the set.
            groups: For a set ``by=COLUMN``, or one around groups of other rows: one label per row, or a mapping from
                names of columns to labels. Other sets do not look at it. Metadata routing brings it through
                pipelines, searches and cross-validation: ``set_fit_request(groups=True)``.

        Returns:
            The estimator itself. A fit that gives all examples the same odds also gives a UserWarning, with the size of
            the set from which on that is so where ``collapse_radius`` tells it.

        Raises:
            ValueError: Not two classes, groups that are missing or of the wrong length, or what ``fit_linear`` and
                ``parse_ambiguity`` refuse.
        """
        given, labels = validation.validate_data(self, X, y, dtype=np.float64, accept_sparse=_SPARSE)
        features = given.toarray() if hasattr(given, "toarray") else given
        multiclass.check_classification_targets(labels)
        weights = validation._check_sample_weight(sample_weight, features, ensure_non_negative=True)
        kind = multiclass.type_of_target(labels, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(
                f"Only binary classification is supported. The type of the target is {kind}. "
                "Wrap the estimator in sklearn.multiclass.OneVsRestClassifier."
            )
        if not weights.sum() > 0:
            raise ValueError("sample_weight must not be all zero; drop it for uniform weights.")
        self.classes_, codes = np.unique(labels, return_inverse=True)
        if np.unique(codes[weights > 0]).size < 2:
            raise ValueError(
                f"y must hold two classes among the examples of positive weight, got one class of {self.classes_!r}; "
                "a classifier has nothing to learn from it."
            )
        ambiguity, reference = with_groups(parsed(self.ambiguity), groups, len(labels)), weights / weights.sum()
        found = fit_linear(
            features,
            codes,
            ambiguity,
            penalty=self.penalty,
            fit_intercept=self.fit_intercept,
            reference=reference,
            tolerance=self.tolerance,
        )
        self.coef_, self.intercept_ = found.coefficients[None], np.array([found.intercept])
        self.value_, self.gap_, self.weights_ = found.value, found.gap, found.weights
        self.n_iter_ = np.array([found.iterations])
        ranks_nothing = np.ptp(features @ found.coefficients) <= _CONSTANT < np.ptp(features, axis=0).max()
        self.collapsed_ = bool(ranks_nothing)
        if ranks_nothing:
            below = None
            if ambiguity is not None:
                rows = np.column_stack([features, np.ones(len(labels))]) if self.fit_intercept else features
                below = useful_below(ambiguity, (2 * codes - 1)[:, None] * rows, reference)
            warnings.warn(self._nothing_learned(below), stacklevel=2)
        return self

    def _nothing_learned(self, below: float | None) -> str:
        said = (
            f"the fit is the constant: some reweighting in {self.ambiguity} makes these labels unpredictable, and "
            "nothing does better against it; take a smaller set"
        )
        return said if below is None else f"{said}, for from size {below:.3g} on nothing is learned from these examples"

    def decision_function(self, X: Array) -> Array:
        """Return <w, x> + b, ``(n,)``: the log odds of the second class."""
        validation.check_is_fitted(self)
        features = validation.validate_data(self, X, dtype=np.float64, accept_sparse=_SPARSE, reset=False)
        return features @ self.coef_[0] + self.intercept_[0]

    def predict(self, X: Array) -> Array:
        """Return the likelier class of every row, ``(n,)``."""
        validation.check_is_fitted(self)
        return self.classes_[(self.decision_function(X) > 0).astype(int)]

    def predict_proba(self, X: Array) -> Array:
        """Return the probability of both classes, ``(n, 2)``: under the worst reweighting, so rather cautious."""
        odds = self.decision_function(X)
        return np.stack([special.expit(-odds), special.expit(odds)], axis=1)

    def __sklearn_tags__(self) -> Any:
        tags = ClassifierMixin.__sklearn_tags__(self)
        tags.classifier_tags.multi_class = False
        tags.input_tags.sparse = True
        return tags
