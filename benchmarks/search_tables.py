"""What the search report says: one table per set, and the ratios that were asked for."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

Cell = Mapping[str, Any]  # what search_run.measure answers
PointDict = Mapping[str, Any]

FLAT = "faiss IndexFlatIP"
GRAPHS_AND_LISTS = ("hnswlib", "faiss IndexHNSWFlat", "faiss IndexIVFFlat")
LOSSY_CODES = (
    "faiss IndexLSH 4d bits + refine",
    "faiss IndexRaBitQ + refine",
    "faiss IndexRaBitQFastScan + refine",
)
_LIGHT_NOTE = (
    " A shorter measurement: few rounds, no curve; two clients and batches only where a batch "
    "takes less than 1.5 s."
)
OUR_EXACT, OUR_FAST = "ildsdk exact", "ildsdk fast"
PAPER = "ildsdk paper preset (k = 3, one probe)"
KIND_NAMES = {
    "uniform": "uniform on the sphere (worst case)",
    "clustered": "clustered (class > case > slices; half of the queries from new cases)",
    "phantom": "phantom embeddings that ship with ildsdk (queries: held-out cases)",
}


def point(cell: Cell, name: str, role: str | None = None) -> PointDict | None:
    """One contender's point; without a role the exact or fixed one."""
    for found in cell["points"]:
        roles = found["roles"]
        if found["name"] == name and (role in roles or (role is None and roles != ["curve"])):
            return found
    return None


def best(cell: Cell, names: Iterable[str], role: str) -> PointDict | None:
    """The fastest of some contenders at a target recall."""
    found = [p for name in names if (p := point(cell, name, role)) is not None]
    return min(found, key=lambda p: p["single_us"], default=None)


# ---------------------------------------------------------------------- tables


def cell_table(cell: Cell) -> str:
    """Heading, difficulty and table of one set, in Markdown."""
    hard = {name: value for name, value in cell["difficulty"].items() if not math.isnan(value)}
    lines = [
        f"### n = {cell['n']:,}, d = {cell['dimension']}: {KIND_NAMES[cell['kind']]}",
        "",
        f"{cell['n_tuning']} queries to tune on, {cell['n_scored']} others scored. Mean cosines: "
        + ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in hard.items())
        + f". Built with {cell['build_threads']} thread"
        + ("." if cell["build_threads"] == 1 else "s.")
        + (_LIGHT_NOTE if cell.get("is_light") else ""),
        "",
        "| contender | setting | recall@10 | median us | p99 us | x Flat | x best HNSW/IVF "
        "| 2 clients, us/query | batch 300, ms: 1 thread | 2 threads | rows read "
        "| build s (CPU s) | extra bytes/vector |",
        "| --- | --- " + "| ---: " * 11 + "|",
    ]
    for heading, role in (
        ("**exact**", "exact"),
        ("**tuned to 0.99**", "0.99"),
        ("**tuned to 0.995**", "0.995"),
        ("**as asked for, not tuned**", "asked"),
        ("**as published**", "fixed"),
    ):
        rows = sorted(
            (p for p in cell["points"] if role in p["roles"]), key=lambda p: p["single_us"]
        )
        if rows:
            lines.append(f"| {heading} |" + " |" * 12)
        lines += [_row(cell, found, role) for found in rows]
    for name, built in cell["builds"].items():
        if "left_out" in built:
            lines.append(f"| {name} | left out: {built['left_out']} |" + " |" * 11)
        elif all(p["name"] != name or p["roles"] == ["curve"] for p in cell["points"]):
            lines.append(f"| {name} | did not reach 0.99 |" + " |" * 11)
    return "\n".join(lines)


def _row(cell: Cell, found: PointDict, role: str) -> str:
    flat = point(cell, FLAT)
    rival = best(cell, GRAPHS_AND_LISTS, role if role.startswith("0.") else "0.995")
    built = cell["builds"][found["name"]]
    name = f"**{found['name']}**" if found["name"].startswith("ildsdk") else found["name"]
    fields = [
        name,
        _setting(found),
        "1" if found["is_exact"] else f"{found['recall']:.4f}",
        _short(found["single_us"]),
        _short(found["single_p99_us"]),
        _ratio(flat, found),
        _ratio(rival, found),
        _short(found.get("clients_us")),
        _short(found.get("batch_us"), 1e3),
        _short(found.get("batch_two_threads_us"), 1e3),
        "-" if found["n_read"] is None else f"{found['n_read']:,.0f}",
        f"{_short(built['seconds'])} ({_short(built['cpu_seconds'])})",
        "-" if math.isnan(built["extra_bytes"]) else f"{built['extra_bytes']:.0f}",
    ]
    return "| " + " | ".join(fields) + " |"


def _setting(found: PointDict) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in found["setting"].items())


def _short(value: float | None, over: float = 1) -> str:
    if value is None:
        return "-"
    value /= over
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _ratio(slower: PointDict | None, found: PointDict) -> str:
    return "-" if slower is None else f"{slower['single_us'] / found['single_us']:.2f}"


# ---------------------------------------------------------------------- what was asked


