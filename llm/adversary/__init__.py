"""Who gets the weight: rules, geometry, schedule, the effective batch and its ledger.

Called by every trainer.
"""
