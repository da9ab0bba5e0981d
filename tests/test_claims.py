"""Claims as data: every expression evaluates, values are those computed by hand, and the verdict follows the rule."""

import math
import shlex
from collections import Counter
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from studylib import cli, grids, papers, values
from studylib.config import scale
from studylib.errors import InputError
from studylib.report import claims, statistics
from studylib.study import COLUMNS

MEASURES = {
    "linear_top1": ["linear"],
    "knn_top1": ["knn"],
    "phi": ["squared", "squared, l2-normalised", "not squared"],
    "mixtureness": ["k=1", "k=5"],
    "redundancy": ["with the diagonal"],
    "effective_rank": ["centred", "not centred"],
    "frechet_per_variance": ["to the pre-training set"],
    "modes_ari": ["case", "face"],
    "intra_class_distance": ["l2-normalised"],
    "sparsity": ["share"],
    "coding_length": ["per image"],
    "detection_ap": ["boxes"],
} | {
    f"{name}_fine_tune{kind}_{what}": ["tuned"]
    for name in ("memory", "linear")
    for kind in ("", "_frozen")
    for what in ("top1", "seconds")
}


def row(variant, seed, dataset, measure, value, protocol="p", *, layer="stage5", split="test", epoch=8):
    fixed = {
        "scale": "quick",
        "method": variant.split()[0],
        "variant": variant,
        "run": f"{variant}-{seed}",
        "seed": seed,
        "epoch": epoch,
    }
    return fixed | {
        "dataset": dataset,
        "layer": layer,
        "split": split,
        "protocol": protocol,
        "measure": measure,
        "value": value,
    }


def table(rows) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


