"""Transfer beyond SL's along training, against how far the training images are learned."""

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

from studylib.report import statistics, style, tables
from studylib.report.claims import SHARE


def gains(frame: pd.DataFrame, transfer: Sequence[str]) -> pd.DataFrame:
    """Rows (method, data, epoch, seed, gain, learned): log-odds on ``transfer`` beyond those of SL with the same seed, epoch
    and labels, and SL's accuracy on its training images then (%).

    ``frame`` holds the results of the grid ``regime``, whose variants are ``METHOD DATA``. What lacks a set or SL is left out.
    """
    frame = with_data(frame)
    at = ["data", "epoch", "seed"]
    learned = statistics.select(frame, measure="train_linear_top1", method="sl").rename(columns={"value": "learned"})
    means = [
        statistics.over_datasets(part, transfer).assign(data=data)
        for (data, _), part in statistics.select(frame, measure="linear_top1", split="test", dataset=list(transfer)).groupby(
            at[:2]
        )
    ]
    found = pd.concat(means) if means else frame[:0]
    first = statistics.select(found, method="sl").rename(columns={"value": "of_sl"})
    joined = found.merge(first[[*at, "of_sl"]], on=at).merge(learned[[*at, "learned"]], on=at)
    joined = joined[joined["method"] != "sl"].assign(gain=joined["value"] - joined["of_sl"])
    return joined[["method", *at, "gain", "learned"]].sort_values(["data", "method", "epoch", "seed"], ignore_index=True)


def regime(frame: pd.DataFrame, *, data: Sequence[str], transfer: Sequence[str], least: float) -> tuple[Figure, pd.DataFrame]:
    """(figure, plotted data): the gain in transfer over SL on y, SL's accuracy on its training images on x, along training.

    A panel for each of ``data``, a line for each method: means over seeds, their 95 % intervals at the end of training, single
    seeds faint. Right of the dotted line, at ``least`` %, SL has learned its training images.
    """
    rows = gains(frame, transfer)
    by = ["data", "method", "epoch"]
    table = statistics.over_seeds(rows.rename(columns={"gain": "value"}), by)
    table = table.merge(rows.groupby(by, as_index=False)["learned"].mean(), on=by)
    figure = style.canvas(2, 2.5)
    panels = figure.subplots(1, len(data), sharey=True, squeeze=False).ravel()
    for axes, name in zip(panels, data, strict=True):
        here = table[table["data"] == name]
        axes.axhline(0, color=style.look("sl").colour, linewidth=0.9)
        axes.axvline(least, color=style.GREY, linewidth=0.7, linestyle=":")
        for method, part in style.by_method(here):
            part, drawn = part.sort_values("epoch"), style.look(method)
            single = rows[(rows["data"] == name) & (rows["method"] == method)]
            style.single(axes, single["learned"], single["gain"], method)
            axes.plot(part["learned"], part["mean"], color=drawn.colour, marker=drawn.marker, markersize=3)
            end = part.iloc[-1]
            style.mark(axes, end["learned"], end["mean"], (end["low"], end["high"]), method)
        axes.set_title(labels_of(name))
        axes.set_xlabel("SL: accuracy on training images (%)")
        if here.empty:
            style.absent(axes)
    panels[0].set_ylabel("Transfer beyond SL (log-odds)")
    style.legend(figure, table["method"], line=True)
    style.note(
        figure,
        f"{style.seeds(table, points=True)}; above 0: transfers better than SL; log-odds of linear top-1, {len(transfer)} sets",
    )
    return figure, table


LABELS = {
    "glyphs@group": "6 classes of six characters",
    "glyphs@triple": "12 classes of three",
    "glyphs": "36 classes of one",
}


def labels_of(data: str) -> str:
    """What the classes of ``data`` are, in words."""
    return LABELS.get(data, style.dataset_label(data))


def with_data(frame: pd.DataFrame) -> pd.DataFrame:
    """``frame`` with the column ``data``, the labels that a variant ``METHOD DATA`` was trained on."""
    return frame.assign(data=frame["variant"].str.split(" ", n=1).str[-1])


def trained_enough(frame: pd.DataFrame, least: float) -> pd.DataFrame:
    """A table of the networks at the end of training: accuracy on training images, on held-out images of the same classes and
    its share of SL's, of the seed that is farthest behind, and whether that is enough for a comparison (``least`` % for SL,
    `claims.SHARE` for the others)."""
    end = statistics.at_end(with_data(frame))
    found = [
        statistics.select(end, measure="train_linear_top1").assign(what="training"),
        statistics.select(end, measure="linear_top1", split="test")[lambda rows: rows["dataset"] == rows["data"]].assign(
            what="held_out"
        ),
    ]
    rows = pd.concat(found)
    table, body = statistics.over_seeds(rows, ["data", "method", "what"]), []
    for data, of_data in table.groupby("data", sort=False):
        values = of_data.pivot(index="method", columns="what", values="mean").reindex(columns=["training", "held_out"])
        if "sl" not in values.index:
            continue
        worst = rows[rows["data"] == data].groupby(["method", "what"])["value"].min()
        trained = worst.get(("sl", "training"), 0.0) >= least
        for method in style.ordered(values.index):
            share = worst.get((method, "held_out"), float("nan")) / values.loc["sl", "held_out"]
            body.append(
                {"Labels": labels_of(data), "Method": style.look(method).label}
                | {"n": int(of_data.loc[of_data["method"] == method, "n"].min())}
                | {"Training images (%)": f"{values.loc[method, 'training']:.1f}"}
                | {"Held-out images (%)": f"{values.loc[method, 'held_out']:.1f}", "Share of SL's": f"{share:.2f}"}
                | {"Trained enough": "yes" if trained and share >= SHARE else "no"}
            )
    return pd.DataFrame(body)


def regime_ends(frame: pd.DataFrame, *, data: Sequence[str], transfer: Sequence[str], least: float) -> pd.DataFrame:
    """A table of `gains` at the end of training, for each of ``data`` and each method, and whether the interval excludes 0;
    where a network is not `trained_enough`, that is said instead."""
    rows = gains(frame, transfer)
    poor = {
        (row["Labels"], row["Method"])
        for row in trained_enough(frame, least).to_dict("records")
        if row["Trained enough"] == "no"
    }
    end = rows[rows["epoch"] == rows.groupby("data")["epoch"].transform("max")].rename(columns={"gain": "value"})
    table, body = statistics.over_seeds(end, ["data", "method"]), []
    said = {"supported": "better than SL", "contradicted": "worse than SL"}
    for row in table.sort_values("data", key=lambda names: names.map(list(data).index), kind="stable").to_dict("records"):
        found = (row["mean"], row["half_width"], row["n"])
        who = labels_of(row["data"]), style.look(row["method"]).label
        reading = said.get(statistics.verdict(*found, "higher"), "undecided")
        body.append(
            {"Labels": who[0], "Method": who[1]}
            | {"Transfer beyond SL (log-odds)": tables.number(*found, "linear_top1_log_odds", signed=True), "n": row["n"]}
            | {"Reading": "not trained enough" if who in poor else reading}
        )
    return pd.DataFrame(body)
