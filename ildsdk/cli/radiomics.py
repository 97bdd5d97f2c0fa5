"""``ildsdk radiomics IMAGE MASK``."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, get_args

import click

from ildsdk.cli.options import existing_path
from ildsdk.errors import ConfigError
from ildsdk.settings import RadiomicsEngine, settings_from_mapping

_OUTPUTS = ("csv", "json")


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """``name=value`` options as a mapping; values are JSON, or text where they are none."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set {pair!r} has no value, expected name=value")
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        found[name] = tuple(value) if isinstance(value, list) else value
    return found


@click.command()
@click.argument("image", type=existing_path)
@click.argument("mask", type=existing_path)
@click.option("--label", default=1, show_default=True, help="Value of the region in the mask.")
@click.option(
    "--engine",
    type=click.Choice(get_args(RadiomicsEngine)),
    default="fast",
    show_default=True,
    help="Same names, order and values.",
)
@click.option(
    "--set",
    "pairs",
    multiple=True,
    metavar="NAME=VALUE",
    help="Setting such as bin_width=10 or distances=[1,2]; may be repeated.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(_OUTPUTS),
    default="csv",
    show_default=True,
    help="Format.",
)
def radiomics(
    image: Path,
    mask: Path,
    label: int,
    engine: RadiomicsEngine,
    pairs: tuple[str, ...],
    output_format: str,
) -> None:
    """Print the 102 radiomics features of IMAGE inside MASK, slice by slice.

    Reads DICOM, NIfTI, NRRD and whatever else SimpleITK reads. Columns bear pyradiomics' names. A
    feature without a value is empty, and the column Reason says why.
    """
    from ildsdk.radiomics import RadiomicsExtractor, RadiomicsSettings
    from ildsdk.radiomics.images import labeled_slices

    extractor = RadiomicsExtractor(
        settings_from_mapping(RadiomicsSettings, _settings(pairs)), engine
    )
    rows: list[dict[str, Any]] = []
    for one in labeled_slices(image, mask, label):
        result = extractor.extract(one.pixels, one.mask, one.pixel_spacing_mm, strict=False)
        rows.append(
            {
                "Image": image.name,
                "Mask": mask.name,
                "Label": label,
                "Slice": one.index,
                "Reason": ";".join(sorted(set(result.reasons.values()))) or None,
                **result.to_dict(),
            }
        )
    if output_format == "json":
        click.echo(json.dumps(rows, indent=2, allow_nan=False))
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    click.echo(text.getvalue(), nl=False)
