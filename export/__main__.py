"""``python -m export``."""

import click

ENVIRONMENT = "make .venv/.dev"


def run() -> None:
    """Run the command line; a package that is absent becomes one line."""
    try:
        from export.cli import main

        main(prog_name="python -m export")
    except ModuleNotFoundError as error:
        name = (error.name or "a package").split(".")[0]
        if name in ("export", "ildsdk", "native_hash"):
            raise
        click.echo(
            f"error: training and export need {name}, which the environment of `make demo` does "
            f"not hold: run `{ENVIRONMENT}`, then .venv/bin/python -m export ...",
            err=True,
        )
        raise SystemExit(2) from None


if __name__ == "__main__":
    run()
