"""The results folder of a sweep: what stands where, and what a reader should know before believing it."""
