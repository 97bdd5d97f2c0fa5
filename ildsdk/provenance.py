"""What an answer says of how it was made."""

from __future__ import annotations

from ildsdk._version import __version__
from ildsdk.encoder import Encoder
from ildsdk.index import Index
from ildsdk.notice import notice
from ildsdk.records import Provenance
from ildsdk.settings import QuerySettings


def provenance_of(index: Index, encoder: Encoder, settings: QuerySettings) -> Provenance:
    """Versions, bundle, index, what really ran, and the notices that must be shown."""
    bundle, info = encoder.bundle, index.info()
    return Provenance(
        ildsdk_version=__version__,
        bundle_name=bundle.name,
        bundle_hash=bundle.bundle_hash,
        index_name=info.name,
        index_hash=index.hash,
        n_items=info.n_items,
        n_cases=info.n_cases,
        provider=encoder.provider,
        precision=encoder.precision,
        n_threads=encoder.n_threads,
        radiomics_engine=encoder.settings.radiomics_engine,
        search_mode=settings.search_mode,
        top_n=settings.top_n,
        every_mm=settings.every_mm,
        exclude_same_patient=settings.exclude_same_patient,
        no_match_threshold=index.no_match_threshold,
        is_synthetic=info.is_synthetic,
        model_is_synthetic=bundle.is_synthetic,
        notice=notice(
            model_is_synthetic=bundle.is_synthetic,
            cases_are_synthetic=info.is_synthetic,
            threshold_caution=info.threshold_caution,
        ),
    )
