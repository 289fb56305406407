"""The model that trainings with an adversary start from, of the module that has all that goes with it."""

from robust_trainers import start  # noqa: F401
