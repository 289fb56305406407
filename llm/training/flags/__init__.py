"""What ``train`` takes: our settings and those of transformers, told and checked before either is loaded."""
