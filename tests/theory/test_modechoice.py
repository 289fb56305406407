import numpy as np
import pytest
import statsmodels.api as sm
from statsmodels.datasets import modechoice

from dro_core import TotalVariation
from synthetic.pairs.modechoice import MODES, load_mode_choice
from synthetic.pairs.preferences import fit_preferences
from synthetic.pairs.shifts import group_shift


@pytest.mark.parametrize("constants", [True, False])
def test_the_fit_agrees_with_statsmodels(constants):
    choice = load_mode_choice(mode_constants=constants)
    ours = fit_preferences(choice.pairs, tolerance=1e-13)
    theirs = sm.Logit(np.maximum(choice.pairs.labels, 0), choice.pairs.differences).fit(disp=0, tol=1e-12)
    assert ours.coefficients == pytest.approx(theirs.params, abs=1e-5)
    assert ours.value == pytest.approx(-theirs.llf / 630, abs=1e-10)


def test_pairs_are_the_chosen_mode_against_each_other_one():
    table = modechoice.load_pandas().data
    choice = load_mode_choice(("ttme",), mode_constants=False)
    deviation = table["ttme"].std(ddof=0)
    row = 0
    for traveller, rows in table.groupby("individual"):
        chosen = int(rows.loc[rows["choice"] == 1, "mode"].iloc[0])
        for other in [m for m in range(1, 5) if m != chosen]:
            waits = rows.set_index("mode")["ttme"]
            preferred = choice.pairs.labels[row] * choice.pairs.differences[row, 0]
            assert preferred == pytest.approx((waits[chosen] - waits[other]) / deviation)
            assert choice.pairs.labels[row] == (1 if chosen < other else -1)
            assert choice.travellers[row] == int(traveller) - 1
            assert choice.chosen[row] == chosen - 1
            row += 1
    assert row == 630


def test_three_pairs_a_traveller_make_naive_errors_too_small():
    choice = load_mode_choice()
    model = sm.Logit(np.maximum(choice.pairs.labels, 0), choice.pairs.differences)
    naive, robust = model.fit(disp=0), model.fit(disp=0, cov_type="cluster", cov_kwds={"groups": choice.travellers})
    assert (robust.bse / naive.bse > 1.4).all()


def test_groups_are_those_of_the_table_and_serve_for_shifts():
    table = modechoice.load_pandas().data.iloc[::4]
    choice = load_mode_choice()
    assert choice.columns[-3:] == MODES[:3]
    for group in range(3):
        incomes = table["hinc"].to_numpy()[choice.income[::3] == group]
        assert 50 <= len(incomes) <= 90
        if group < 2:
            assert incomes.max() < table["hinc"].to_numpy()[choice.income[::3] == group + 1].min()
    assert (choice.party[::3] == np.clip(table["psize"], 1, 3) - 1).all()
    population = choice.population()
    w = fit_preferences(choice.pairs).coefficients
    assert population.mean_loss(w) == pytest.approx(population.losses(w, choice.pairs).mean())
    shift = group_shift(population, choice.income, [1 / 3, 1 / 3, 1 / 3])
    worst = population.worst_case(w, population.by_prompt(TotalVariation(shift.total_variation), choice.income))
    assert shift.test.mean_loss(w) <= float(worst.value) + 1e-12


@pytest.mark.parametrize("attributes", [(), ("speed",)])
def test_unknown_attributes_are_explained(attributes):
    with pytest.raises(ValueError, match="some of ttme, invc, invt, gc"):
        load_mode_choice(attributes)
