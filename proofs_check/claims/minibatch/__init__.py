"""Claims about worst cases of minibatches: bias, variance, gradients."""
