"""Files written whole, run folders, and what stays true of them: locks, manifests, records.

Anyone may call; nothing here knows models or data.
"""
