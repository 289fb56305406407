"""Small sweeps to run, to disturb and to compare."""

import json

import forked  # noqa: F401  it says what the server imports
import numpy as np

from dro_core.clusters.pool import Pool
from llm.features.features import FeatureCache
from llm.results.store import read_results
from llm.results.training_records import read_arrays
from llm.sweep.plan import parse_sweep
from llm.sweep.sweep import Sweep
from robust_rlhf import main

SETTINGS = {
    "data": "builtin",
    "builtin": {"train": 160, "test": 40},
    "models": {"tiny": {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 2, "batch_size": 16}},
    "regimes": {"noisy": {"label_noise": 0.25}, "no-code": {"without_sources": "code"}, "few": {"max_pairs": 50}},
    "grid": [
        {
            "ambiguity": ["erm", "tv:{radius}"],
            "radius": [0.2],
            "regime": ["all", "noisy", "no-code", "few"],
            "seeds": 2,
        },
        {"ambiguity": ["chi2:?@tv:0.2", "mmd:0.1", "adaptive:tv:0.4"]},
        {"ambiguity": "erm", "batch_size": 4000},
    ],
}

# To be disturbed: heads that take half a second each, and a whole model.
DATA = {"data": "builtin", "builtin": {"train": 120, "test": 30}}
TINY = {"kind": "head", "model": "tiny", "max_length": 32, "epochs": 200, "batch_size": 16}
HEADS = {**DATA, "models": {"tiny": TINY}, "grid": {"ambiguity": ["erm", "tv:0.2"], "seeds": 4}}
WHOLE = {
    **DATA,
    "models": {
        "whole": {
            "kind": "full", "recipe": "reward-tiny", "max_length": 32, "use_cpu": True, "final": ["last", "average"],
            "per_device_train_batch_size": 8, "save_steps": 4, "logging_steps": 2,
        }
    },
    "grid": {"ambiguity": "tv:0.25"},
}  # fmt: skip
KINDS = {"heads": HEADS, "whole models": WHOLE}


def quiet(*_):
    pass


def prepared(folder, settings, cache=None):
    """A sweep to be run; its features are kept beside its folder if not told otherwise."""
    kept = FeatureCache(cache or folder.parent / "cache")
    return Sweep(parse_sweep(settings), json.dumps(settings), folder, cache=kept)


def swept(folder, cache, *, settings=SETTINGS, jobs=1):
    sweep = prepared(folder, settings, cache)
    return sweep, sweep.run(pool=Pool(jobs=jobs), report=quiet)


def sweep(folder, settings, *flags, jobs=2):
    """The command, in this process."""
    file = folder.parent / f"{folder.name}.yaml"
    file.write_text(json.dumps(settings))
    cache = folder.parent / "cache"
    arguments = ["--config", file, "--output", folder, "--cache", cache, "--jobs", jobs, *flags]
    return main(["sweep", *map(str, arguments)])


def undisturbed(once, kind):
    """A finished sweep that nothing happened to."""
    name = f"sweep of {kind}"
    return once(name, lambda place: prepared(place / "r", KINDS[kind]).run(pool=Pool(jobs=1), report=quiet)) / "r"


def store(folder):
    """All that a sweep leaves and says of its results; how long it took is not among it."""
    table = read_results(folder).table.drop(columns="seconds")
    arrays = {file.name: read_arrays(file) for file in sorted(folder.glob("*/*.npz"))}
    files = [*folder.glob("suites/*.parquet"), *folder.glob("data/*"), folder / "train.parquet"]
    return table, arrays, {file.name: file.read_bytes() for file in files}


def assert_same(folder, other):
    (table, arrays, files), (others_table, others_arrays, others_files) = store(folder), store(other)
    assert table.equals(others_table)
    assert arrays.keys() == others_arrays.keys()
    for name, stored in arrays.items():
        for key, values in stored.items():
            np.testing.assert_array_equal(values, others_arrays[name][key])  # nan equals nan, names equal names
    assert files == others_files
