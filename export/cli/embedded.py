"""``default-bundle``, ``input-sizes`` and ``install``: what ships inside the package."""

from __future__ import annotations

from pathlib import Path

import click

from export.cli.options import FOLDER, say, typed_errors
from export.default_bundle import INPUT_SIZE, DefaultBundleSettings
from export.whole_files import write_whole

_WORK = click.option("--work", type=FOLDER, default=Path("work/default-bundle"), show_default=True)
_PROCESSES = click.option("--processes", default=2, show_default=True)


@click.command("default-bundle")
@_WORK
@click.option(
    "--input-size", default=INPUT_SIZE, show_default=True, help="Side of the model input."
)
@_PROCESSES
@typed_errors
def default_bundle(work: Path, input_size: int, processes: int) -> None:
    """Everything from nothing: phantom, prepare, train, ONNX, evaluate, bundle, index, int8.

    Each stage has its folder in --work and is skipped when complete; a killed run goes on
    where it stopped.
    """
    from export.default_bundle import make_default_bundle

    settings = DefaultBundleSettings(input_size=input_size)
    folder = make_default_bundle(work, settings, n_processes=processes, say=say)
    click.echo(folder)
    click.echo((folder.parent / "evaluation" / "evaluation.md").read_text(encoding="utf-8"))


@click.command("input-sizes")
@_WORK
@click.option(
    "--size", "sizes", type=int, multiple=True, default=(112, 160), show_default=True,
    help="May be repeated.",
)  # fmt: skip
@click.option(
    "--document", type=click.Path(dir_okay=False, path_type=Path), help="Also write Markdown here."
)
@_PROCESSES
@typed_errors
def input_sizes(work: Path, sizes: tuple[int, ...], document: Path | None, processes: int) -> None:
    """Train the default bundle at several input sizes and compare quality, time and size."""
    from export.input_sizes import compare_input_sizes, markdown_table

    settings = DefaultBundleSettings()
    result = compare_input_sizes(work, settings, sizes, n_processes=processes, say=say)
    text = markdown_table(result, settings)
    if document is not None:
        write_whole(document, text.encode())
    click.echo(text)


@click.command()
@_WORK
@click.option(
    "--input-size", default=INPUT_SIZE, show_default=True, help="Which of the trained sizes."
)
@click.option("--data", type=FOLDER, default=Path("ildsdk/data"), show_default=True)
@typed_errors
def install(work: Path, input_size: int, data: Path) -> None:
    """Put a finished default bundle, its index and a demo study into the package."""
    from export.install import install_defaults

    finished = work / f"size-{input_size}"
    for name, n_bytes in install_defaults(finished, work / "archive", data).items():
        click.echo(f"{name}: {n_bytes / 1e6:.1f} MB")
