"""The reading of SL-MLP's claims on constructed results."""

import pandas as pd
import pytest

from studylib.report import claims
from studylib.study import COLUMNS


def rows(method, seed, dataset, layer, measure, value, protocol="p", split="test"):
    fixed = {"scale": "quick", "method": method, "variant": method, "run": f"{method}-{seed}", "seed": seed, "epoch": 8}
    return fixed | {
        "dataset": dataset,
        "layer": layer,
        "split": split,
        "protocol": protocol,
        "measure": measure,
        "value": value,
    }


def constructed(seeds=3):
    found = []
    for seed in range(seeds):
        for method, better in (("sl", 0.0), ("sl_mlp", 1.0)):
            noise = 0.01 * seed * (1 + better)
            for dataset in ("one", "two"):
                found.append(rows(method, seed, dataset, "stage4", "linear_top1", 60 + noise))
                found.append(
                    rows(method, seed, dataset, "stage5", "linear_top1", 50 + 12 * better + noise + (dataset == "two"))
                )
                found.append(rows(method, seed, dataset, "stage5", "mixtureness", 0.5 + noise, "k=5"))
                found.append(rows(method, seed, dataset, "stage5", "redundancy", 0.3 + 0.05 * better + noise / 10))
            found.append(rows(method, seed, "up", "stage5", "phi", 3 - 2 * better + noise, "squared"))
            found.append(rows(method, seed, "up", "stage5", "phi", 9.0, "squared", split="train"))
    return pd.DataFrame(found, columns=COLUMNS)


def read(frame):
    table = claims.sl_mlp(frame, "up", ["one", "two"], ["one"])
    return {(row["Claim"], row["Tested by"]): row for row in table.to_dict("records")}


def test_every_claim_gets_the_verdict_of_its_difference():
    found = read(constructed())
    expected = {
        ("S1", "linear top-1 on unseen classes (%)"): ("supported", "62.5", "50.5"),
        ("S1", "kNN top-1 on unseen classes (%)"): ("not run", "·", "·"),
        ("S4", "gain of the last stage, unseen classes (%)"): ("supported", "2.0", "−10.0"),
        ("S6", "φ, pre-training classes"): ("supported", "1.020", "3.010"),
        ("S6", "φ, l2-normalised"): ("not run", "·", "·"),
        ("S7", "Π (k = 5), unseen classes"): ("inconclusive", "0.520", "0.510"),
        ("S8", "R, pre-training classes"): ("not run", "·", "·"),
        ("S8", "R, unseen classes"): ("contradicted", "0.352", "0.301"),
    }
    assert found.keys() == expected.keys()
    for key, (verdict, mlp, sl) in expected.items():
        assert found[key]["Verdict"] == verdict, key
        assert found[key]["SL-MLP"].startswith(mlp), key
        assert found[key]["SL"].startswith(sl), key


def test_one_seed_decides_nothing_and_no_rows_are_not_run():
    assert {row["Verdict"] for row in read(constructed(1)).values()} == {"inconclusive", "not run"}
    assert {row["Verdict"] for row in read(constructed(0)).values()} == {"not run"}


def test_a_seed_without_one_data_set_is_left_out():
    frame = constructed()
    frame = frame[~((frame.seed == 2) & (frame.dataset == "two") & (frame.measure == "linear_top1"))]
    assert "(n = 2)" in read(frame)["S1", "linear top-1 on unseen classes (%)"]["SL-MLP − SL"]


def test_gain_of_the_last_stage_is_a_difference_within_a_run():
    gains = claims.last_stage(constructed())
    assert len(gains) == 12
    assert set(gains.measure) == {"last_stage_gain"}
    one = gains[(gains.method == "sl") & (gains.seed == 1) & (gains.dataset == "two")]
    assert one.value.item() == pytest.approx(-9.0)


def test_sentences_tell_verdict_and_numbers():
    text = claims.sentences(claims.sl_mlp(constructed(), "up", ["one", "two"], ["one"]))
    assert text.startswith("S1 supported: an MLP projector raises supervised transfer")
    assert len(text.splitlines()) == 8


def test_probes_at_the_edge_or_not_converged_are_counted():
    found = [rows("sl", seed, "one", "stage5", "linear_at_grid_edge", float(seed == 1)) for seed in range(3)]
    found += [rows("sl", seed, "one", "stage5", "linear_converged", float(seed > 0)) for seed in range(3)]
    text = claims.probe_notes(pd.DataFrame(found, columns=COLUMNS))
    assert text == "of 3 linear probes 1 chose C at the edge of the grid and 1 stopped before they had converged"
