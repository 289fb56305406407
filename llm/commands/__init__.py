"""The commands of the llm floor, one file each; heavy modules are imported inside the command that needs them.

Called by the front door only.
"""
