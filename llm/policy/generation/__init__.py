"""Who writes the answers that a policy learns from: what an engine is, and one that is a server. For ``llm.policy``."""
