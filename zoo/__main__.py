"""python -m zoo models 'resnet*': what is known of the registered names, as a Markdown table."""

import argparse
import sys
from collections.abc import Sequence

from zoo.backbones import list_models
from zoo.registry import suggest
from zoo.report.models import markdown


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; `arguments` are those after `python -m zoo`. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m zoo", description="Convolutional networks by name.")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    told = "print the table of models: paper, size, published error"
    models = commands.add_parser("models", help=told, description=told)
    models.add_argument("pattern", metavar="PATTERN", nargs="?", default="*", help="names to show, as in 'resnet*'")
    models.set_defaults(run=show_models)
    given = parser.parse_args(arguments)
    try:
        given.run(given)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def show_models(given: argparse.Namespace) -> None:
    names = list_models(given.pattern)
    if not names:
        raise ValueError(f"no model matches {given.pattern!r}{suggest(given.pattern, list_models())}")
    print(markdown(names), end="")


if __name__ == "__main__":
    sys.exit(main())
