"""How the worst case is found: one selection or sort, one scalar root, array namespaces.

Called by the sets and by ``inner`` only.
"""