@cache
def of_grid(grid, name="quick") -> pd.DataFrame:
    """Results of a grid, with every measure that a test reads, at two layers and two moments; not to be changed in place."""
    content, random = scale(name), np.random.default_rng(0)
    sets = dict.fromkeys([content.upstream, *content.unseen, *content.domains, *content.modes.hidden])
    rows = []
    for job in grids.GRIDS[grid](name, 3):
        v, s, epochs = job.variant, job.config.seed, job.config.optimisation.epochs
        cost = row(v, s, content.upstream, "fastest_epoch", random.uniform(1, 2), "", layer="", split="train")
        rows.append(cost | {"epoch": epochs})
        rows.append(row(v, s, content.upstream, "train_linear_top1", 97.0, split="train", epoch=epochs))
        for measure, protocols in MEASURES.items():
            names = [content.upstream] if measure == "modes_ari" else [content.detection] if "_ap" in measure else sets
            least = {d: 76 if (measure, d) == ("linear_top1", content.upstream) else 20 for d in names}  # all have learned
            rows += [
                row(v, s, d, measure, random.uniform(least[d], 80), protocol, layer=layer, epoch=epoch)
                for d in names
                for protocol in protocols
                for layer in ("stage4", "stage5")
                for epoch in (epochs // 2, epochs)
            ]
    return table(rows)


@cache
def judged(*names, at="quick", of=tuple(claims.PAPERS)) -> pd.DataFrame:
    """What the results of the grids ``names`` say of the claims of the papers ``of``; not to be changed in place."""
    return claims.judge({grid: of_grid(grid, at) for grid in names}, at, of)


def only(test, frame, name="quick"):
    """(value, low, high, n) of a test."""
    return claims.measure({"claimed": "> 0"} | test, claims.prepared(frame), scale(name))[:4]


def test_every_claim_of_the_papers_is_here():
    known = {paper: list(papers.load(paper)["claims"]) for paper in claims.PAPERS}
    assert known == {
        "look": [f"L{i}" for i in range(1, 9)],
        "sl_mlp": [f"S{i}" for i in range(1, 12)],
        "trex": [f"T{i}" for i in range(1, 10)],
    }


@pytest.mark.slow
def test_every_expression_evaluates_to_a_value_and_a_verdict():
    found = judged(*grids.GRIDS)
    assert list(found.columns) == claims.COLUMNS
    missing = found[found.reading == "not run"]
    assert list(missing.claim) == ["T8"]  # a claim about weights that others trained
    rest = found.drop(missing.index)
    assert rest.estimate.notna().all()
    seeds = rest[rest.over == "seeds"]
    assert set(seeds.n) == {3} and seeds.low.notna().all()
    assert (rest[rest.over == "variants"].n > 5).all()
    assert set(rest.reading) <= {"supported", "contradicted", "undecided"}
    assert rest.p.between(0, 1).all() and rest.gate.str.startswith("SL 97.0 %").all()
    assert rest.groupby("claim")[["verdict", "p_claim"]].nunique(dropna=False).eq(1).all(axis=None)


@pytest.mark.parametrize("claim", [name for paper in claims.PAPERS for name in papers.load(paper)["claims"] if name != "T8"])
def test_a_claim_says_what_would_tell_where_results_contradict_it(claim):
    entry = claims.entries()[claim]
    assert entry["why"] and not entry["why"].endswith(".")
    command = shlex.split(entry["tell"].format(scale="quick", longer=40))
    assert command[:2] == ["studylib", "grid"]
    given = cli.studylib.commands["grid"].make_context("grid", command[2:]).params  # refuses what the command line would
    overrides = values.assignments(given["parameters"])
    (name,) = given["names"]
    jobs = grids.GRIDS[name](given["scale"], given["seeds"], overrides)
    assert len({job.config.seed for job in jobs}) == 5
    longest = max(job.config.optimisation.epochs for job in jobs)
    assert longest >= 40 if overrides else longest == 200 or name == "trex_memory"


def test_the_discussion_is_of_claims_that_are_contradicted_and_names_other_tests_apart():
    found = judged("comparison", of=("sl_mlp",)).assign(reading="supported", verdict="supported")
    assert claims.discussion(found) == "Nothing that was run contradicts the papers."
    found.loc[found.claim == "S2", "verdict"] = "contradicted"
    found.loc[(found.claim == "S2") | ((found.claim == "S8") & (found.test == 2)), "reading"] = "contradicted"
    first, _, rest = claims.discussion(found).splitlines()
    assert first.startswith(
        "- **S2**, an MLP projector raises supervised transfer to diverse domains. `quick`: linear top-1 on "
    )
    assert "kNN" not in first and "S2, kNN top-1 on other domains, %: " in rest and "S8, R, unseen classes: " in rest
    epochs = 4 * scale("quick").common["optimisation.epochs"]
    assert first.endswith(f"`studylib grid comparison --scale quick --seeds 5 -p optimisation.epochs={epochs}`.")
    assert len(claims.discussion(pd.concat([found, found.assign(scale="small")])).splitlines()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smoke", "quick", "small_cpu", "small", "paper"])
def test_every_variant_that_a_claim_compares_is_a_row_of_its_grid(name):
    content = scale(name)
    rows = {grid: {job.variant for job in jobs(name, 1)} for grid, jobs in grids.GRIDS.items()}
    for paper in claims.PAPERS:
        for entry in papers.load(paper)["claims"].values():
            for test in entry["tests"]:
                if test["grid"] == "modes" and not content.modes.hidden:
                    continue  # this scale hides no labels
                for column in claims.names_in(claims.compared(test, content)):
                    assert any(f"{column} ".startswith(f"{row} ") for row in rows[test["grid"]]), (test["say"], column)


def test_nothing_is_not_run_and_says_what_would():
    found = claims.judge({grid: table([]) for grid in grids.GRIDS}, "small_cpu")
    assert set(found.reading) == set(found.verdict) == {"not run"}
    commands = found.set_index(["claim", "test"]).command
    assert commands["S1", 1] == "studylib grid comparison --scale small_cpu"
    assert commands["S11", 1] == "studylib grid components --scale small_cpu --seeds 5"  # that scale has no seeds for it
    assert commands["T3", 1] == "studylib grid trex_buildup --scale small_cpu --seeds 5"
    assert commands["T8", 1].startswith("studylib evaluate --encoder")
    assert "studylib grid" in claims.shown(found)["Reading"].iloc[0]


def test_only_grids_with_results_are_judged():
    found = claims.judge({"comparison": table([])}, "quick", ["sl_mlp"])
    assert set(found.grid.dropna()) == {"comparison"}
    assert list(dict.fromkeys(found.claim)) == ["S1", "S2", "S4", "S6", "S7", "S8", "S9"]


DIFFERENCE = {"rows": "measure == 'linear_top1' and dataset in @unseen", "compare": "b - a"}


def differing(values, datasets=("glyphs_greek", "glyphs_cyrillic")):
    """Variants a and b; ``values``: of b in each seed, those of a are 50 and both are 2 higher on the second set."""
    return table(
        row(variant, seed, dataset, "linear_top1", value + 2 * i)
        for seed, b in enumerate(values)
        for variant, value in (("a", 50.0), ("b", b))
        for i, dataset in enumerate(datasets)
    )


def test_a_difference_is_paired_over_seeds_and_averaged_over_data_sets():
    mean, low, high, n = only(DIFFERENCE, differing([51.0, 52.0, 53.0]))
    half = stats.t.ppf(0.975, 2) * 1.0 / math.sqrt(3)
    assert (mean, low, high, n) == pytest.approx((2.0, 2 - half, 2 + half, 3))


def test_log_odds_are_averaged_instead_of_accuracies():
    mean, *_ = only(DIFFERENCE | {"log_odds": True}, differing([60.0, 60.0]))
    by_hand = np.mean([math.log(x / (1 - x)) - math.log(y / (1 - y)) for x, y in ((0.6, 0.5), (0.62, 0.52))])
    assert mean == pytest.approx(by_hand)


@pytest.mark.parametrize(
    ("values", "claimed", "verdict"),
    [
        ([51, 52, 53], "> 0", "undecided"),  # 2 ± 2.48
        ([52, 52.1, 52.2], "> 0", "supported"),
        ([52, 52.1, 52.2], "< 0", "contradicted"),
        ([50, 50, 50], "> 0", "undecided"),  # a tie
        ([50, 50, 50], "> -2", "supported"),  # not worse by more than 2
        ([48, 48, 48], "> -2", "undecided"),  # on the bound
        ([47, 47.1, 47.2], "> -2", "contradicted"),
        ([60], "> 0", "undecided"),  # one seed has no interval
        ([], "> 0", "not run"),
    ],
)
def test_the_verdict_follows_the_interval(values, claimed, verdict):
    assert statistics.judged(*only(DIFFERENCE, differing(values)), claimed) == verdict


@pytest.mark.parametrize("claimed", ["more", ">0", ">= 0", "> x", ""])
def test_what_is_claimed_must_be_a_bound(claimed):
    with pytest.raises(InputError, match="claimed"):
        statistics.judged(1.0, 0.5, 1.5, 3, claimed)


def test_a_run_that_lacks_a_data_set_and_a_seed_without_a_partner_are_left_out():
    frame = differing([51.0, 52.0, 53.0, 54.0])
    frame = frame[~((frame.seed == 1) & (frame.variant == "a") & (frame.dataset == "glyphs_cyrillic"))]
    frame = frame[~((frame.seed == 3) & (frame.variant == "b"))]
    mean, *_, n = only(DIFFERENCE, frame)
    assert (mean, n) == (2.0, 2)


def test_a_missing_variant_is_not_run():
    frame = differing([51.0, 52.0])
    assert only(DIFFERENCE, frame[frame.variant == "a"])[3] == 0
    assert only(DIFFERENCE, frame[frame.dataset == "nothing"])[3] == 0


def test_two_values_for_one_run_are_refused():
    frame = differing([51.0, 52.0])
    with pytest.raises(InputError, match="mixed"):
        only(DIFFERENCE, pd.concat([frame, frame.assign(protocol="another", value=1.0)]))


def test_training_images_other_layers_and_earlier_epochs_do_not_enter():
    frame = differing([51.0, 52.0])
    other = [frame.assign(split="train"), frame.assign(layer="stage4"), frame.assign(epoch=4)]
    others = pd.concat([part.assign(value=0.0) for part in other])
    assert only(DIFFERENCE, pd.concat([frame, others])) == only(DIFFERENCE, frame)


def test_layers_and_moments_can_be_compared():
    staged = {"rows": "measure == 'linear_top1' and layer in ('stage4', 'stage5')", "columns": ["variant", "layer"]}
    frame = pd.concat([differing([60.0, 60.0]), differing([55.0, 55.0]).assign(layer="stage4")])
    assert only(staged | {"compare": "`b stage5` - `b stage4`"}, frame)[0] == 5.0
    moments = {"rows": "measure == 'linear_top1' and moment in ('end', 'before')", "columns": ["variant", "moment"]}
    frame = pd.concat(
        [differing([60.0, 60.0]), differing([57.0, 57.0]).assign(epoch=4), differing([20.0, 20.0]).assign(epoch=1)]
    )
    monitored = frame.assign(measure="monitor_knn_top1", epoch=6)  # no snapshot
    assert only(moments | {"compare": "`b end` - `b before`"}, pd.concat([frame, monitored]))[0] == 3.0


def test_a_correlation_is_over_variants():
    random = np.random.default_rng(0)
    accuracies = random.uniform(20, 80, 8)
    measure = -accuracies + 5 * random.normal(size=8)
    frame = table(
        row(f"v{i}", seed, dataset, name, value + 0.01 * seed)
        for i in range(8)
        for seed in range(3)
        for dataset, name, value in (
            ("glyphs", "sparsity", measure[i]),
            ("glyphs_greek", "linear_top1", accuracies[i]),
            ("glyphs", "linear_top1", 80.0),
        )
    )
    frame = pd.concat([frame, table([row("sl", 0, "glyphs", "linear_top1", 80.0)])])
    test = {"rows": "measure == 'sparsity' and dataset == @upstream"}
    rho, low, high, n = only(test | {"correlate": "measure == 'linear_top1' and dataset in @unseen"}, frame)
    assert rho == pytest.approx(stats.spearmanr(measure, accuracies).statistic) and n == 8
    assert low == rho == high  # all seeds have the same order


def test_rank_correlation_by_hand_and_without_enough():
    assert statistics.rank_correlation([1, 2, 3], [3, 1, 2])[0] == pytest.approx(-0.5)
    assert math.isnan(statistics.rank_correlation([1, 2, 3, 4], [1, 2, 3, 4])[1])  # no interval below 5
    assert math.isnan(statistics.rank_correlation([1, 1, 1, 1, 1], [1, 2, 3, 4, 5])[0])
    assert statistics.rank_correlation([], [])[3] == 0
    random = np.random.default_rng(0)
    x = [*random.normal(size=14), math.nan, 2.0, 2.0]  # with a tie
    y = [value + random.normal() for value in x[:14]] + [5.0, 1.0, 3.0]
    rho, low, high, n = statistics.rank_correlation(x, y)
    kept = [(a, b) for a, b in zip(x, y, strict=True) if not math.isnan(a)]
    assert rho == pytest.approx(stats.spearmanr(*zip(*kept, strict=True)).statistic) and n == 16
    z, error = math.atanh(rho), math.sqrt((1 + rho**2 / 2) / 13)
    assert (low, high) == pytest.approx((math.tanh(z - 1.959964 * error), math.tanh(z + 1.959964 * error)))


def test_a_perfect_order_of_few_is_not_proven():
    rho, low, high, n = statistics.rank_correlation(range(6), range(6))
    assert (rho, high, n) == (1.0, 1.0, 6) and 0.5 < low < 0.7
    assert statistics.rank_correlation(range(6), range(6, 0, -1))[:3] == pytest.approx((-1.0, -1.0, -low))
    assert statistics.rank_correlation(range(40), range(40))[1] > 0.99


def test_the_interval_of_a_rank_correlation_holds_the_true_one_about_as_often_as_it_says():
    random = np.random.default_rng(0)
    true = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of a Gaussian pair with correlation 0.6
    held = 0
    for _ in range(400):
        x = random.normal(size=12)
        _, low, high, _ = statistics.rank_correlation(x, 0.6 * x + 0.8 * random.normal(size=12))
        held += low <= true <= high
    assert 0.91 < held / 400 < 0.99


@pytest.mark.parametrize("expression", ["__import__('os')", "a; b", "", "1 + 2", "a[0]"])
def test_an_expression_that_is_not_arithmetic_is_refused(expression):
    with pytest.raises(InputError, match="compare"):
        claims.arithmetic(expression, pd.DataFrame({"a": [1.0], "b": [2.0]}))


def test_arithmetic_over_columns_with_signs_and_blanks():
    values = pd.DataFrame({"+ OCM": [3.0, 4.0], "sl": [1.0, math.nan]})
    assert claims.arithmetic("(`+ OCM` - sl) / 2", values)[0] == 1.0
    assert math.isnan(claims.arithmetic("`+ OCM` - sl", values)[1])
    assert claims.arithmetic("`+ OCM` - sl_mlp", values) == []


def test_tables_for_readers():
    found = judged("comparison", of=("sl_mlp",))
    text = claims.shown(found)
    assert list(text["Claim"])[:3] == ["S1", "S1", "S2"]
    assert text["Published"].iloc[0] == "+7.2 % top-1, ImageNet"
    assert "(n = 3)" in text["Ours"].iloc[0]
    assert len(claims.decisive(found)) == 7
    assert claims.sentences(found).splitlines()[0].startswith("S1, primary test, ")


NONE = (math.nan, math.nan)


def a_part(reading, test=1, claim="S1", p=(0.5, 0.5)) -> dict:
    """A primary test, and its p for and against."""
    one = {"claim": claim, "test": test, "role": "primary", "reading": reading, "over": "seeds", "n": 5, "claimed": "> 0"}
    return one | {"estimate": 1.0, "low": -1.0, "high": 3.0, "note": "", "gate": "", "p": p}


def verdicts_on(*rows, parts=()) -> dict[str, tuple[str, float]]:
    counts = Counter(row["claim"] for row in rows) | dict(parts)
    rows = claims.decided(list(rows), {(row["claim"], row["test"]): row["p"] for row in rows}, counts)
    return {row["claim"]: (row["verdict"], row["p_claim"]) for row in rows}


@pytest.mark.parametrize(
    ("parts", "verdict", "p"),
    [
        ([("supported", 0.01, 0.99)], "supported", 0.02),
        ([("supported", 0.01, 0.99), ("supported", 0.02, 0.98)], "supported", 0.04),
        ([("supported", 0.01, 0.99), ("undecided", 0.04, 0.96)], "undecided", 0.08),
        ([("supported", 0.001, 0.999), ("contradicted", 0.99, 0.01)], "contradicted", 0.04),
        ([("supported", 0.001, 0.999), ("contradicted", 0.98, 0.02)], "undecided", 0.08),
        ([("supported", 0.001, 0.999), ("not run", *NONE)], "not run", 1.0),
        ([("contradicted", 0.999, 0.001), ("not run", *NONE)], "contradicted", 0.004),
        ([("supported", 0.001, 0.999), ("not trained enough", *NONE)], "not trained enough", 1.0),
        ([("contradicted", 0.999, 0.001), ("not trained enough", *NONE)], "contradicted", 0.004),
        ([("not run", *NONE)], "not run", math.nan),
        ([("supported", *NONE)], "undecided", math.nan),  # of too few seeds
    ],
)
def test_a_claim_of_several_parts_is_supported_by_all_and_contradicted_by_one(parts, verdict, p):
    rows = [a_part(reading, number, p=values) for number, (reading, *values) in enumerate(parts, 1)]
    told, corrected = verdicts_on(*rows)["S1"]
    assert told == verdict and corrected == pytest.approx(p, nan_ok=True)


def test_a_part_without_a_row_counts():
    one = a_part("supported", p=(0.001, 0.999))
    assert verdicts_on(one, parts={"S1": 2}) == {"S1": ("not run", 1.0)}
    against = a_part("contradicted", p=(0.999, 0.001))
    assert verdicts_on(against, parts={"S1": 3}) == {"S1": ("contradicted", pytest.approx(0.006))}


def test_the_claims_of_a_paper_are_corrected_together():
    parts = [a_part("supported", claim=f"S{i}", p=(p, 1 - p)) for i, p in enumerate((0.004, 0.015, 0.005))]
    found = verdicts_on(*parts, a_part("not run", claim="S9", p=NONE))
    assert found["S0"] == ("supported", pytest.approx(0.024)) and found["S1"] == ("supported", pytest.approx(0.03))
    assert found["S2"] == ("supported", pytest.approx(0.024)) and found["S9"][0] == "not run"
    many = [a_part("supported", claim=f"S{i}", p=(0.004, 0.996)) for i in range(8)]
    assert {verdict for verdict, _ in verdicts_on(*many).values()} == {"undecided"}  # 8 x 0.008


def test_an_undecided_test_says_what_its_seeds_could_have_seen():
    spread = 2 * math.sqrt(5) / stats.t.ppf(0.975, 4)

    def seen(level):
        return (stats.t.ppf(1 - level / 2, 4) + stats.t.ppf(0.8, 4)) * spread / math.sqrt(5)

    for estimate, level in ((1.0, 0.05), (-1.0, 0.025)):  # what speaks against a claim of two parts is corrected for both
        rows = [a_part("undecided") | {"estimate": estimate, "low": estimate - 2, "high": estimate + 2}, a_part("supported", 2)]
        first, second = claims.decided(rows, {("S1", 1): (0.1, 0.9), ("S1", 2): (0.001, 0.999)}, {"S1": 2})
        assert first["verdict"] == "undecided" and second["note"] == ""
        assert first["note"].startswith(f"n = 5 would have seen {seen(level):.2g} from the bound; this value needs")
    assert statistics.pairs_needed(seen(0.05), spread, 0.05, 4, 12) == 5
    assert statistics.pairs_needed(seen(0.05), spread, 0.05, 5, 12) == 6  # more than there are
    assert statistics.pairs_needed(seen(0.05) / 9, spread, 0.05, 4, 12) == 0


def test_which_tests_are_parts_is_in_the_data():
    found = judged(*grids.GRIDS).set_index(["claim", "test"]).role
    assert set(found["L5"]) == {"primary"} and list(found["S1"]) == ["primary", "secondary"]
    assert list(found["S4"]) == ["primary"] * 2 and list(found["T8"]) == ["primary"]


def with_upstream(frame, accuracies, training=97.0) -> pd.DataFrame:
    """``frame`` with linear accuracies upstream by variant, 80 % where none is given, and SL's on training images."""
    learned = (frame.measure == "linear_top1") & (frame.dataset == scale("quick").upstream) & (frame.layer == "stage5")
    frame = frame.assign(value=frame.value.where(~learned, frame.variant.map(accuracies).fillna(80.0)))
    return frame.assign(value=frame.value.where(frame.measure != "train_linear_top1", training))


def test_networks_that_have_learned_little_decide_nothing():
    whole = of_grid("methods")
    for share, counts in ((0.95, True), (0.85, False)):
        frame = with_upstream(whole, {"dino": 80 * share})
        found = claims.judge({"methods": frame}, "quick", ["trex"]).set_index(["claim", "test"])
        told = found.loc["T4", 1]
        assert (told.reading == "not trained enough") is not counts
        little = "DINO 0.85 of SL's 80.0 % upstream after 20 epochs, 0.9 needed"
        assert told.gate == ("SL 97.0 %; DINO 0.95 of SL's 80.0 % upstream" if counts else little)
        assert found.loc["T4", 2].reading != "not trained enough"  # is about upstream accuracy itself
        assert found.loc["T6", 3].reading != "not trained enough"
    assert "0.85 of SL's 80.0 %" in claims.decisive(found.reset_index()).set_index("Claim").loc["T4", "Ours"]


def test_the_seed_that_is_farthest_behind_counts():
    whole = with_upstream(of_grid("methods"), {})
    one = (whole.variant == "dino") & (whole.seed == 1) & (whole.measure == "linear_top1") & (whole.dataset == "glyphs")
    found = claims.judge({"methods": whole.assign(value=whole.value.where(~one, 60.0))}, "quick", ["trex"])
    assert found.set_index(["claim", "test"]).reading["T4", 1] == "not trained enough"  # 0.75 and 1.0


def test_nothing_is_decided_where_sl_has_not_learned_its_training_images():
    found = claims.judge({"methods": with_upstream(of_grid("methods"), {}, 94.9)}, "quick", ["look"])
    assert set(found.verdict) == {"not trained enough"}
    found = found[found.over == "seeds"]  # all have the same accuracy here, which nothing is correlated with
    assert set(found.reading) == {"not trained enough"}
    assert set(found.gate) == {"SL: accuracy on training images 94.9 %, 95 % needed"}


def test_without_sl_tests_are_read_and_claims_undecided():
    frame = of_grid("trex_depth")
    found = claims.judge({"trex_depth": frame}, "quick", ["trex"])
    found = found[found.grid.notna()]  # T8 has no test
    assert set(found.gate) == {"not checked: SL's accuracy on training images is not in these results"}
    assert set(found.verdict) == {"undecided"} and found.p_claim.isna().all()
    both = claims.judge({"trex_depth": frame, "modes": of_grid("modes"), "methods": of_grid("methods")}, "quick", ["trex"])
    assert both[both.grid == "trex_depth"].gate.str.startswith("SL 97.0 %").all()  # wherever SL is


def test_few_seeds_decide_nothing():
    found = claims.judge({"methods": with_upstream(of_grid("methods"), {})}, "quick", ["look"])
    assert set(found[found.over == "seeds"].n) == {3} and set(found.verdict) <= {"undecided", "not run"}


def test_correlations_are_over_networks_that_have_learned_and_resample_seeds():
    names = [f"v{i}" for i in range(6)]
    rows = [row("sl", seed, "glyphs", "linear_top1", 80.0) for seed in range(3)]
    for i, name in enumerate(names):
        for seed in range(3):
            rows.append(row(name, seed, "glyphs", "linear_top1", 10.0 if i == 5 else 75 + i + 0.1 * seed))
            rows.append(row(name, seed, "glyphs_greek", "linear_top1", 90.0 if i == 5 else 40 + i + 0.1 * seed))
    test = {"rows": "measure == 'linear_top1' and dataset == @upstream and method != 'sl'"}
    test |= {"correlate": "measure == 'linear_top1' and dataset in @unseen", "claimed": "< 0.7"}
    rho, low, high, n, p_for, p_against = claims.measure(test, claims.prepared(table(rows)), scale("quick"))
    assert (rho, low, high, n) == (1.0, 1.0, 1.0, 5)  # v5 would have turned it
    assert p_for == 1.0 and p_against == pytest.approx(1 / 4001)


def test_one_sided_p_by_hand():
    values = [1.0, 2.0, 4.0]
    for claimed, bound, sign in (("> 0", 0, 1), ("< 1.5", 1.5, -1), ("> -2", -2, 1)):
        told = stats.ttest_1samp(values, bound, alternative="greater" if sign == 1 else "less").pvalue
        assert statistics.one_sided(values, claimed) == pytest.approx((told, 1 - told))
    for none in ([1.0], [2.0, 2.0], []):
        assert all(map(math.isnan, statistics.one_sided(none, "> 0")))


def test_holm_by_hand():
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.5, math.nan, 0.9])[0] == 1.0 and math.isnan(statistics.holm([math.nan])[0])


def test_probes_at_the_edge_or_not_converged_are_counted():
    found = [row("sl", seed, "one", "linear_at_grid_edge", float(seed == 1)) for seed in range(3)]
    found += [row("sl", seed, "one", "linear_converged", float(seed > 0)) for seed in range(3)]
    text = claims.probe_notes(table(found))
    assert text == "of 3 linear probes 1 chose C at the edge of the grid and 1 stopped before they had converged"
