"""Layouts of tools that train: what LLaMA-Factory, axolotl, argilla, OpenAI and TRL take."""