@dataclasses.dataclass(frozen=True, slots=True)
class Claim:
    """One ratio (or recall) asked for, and how it is taken from the measurements."""

    text: str
    asked: float
    measure: Callable[[Cell], float | None]
    kind: str
    n: int
    dimension: int = 128

    def row(self, cells: Sequence[Cell]) -> str:
        """Row of the checklist: asked, measured, met."""
        asked = f">= {self.asked:g}"
        where = f"{self.kind}, n = {self.n:,}" if self.n else self.kind
        for cell in cells:
            if cell["kind"] == self.kind and self.n in (0, cell["n"]):
                if self.n and cell["dimension"] != self.dimension:
                    continue
                measured = self.measure(cell)
                if measured is not None:
                    met = "yes" if measured >= self.asked else "**no**"
                    return f"| {self.text} | {where} | {asked} | {measured:.3g} | {met} |"
        return f"| {self.text} | {where} | {asked} | not run | - |"


def _times_faster(
    than: str, ours: str, field: str = "single_us", *, at: str | None = None
) -> Callable[[Cell], float | None]:
    def measure(cell: Cell) -> float | None:
        theirs, found = point(cell, than, at), point(cell, ours)
        if theirs is None or found is None or field not in theirs or field not in found:
            return None
        ratio: float = theirs[field] / found[field]
        return ratio

    return measure


def _fast_against(names: Sequence[str], role: str) -> Callable[[Cell], float | None]:
    def measure(cell: Cell) -> float | None:
        rival, found = best(cell, names, role), point(cell, OUR_FAST, role)
        return None if rival is None or found is None else rival["single_us"] / found["single_us"]

    return measure


def _build_against_best(cell: Cell) -> float | None:
    rival = best(cell, GRAPHS_AND_LISTS, "0.99")
    if rival is None or "seconds" not in cell["builds"].get(OUR_FAST, {}):
        return None
    builds = cell["builds"]
    ratio: float = builds[rival["name"]]["cpu_seconds"] / builds[OUR_FAST]["cpu_seconds"]
    return ratio


def _recall_of_fast(cell: Cell) -> float | None:
    found = point(cell, OUR_FAST, "asked")
    return None if found is None else found["recall"]


def claims() -> list[Claim]:
    """What issue 3 asks of one thread and d = 128, ratios of medians of one run."""
    flat, batch = _times_faster(FLAT, OUR_EXACT), _times_faster(FLAT, OUR_EXACT, "batch_us")
    hnsw = _times_faster("hnswlib", OUR_EXACT, at="0.995")
    lists = _fast_against(GRAPHS_AND_LISTS, "0.99")
    small, middle, large = 28_942, 100_000, 1_000_000
    found = [
        Claim("exact / Flat, single", asked, flat, "clustered", n)
        for n, asked in ((small, 12), (middle, 25), (large, 15))
    ]
    found += [
        Claim("exact / Flat, single", 3.5, flat, "uniform", n) for n in (small, middle, large)
    ]
    found += [
        Claim("exact / Flat, batch of 300", asked, batch, "clustered", n)
        for n, asked in ((small, 12), (middle, 25))
    ]
    found += [Claim("exact / hnswlib at 0.995", 1, hnsw, "clustered", n) for n in (small, middle)]
    found += [
        Claim("exact / paper, one probe", 1, _times_faster(PAPER, OUR_EXACT), "clustered", n)
        for n in (small, middle, large)
    ]
    found += [
        Claim("fast, asked for 0.99: recall@10", 0.99, _recall_of_fast, kind, n)
        for kind, n in (
            *(("uniform", n) for n in (small, middle, large)),
            *(("clustered", n) for n in (small, middle, large)),
            ("phantom", 0),
        )
    ]
    found += [
        Claim("fast / best of HNSW, IVF at 0.99", asked, lists, "clustered", n)
        for n, asked in ((middle, 2), (large, 3))
    ]
    found += [
        Claim("fast: build CPU time, that rival / ours", 6, _build_against_best, "clustered", n)
        for n in (middle, large)
    ]
    found += [
        Claim(
            "fast / best of LSH, RaBitQ at 0.99",
            1,
            _fast_against(LOSSY_CODES, "0.99"),
            "uniform",
            n,
        )
        for n in (small, middle, large)
    ]
    return found


def checklist(cells: Sequence[Cell]) -> str:
    """Asked, measured, met; times faster, above 1 is faster."""
    rows = ["| claim | data | asked | measured | met |", "| --- | --- | ---: | ---: | --- |"]
    return "\n".join(rows + [claim.row(cells) for claim in claims()])


def portable_table(cells: Sequence[Cell], portable: Sequence[Cell], cpu: str) -> str:
    """Ours by the code of another CPU, against Flat of the same process."""
    lines = [
        f"| data | contender | x Flat here | x Flat as {cpu} | same answers |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    for theirs in portable:
        key = (theirs["kind"], theirs["n"], theirs["dimension"])
        for here in cells:
            if (here["kind"], here["n"], here["dimension"]) != key:
                continue
            for found in theirs["points"]:
                native = next(
                    (
                        p
                        for p in here["points"]
                        if p["name"] == found["name"] and p["setting"] == found["setting"]
                    ),
                    None,
                )
                if not found["name"].startswith("ildsdk") or native is None:
                    continue
                if found["roles"] == ["curve"]:
                    continue
                same = "yes" if native["answers_sha256"] == found["answers_sha256"] else "**no**"
                lines.append(
                    f"| {key[0]}, n = {key[1]:,}, d = {key[2]} | {found['name']} {_setting(found)} "
                    f"| {_ratio(point(here, FLAT), native)} "
                    f"| {_ratio(point(theirs, FLAT), found)} | {same} |"
                )
    return "\n".join(lines)
