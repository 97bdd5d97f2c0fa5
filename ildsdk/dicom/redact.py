"""Labels for files without the patient: paths whose parts name the patient are replaced.

Archives and export tools put names, ids and birth dates into folder and file names. All headers
of one discovery give tokens; a path component that contains one (letters and
digits only, accents removed, case ignored) becomes ``redacted-<number>``. The number counts the
replaced components in sorted order: the same folder gives the same labels, and unlike a
hash of the name nothing can be guessed from it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Final

from ildsdk.dicom import tags
from ildsdk.dicom.elements import Elements

MIN_TOKEN_LENGTH: Final = 3
# Chinese, Japanese and Korean names are often two characters long.
MIN_WIDE_TOKEN_LENGTH: Final = 2
# From this length on a token is also found across separators: 1950-01-02, 12_34_56.
JOINED_TOKEN_LENGTH: Final = 5
_SEPARATORS: Final = re.compile(r"[\W_]+")
_MAX_VALUE_BYTES: Final = 512
# The declared character set is often wrong; a wrong decoding only adds a token without a match.
_ENCODINGS: Final = (
    "utf-8",
    "latin-1",
    "cp1252",
    "iso8859-2",
    "iso8859-5",
    "iso8859-7",
    "cp1251",
    "gb18030",
    "shift_jis",
    "iso2022_jp",
    "euc_kr",
    "iso2022_kr",
)
_KEPT_SUFFIXES: Final = (".dcm", ".dicom", ".ima")


def identifying_tokens(elements: Elements) -> set[str]:
    """Normalized strings that name the patient, from one object's header.

    Names are split into their components and kept whole as well; birth dates are given in
    the orders people write them.
    """
    tokens: set[str] = set()
    for tag in tags.IDENTIFYING:
        value = elements.get(tag)
        if not isinstance(value, bytes) or not value.strip(b"\0 "):
            continue
        for text in _decodings(value[:_MAX_VALUE_BYTES]):
            pieces = [text, *re.split(r"[\^=\\\s,;_.\-]+", text)]
            tokens.update(normalize(piece) for piece in pieces)
        if tag == tags.PATIENT_BIRTH_DATE:
            tokens.update(_date_forms(value))
    return {token for token in tokens if len(token) >= _min_length(token)}


def normalize(text: str) -> str:
    """Letters and digits only, accents removed, case folded."""
    decomposed = unicodedata.normalize("NFKD", text).casefold()
    return "".join(character for character in decomposed if character.isalnum())


def names_patient(text: str, tokens: Iterable[str]) -> bool:
    """Whether a text contains one of the tokens."""
    words = [normalize(word) for word in _SEPARATORS.split(text)]
    joined = "".join(words)
    # Short tokens must not match across a separator ("notes.txt" holds no "test").
    return any(
        token in joined
        and (len(token) >= JOINED_TOKEN_LENGTH or any(token in word for word in words))
        for token in tokens
    )


class Redactor:
    """Turns path components into labels that do not name a patient.

    Parameters
    ----------
    tokens : iterable of str
        From :func:`identifying_tokens`, over all objects of the discovery.
    paths : iterable of tuple of str
        All paths of the discovery, so that numbers are stable.
    """

    def __init__(self, tokens: Iterable[str], paths: Iterable[tuple[str, ...]]) -> None:
        self._tokens = sorted(set(tokens))
        identifying: set[str] = set()
        judged: dict[str, bool] = {}
        for path in paths:
            hits = []
            for part in path:
                if part not in judged:
                    judged[part] = names_patient(part, self._tokens)
                hits.append(judged[part])
            identifying.update(part for part, hit in zip(path, hits, strict=True) if hit)
            # A date such as 1950/01/02 is spread over folders: then no part of the path stays.
            if len(path) > 1 and not any(hits) and self._spans_parts(path):
                identifying.update(path)
        self._labels = {
            part: f"redacted-{number}{_kept_suffix(part)}"
            for number, part in enumerate(sorted(identifying), start=1)
        }

    def label(self, parts: tuple[str, ...]) -> str:
        """Posix-style label of one path."""
        return "/".join(self._labels.get(part) or _printable(part) for part in parts)

    def _spans_parts(self, path: tuple[str, ...]) -> bool:
        normalized = "".join(normalize(part) for part in path)
        return any(
            len(token) >= JOINED_TOKEN_LENGTH and token in normalized for token in self._tokens
        )


def _decodings(value: bytes) -> set[str]:
    texts = set()
    for encoding in _ENCODINGS:
        try:
            texts.add(value.decode(encoding).strip("\0 "))
        except UnicodeDecodeError:
            continue
    return texts


def _date_forms(value: bytes) -> set[str]:
    digits = "".join(character for character in value.decode("latin-1") if character.isdigit())
    if len(digits) != 8:
        return set()
    year, month, day = digits[:4], digits[4:6], digits[6:]
    short = year[2:]
    return {
        year + month + day,
        day + month + year,
        month + day + year,
        short + month + day,
        day + month + short,
        month + day + short,
    }


def _min_length(token: str) -> int:
    return MIN_TOKEN_LENGTH if token.isascii() else MIN_WIDE_TOKEN_LENGTH


def _kept_suffix(part: str) -> str:
    lowered = part.lower()
    return next((suffix for suffix in _KEPT_SUFFIXES if lowered.endswith(suffix)), "")


def _printable(part: str) -> str:
    # Control characters could drive a terminal; undecodable bytes could not be written as JSON.
    if not (part.isascii() and part.isprintable()):
        # A pattern that is slow to compile; hardly a path needs it.
        part = re.sub(r"[^\x20-\x7e\u00a0-\ud7ff\uf900-\ufffd]", "_", part)
    return part.replace("/", "_")
