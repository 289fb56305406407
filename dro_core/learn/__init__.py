"""Robust models on fixed features and first-order methods. Called through ``dro_core``; needs scipy."""
