"""Activation maps of a query slice and its first neighbors, from what encoder and index keep."""

from __future__ import annotations

from collections.abc import Sequence

from ildsdk.encoder import EncodedSlice
from ildsdk.errors import IndexFileError
from ildsdk.explain import N_MAPPED, LocationCodes, MissingMap, PairMaps, map_for
from ildsdk.index import Index
from ildsdk.records import Neighbor


def pair_maps(
    encoded: EncodedSlice, neighbors: Sequence[Neighbor], index: Index, explain_sha256: str
) -> tuple[PairMaps, ...]:
    """Draw both maps of the first neighbors of a slice.

    Parameters
    ----------
    encoded : EncodedSlice
        With location vectors.
    neighbors : sequence of Neighbor
        Best first; the first ``N_MAPPED`` get maps.
    explain_sha256 : str
        Of the bundle's graph: maps of the index that another one made are left out with a reason.
    """
    if encoded.locations is None or encoded.input_box is None:
        raise ValueError("the slice was encoded without location vectors")
    pairs = []
    for neighbor in neighbors[:N_MAPPED]:
        row = index.row_of(neighbor.item_id)
        if row is None:
            raise ValueError(f"item {neighbor.item_id!r} is not in the index")
        (target,) = index.embeddings([row])
        codes, missing = _kept(index, row, explain_sha256)
        pairs.append(
            PairMaps(
                rank=neighbor.rank,
                query=map_for(encoded.locations, target, encoded.input_box),
                neighbor=None if codes is None else codes.map_for(encoded.embedding),
                missing=missing,
            )
        )
    return tuple(pairs)


def _kept(
    index: Index, row: int, explain_sha256: str
) -> tuple[LocationCodes | None, MissingMap | None]:
    """What the index keeps of a row, or why it does not."""
    if index.maps_format is None:
        return None, "no-maps-in-index"
    if index.maps_format.explain_sha256 != explain_sha256:
        return None, "other-explain-graph"
    try:
        codes = index.location_codes(row)
    except IndexFileError:  # costs this map, not the answer; `index verify` tells more
        return None, "damaged"
    return (codes, None) if codes is not None else (None, "not-kept")
