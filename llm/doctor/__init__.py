"""What is wrong with a training run, from its folder alone.

Called by the command; needs neither torch nor the model.
"""
