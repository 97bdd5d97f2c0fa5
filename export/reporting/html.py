"""The report as one HTML file: pictures inside it, no script, no second file."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from export.reporting.document import Document


def html(document: Document, pictures: Mapping[str, bytes]) -> str:
    """The page as text.

    Parameters
    ----------
    pictures : mapping
        File name to PNG, for every picture of the document.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("export.reporting", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    uris = {
        name: "data:image/png;base64," + base64.b64encode(content).decode("ascii")
        for name, content in pictures.items()
    }
    return environment.get_template("report.html.jinja").render(document=document, uris=uris)
