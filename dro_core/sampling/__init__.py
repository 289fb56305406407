"""What a sample says about the population: estimators, bounds, radii. Called through ``dro_core``."""
