"""Problems with known answers: preference data and minibatch biases that are exact, not simulated."""

from synthetic.biases.bias import plugin_bias, plugin_value, sample_counts
from synthetic.estimate import Estimate, mean_estimate
from synthetic.pairs.preferences import LinearBradleyTerry, Preferences

__all__ = [
    "Estimate",
    "LinearBradleyTerry",
    "Preferences",
    "mean_estimate",
    "plugin_bias",
    "plugin_value",
    "sample_counts",
]
