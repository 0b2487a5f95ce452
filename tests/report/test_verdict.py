"""The verdict: paired differences, their interval, and the one word, all computed by hand."""

import numpy as np
import pandas as pd
import pytest

from lib.report.verdict import (
    COLUMNS,
    Pair,
    baseline_pairs,
    compare_groups,
    find_baselines,
    gains_over_baseline,
    interval,
    judge,
    overall,
    paired_differences,
)


def make_summary(groups: dict[str, dict[int, float]], split_name: str = "val") -> pd.DataFrame:
    rows = [
        (f"{group}_seed{seed}", group, str(seed), split_name, top1)
        for group, values in groups.items()
        for seed, top1 in values.items()
    ]
    return pd.DataFrame(rows, columns=["run", "group", "seed", "split", "top1"])


def test_interval_by_hand():
    # mean 11, deviations -1, 4, -3: s² = (1 + 16 + 9) / 2 = 13; 4.303 · √(13 / 3) = 8.957
    assert interval([10, 15, 8]) == pytest.approx((2.043, 19.957), abs=1e-3)
    # two seeds: mean 5, s = √2, 12.706 · √2 / √2 = 12.706
    assert interval([4, 6]) == pytest.approx((-7.706, 17.706), abs=1e-3)
    # 31 seeds: mean 0, s² = 30 / 30 = 1; 2.042 / √31 = 0.3668
    assert interval([1, -1] * 15 + [0]) == pytest.approx((-0.3668, 0.3668), abs=1e-4)
    assert np.isnan(interval([7])).all() and np.isnan(interval([])).all()


@pytest.mark.parametrize(
    "differences, verdict",
    [
        ([10, 15, 8], "holds"),
        ([20, 20.5], "holds"),  # 20.25 ± 12.706 · 0.25
        ([4, 6], "not decided"),  # both agree, the interval of two seeds is wide
        ([90], "not decided"),  # one seed never decides
        ([-90], "not decided"),
        ([], "not decided"),
        ([10, 15, 8, 12, 11, 9, 13, -1], "not decided"),  # above 0, but one seed disagrees
        ([10, 15, 8, 12, 11, 9, 13, 0], "not decided"),  # 0 is no agreement
        ([1, 20, 3], "not decided"),  # all agree, 8 ± 4.303 · 6.03
        ([-10, -15, -8], "contradicted"),
        ([-1, -20, -3], "contradicted"),  # three seeds all say the opposite
        ([-4, -6], "not decided"),  # two do not
        ([-20, -20.5], "contradicted"),  # but their interval may
        ([-10, -15, -8, -12, -11, -9, -13, 1], "contradicted"),
        ([0, 0, 0], "not decided"),
    ],
)
def test_the_word_for_differences(differences, verdict):
    assert judge(differences) == verdict


def test_differences_are_of_the_same_seed():
    summary = make_summary({"semi": {0: 60, 1: 70, 3: 10}, "base": {1: 55, 0: 50, 2: 99}})
    values = paired_differences(summary, Pair("semi", "base", "val"))
    assert values.to_dict() == {"0": 10, "1": 15}
    assert paired_differences(summary, Pair("semi", "base", "other")).empty
    assert paired_differences(summary, Pair("semi", "absent", "val")).empty


def test_a_row_a_question():
    summary = make_summary({"semi": {0: 60, 1: 70, 2: 68}, "base": {0: 50, 1: 55, 2: 60}})
    table = compare_groups(summary, [Pair("semi", "base", "val"), Pair("semi", "no", "val")])
    assert list(table.columns) == COLUMNS
    assert table.iloc[0].tolist() == ["semi", "base", "val", 0, 3, 3, 11, 2.043, 19.957, "holds"]
    assert table.iloc[1]["seeds"] == 0 and np.isnan(table.iloc[1]["difference"])
    assert table.iloc[1]["verdict"] == "not decided"
    assert compare_groups(summary, []).empty


def test_a_margin_is_what_a_difference_must_exceed():
    summary = make_summary({"semi": {0: 60, 1: 70, 2: 68}, "base": {0: 50, 1: 55, 2: 60}})
    asked = [Pair("semi", "base", "val", margin) for margin in (2, 9)]
    asked += [Pair("base", "semi", "val", margin) for margin in (-20, 0)]
    table = compare_groups(summary, asked)
    assert table["difference"].tolist() == [11, 11, -11, -11]
    assert table["agree"].tolist() == [3, 2, 3, 0]
    assert table["verdict"].tolist() == ["holds", "not decided", "holds", "contradicted"]


def test_all_questions_must_hold():
    assert overall(["holds", "holds"]) == "holds"
    assert overall(["holds", "not decided"]) == "not decided"
    assert overall(["holds", "not decided", "contradicted"]) == "contradicted"
    assert overall([]) == "not decided"


GROUPS = [  # group, objective, view, labels, model
    ("semi_5", "fixmatch", "weak", 5, "a"),
    ("semi_10", "fixmatch", "weak", 10, "a"),
    ("semi_20", "fixmatch", "weak", 20, "a"),
    ("semi_10_r3d", "fixmatch", "weak", 10, "b"),
    ("strong_10", "supervised", "strong", 10, "a"),
    ("supervised_10", "supervised", "weak", 10, "a"),
    ("supervised_5", "supervised", "weak", 5, "a"),
]


@pytest.fixture
def groups() -> pd.DataFrame:
    table = pd.DataFrame(GROUPS, columns=["group", "objective", "view", "labels", "model"])
    return pd.concat([table.assign(split="val"), table.assign(split="other")])


def test_a_baseline_is_supervised_weak_and_has_the_same_labels_and_network(groups):
    found = find_baselines(groups)
    assert found == {
        "semi_5": "supervised_5",
        "semi_10": "supervised_10",
        "strong_10": "supervised_10",
    }
    assert baseline_pairs(groups, {"semi_5": "supervised_5"}) == [
        Pair("semi_5", "supervised_5", "val"),
        Pair("semi_5", "supervised_5", "other"),
    ]


def test_a_named_baseline_is_that_of_all(groups):
    found = find_baselines(groups, "semi_20")
    assert set(found.values()) == {"semi_20"} and len(found) == len(GROUPS) - 1
    with pytest.raises(ValueError, match="baseline: 'semi' is none of the groups semi_5, "):
        find_baselines(groups, "semi")


def test_gains_are_over_the_baseline_of_the_claims_with_a_margin():
    light = make_summary(
        {"none": {0: 50, 1: 54}, "a": {0: 62, 1: 68}, "b": {0: 50, 1: 50}}, "light"
    )
    time = make_summary({"none": {0: 80, 1: 80}, "a": {0: 70, 1: 72}, "b": {0: 95, 1: 97}}, "time")
    summary = pd.concat([light, time])
    asked = [Pair("a", "none", "light", 10.0), Pair("b", "a", "time", -3.0)]
    gains = gains_over_baseline(summary, asked)
    assert gains[["better", "worse", "split", "margin", "difference"]].values.tolist() == [
        ["a", "none", "light", 10.0, 13.0],
        ["a", "none", "time", 0.0, -9.0],
        ["b", "none", "light", 0.0, -2.0],
        ["b", "none", "time", 0.0, 16.0],
    ]
    assert gains_over_baseline(summary, [Pair("a", "none", "light")]).empty
