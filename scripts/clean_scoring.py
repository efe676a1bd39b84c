"""What `pfc-ingest clean` found, held against the truth, for scripts/clean-score."""

import math
import tomllib
from pathlib import Path

QUALITY = {"too_small", "blurred", "blank", "extreme_aspect"}
TWICE = {"same_bytes", "same_pixels", "near_duplicate"}
ERRATA = Path(__file__).resolve().parent.parent / "data" / "lfw-errata.toml"


class Errata:
    """Faults that a set of real faces had before any were put into it, as others published them."""

    def __init__(self, file):
        sources = tomllib.loads(file.read_text())["source"]
        self.images = {image for source in sources for image in source.get("images", [])}
        self.people = {frozenset(pair) for source in sources for pair in source.get("people", [])}

    def has(self, decision):
        """Whether it is about a listed image, or joins what a list joins."""
        image = lambda path: Path(path or "").stem.removeprefix("copy-")
        who = lambda name: (name or "").removesuffix("-other")
        shown = {image(decision.get("source")), image(decision.get("partner_source"))}
        pair = frozenset((who(decision["identity"]), who(decision.get("target_identity"))))
        return bool(shown & self.images) or pair in self.people


class Score:
    """Findings of one kind: which are right, and which are about faults that were there before."""

    def __init__(self, kind, found, right, n_there, n_recalled=None, counts=True):
        self.kind, self.n_there, self.counts = kind, n_there, counts
        self.found, self.right = found, [d for d in found if right(d)]
        self.wrong = [d for d in found if not right(d)]
        self.n_recalled = len(self.right) if n_recalled is None else n_recalled

    def figures(self, errata):
        n_before = sum(map(errata.has, self.wrong))
        share = lambda n, of: n / of if of else math.nan
        n, right = len(self.found), len(self.right)
        return share(right, n), share(right, n - n_before), share(self.n_recalled, self.n_there)


def score(decisions, truth, least, show):
    """Prints the table and the curves; returns whether every kind reaches `least`."""
    scores, n_flips, n_splits = compare(decisions, truth)
    errata = Errata(ERRATA)
    print(f"{'kind':<26}{'found':>7}{'right':>7}{'precision':>11}{'without':>9}{'there':>7}{'recall':>8}")
    worst = 1.0
    for one in scores:
        raw, without, recall = one.figures(errata)
        print(f"{one.kind:<26}{len(one.found):>7}{len(one.right):>7}{raw:>11.4f}{without:>9.4f}{one.n_there:>7}{recall:>8.4f}")
        if one.counts:
            worst = min([worst] + [x for x in (without, recall) if not math.isnan(x)])
    print("without: precision with published faults of the set itself left out (data/lfw-errata.toml)")
    flips, people = scores_of(decisions, truth, errata)
    curve("label flips, suspicions included", flips, n_flips)
    curve("split people, suspicions included", people, n_splits)
    if show:
        wrong(scores, errata)
    return worst >= least


def compare(decisions, truth):
    """Every kind's findings and what was there."""
    faults = stripped(truth)
    of_kind = lambda kind: [f for f in faults if f["fault"] == kind]
    applied = [d for d in decisions if d["action"] != "suspect"]
    by_reason = lambda *reasons: [d for d in applied if d["reason"] in reasons]
    source = lambda found: {d["source"] for d in found}

    twins = [{f["path"], f["of"]} for f in of_kind("duplicated")]
    twin_paths = set().union(*twins) if twins else set()
    dropped = by_reason(*TWICE)
    n_caught = sum(bool(t & source(dropped)) for t in twins)
    scores = [Score("duplicates", dropped, lambda d: d["source"] in twin_paths, len(twins), n_caught)]

    bad = {f["path"] for f in of_kind("junk")}
    n_gone = len({d["source"] for d in applied if d["action"] == "drop"} & bad)
    scores.append(Score("junk", by_reason(*QUALITY), lambda d: d["source"] in bad, len(bad), n_gone))

    flips = {f["path"]: f["shows"] for f in of_kind("mislabelled")}
    is_flip = lambda d: d["source"] in flips
    moved = by_reason("label_error")
    out = [d for d in by_reason("outlier") if d["source"] not in source(by_reason(*QUALITY))]
    is_home = lambda d: is_flip(d) and person(truth, d["target_identity"]) == flips[d["source"]]
    scores.append(Score("label flips, relabelled", moved, is_flip, len(flips)))
    scores.append(Score("label flips, or left out", moved + out, is_flip, len(flips), counts=False))
    scores.append(Score("  to the right person", moved, is_home, len(flips)))

    pairs = split_pairs(truth)
    joined = lambda d: frozenset((d["identity"], d["target_identity"])) in pairs
    # An identity that has nothing but a wrongly labelled image is joined to whom that shows.
    merged = [d for d in by_reason("same_person") if not is_home(d)]
    scores.append(Score("split people, merged", merged, joined, len(pairs)))

    hidden = {h["identity"] for h in truth["hidden"]}
    if hidden:
        left_out = list({d["identity"]: d for d in by_reason("benchmark_overlap")}.values())
        scores.append(Score("people of the benchmark", left_out, lambda d: d["identity"] in hidden, len(hidden)))
    return scores, len(flips), len(pairs)


def stripped(truth):
    strip = lambda path: path.removeprefix("train/")
    return [dict(f, path=strip(f["path"]), of=strip(f.get("of", ""))) for f in truth["faults"]]


def person(truth, name):
    return {s["other"]: s["identity"] for s in truth["splits"]}.get(name, name)


def split_pairs(truth):
    return {frozenset((s["identity"], s["other"])) for s in truth["splits"]}


def scores_of(decisions, truth, errata):
    """Scores of both kinds, each with whether it is right; without what was there before."""
    flips = {f["path"] for f in stripped(truth) if f["fault"] == "mislabelled"}
    pairs = split_pairs(truth)
    of_flip = lambda d: d["source"] in flips
    of_pair = lambda d: frozenset((d["identity"], d["target_identity"])) in pairs
    rated = lambda reason, right: [
        (d["score"], right(d)) for d in decisions if d["reason"] == reason and (right(d) or not errata.has(d))
    ]
    return rated("label_error", of_flip), rated("same_person", of_pair)


def curve(title, scored, there):
    scored.sort(reverse=True)
    if not scored or not there:
        return
    print(f"\n{title}\n{'bound':>7}{'found':>7}{'without':>11}{'recall':>8}")
    for bound in [0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4]:
        above = [right for value, right in scored if value >= bound]
        if above and bound >= scored[-1][0] - 0.05:
            print(f"{bound:>7.2f}{len(above):>7}{sum(above) / len(above):>11.4f}{sum(above) / there:>8.4f}")


def wrong(scores, errata):
    print("\nfound and not injected; * published")
    for one in scores:
        for d in one.wrong if one.counts else []:
            target = d.get("target_identity") or d.get("partner_source")
            value = math.nan if d["score"] is None else d["score"]
            print(f"{'*' if errata.has(d) else ' '} {one.kind.strip():<26}{value:>8.3f}  {d['source']} -> {target}")
