"""Groups over the steps of a training, against pandas."""

import numpy as np
import pandas as pd

from llm.statistics.group_curves import GroupWatch


def test_accuracies_are_those_of_the_groups_at_every_look():
    rng = np.random.default_rng(0)
    groups = rng.choice(["b", "a", "c"], 50)
    correct = rng.choice([0.0, 0.5, 1.0], (4, 50))
    watch = GroupWatch(groups)
    for steps, look in zip((3, 6, 9, 12), correct, strict=True):
        watch.look(steps, look)
    expected = pd.DataFrame(correct.T).groupby(groups).mean().T
    found = watch.found
    assert found.groups.tolist() == expected.columns.tolist()
    assert found.steps.tolist() == [3, 6, 9, 12]
    np.testing.assert_allclose(found.accuracy, expected.to_numpy())


def test_without_held_out_pairs_nothing_is_found():
    found = GroupWatch([]).found
    assert found.accuracy.shape == (0, 0)
    assert found.groups.tolist() == []
