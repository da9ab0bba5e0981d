"""The resolved configuration: what runs share and what each has that is its own."""

from studylib import config, report, values
from studylib.config import resolve


def test_what_most_have_is_shared_and_what_differs_is_told_by_variant():
    runs = [(method, resolve("quick", method, seed)) for method in ("sl", "sl_mlp", "look") for seed in (0, 1)]
    runs.append(("k 25", resolve("quick", "look", 0, {"look.k": 25})))
    shared, own = report.settings(runs)
    assert list(own["Variant"]) == ["sl", "sl_mlp", "look", "k 25"]  # seeds are no difference
    assert shared["optimisation.epochs"] == "20" and "method" not in shared and "seed" not in shared
    differing = dict(zip(own["Variant"], own["Differs in"], strict=True))
    assert "projector.out=0" in differing["sl"].split()
    assert set(differing["k 25"].split()) - set(differing["look"].split()) == {"look.k=25"}


def test_the_settings_of_a_variant_can_be_given_again():
    known = resolve("quick", "trex", 0)
    shared, own = report.settings([("sl", resolve("quick", "sl")), ("sl_mlp", resolve("quick", "sl_mlp")), ("trex", known)])
    again = shared | values.assignments(own["Differs in"].iloc[2].split())
    assert resolve("small", "trex", 0, again) == known
    assert report.settings([])[0] == {}


def test_every_setting_is_told():
    shared, _ = report.settings([("sl", resolve("quick", "sl"))])
    assert set(shared) == set(config.field_names()) - {"method", "seed"}
