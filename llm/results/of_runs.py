"""What ``run.json`` of a whole model says, as the settings of a row of the results table."""

from __future__ import annotations

from importlib.metadata import version

import numpy as np

from ..run.files import JsonObject


def settings_of_run(record: JsonObject) -> dict[str, object]:
    """The columns of a finished run that do not depend on the suite."""
    config = record["config"]
    return {
        "model": config["model"],
        "ambiguity": config["ambiguity"],
        "regime": "all",
        "seed": record["seed"],
        "batch_size": record["effective_batch"],
        "learning_rate": record["learning_rate"],
        "train_pairs": record["data"].get("trained_on"),
        "label_noise": 0.0,
        "steps": record["steps"],
        "seconds": record["seconds"],
        "version": record["environment"].get("robust-rlhf", version("robust-rlhf")),
        "revision": "",
        "status": "done",
        "error": "",
        "effective_sample_size": effective_sample_size(record),
        "acted": None if config["ambiguity"] == "erm" else not record.get("inaction"),
    }


def effective_sample_size(record: JsonObject) -> float:
    """Mean over the last quarter of the steps, from the log in a ``run.json``; nan where it was not logged."""
    name, steps = "effective_sample_size", record["steps"]
    sizes = [(row["step"], row[name]) for row in record["history"] if row.get(name) is not None]
    late = [size for step, size in sizes if step > 0.75 * steps] or [size for _, size in sizes[-1:]]
    return float(np.mean(late)) if late else float("nan")
