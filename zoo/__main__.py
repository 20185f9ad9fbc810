"""python -m zoo COMMAND: what the registry knows, what a model sees in images, and models for others to load."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence

from zoo.backbones import is_model, list_models, model_info
from zoo.registry import suggest

MODEL = "a registered name, a checkpoint of train.py or its run's folder, or a folder of save_pretrained"
PATTERN = {"metavar": "PATTERN", "nargs": "?", "default": "*", "help": "names to show, as in 'resnet*'"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; `arguments` are those after `python -m zoo`. Returns the exit code."""
    parser = commands()
    given = parser.parse_args(arguments)
    try:
        print(given.run(given) if "run" in given else parser.format_help(), end="", flush=True)
    except BrokenPipeError:  # the reader, as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return 1
    return 0


def commands() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m zoo", description="Convolutional networks by name.")
    added = parser.add_subparsers(metavar="COMMAND")

    def add(name: str, run: Callable[[argparse.Namespace], str], told: str) -> argparse.ArgumentParser:
        command = added.add_parser(name, help=told, description=f"{told[0].upper()}{told[1:]}.")
        command.set_defaults(run=run)
        return command

    command = add("list", show_list, "list the models: size, published error, released weights")
    command.add_argument("pattern", **PATTERN)
    command.add_argument("--pretrained", action="store_true", help="those with released weights only")

    command = add("models", show_models, "print README's table of models: paper, size, published error")
    command.add_argument("pattern", **PATTERN)

    command = add("info", show_info, "show all that is known of a model: paper, sizes, errors, options, weights")
    command.add_argument("name", metavar="NAME")

    command = add("predict", show_predictions, "show what a model sees in images")
    command.add_argument("images", metavar="IMAGE", nargs="+")
    command.add_argument("--model", required=True, metavar="MODEL", help=MODEL)
    command.add_argument("--weights", metavar="TAG", help="of a registered name; without it the default")
    command.add_argument("--topk", metavar="K", type=at_least_one, default=5, help="classes of each image (default: 5)")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")

    command = add("export", write, "write a trained model as a file or folder that others load")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("--to", required=True, choices=("folder", "onnx", "torchvision", "checkpoint"))
    command.add_argument("--out", metavar="PATH", help="where to; without it a name that tells the model, here")
    return parser


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


# --- the commands: arguments → text ------------------------------------------------------------------------------
# Each imports what it needs: torchvision and the others take seconds.


def show_models(given: argparse.Namespace) -> str:
    from zoo.report.models import markdown

    return markdown(matching(given.pattern))


def show_list(given: argparse.Namespace) -> str:
    from zoo.report.models import listing

    names = matching(given.pattern)
    if given.pretrained:
        names = [name for name in names if model_info(name).weights]
        if not names:
            raise ValueError(f"no model that matches {given.pattern!r} has released weights")
    return listing(names)


def matching(pattern: str) -> list[str]:
    names = list_models(pattern)
    if not names:
        raise ValueError(f"no model matches {pattern!r}{suggest(pattern, list_models())}")
    return names


def show_info(given: argparse.Namespace) -> str:
    from zoo.report.facts import facts

    return facts(given.name)


def show_predictions(given: argparse.Namespace) -> str:
    from zoo.export import trained
    from zoo.pixels import bare
    from zoo.probes.predictions import check_files, predict
    from zoo.report.predictions import as_json, table

    check_files(given.images)
    if given.weights and not is_model(given.model):
        raise ValueError(f"--weights is for registered names: {given.model} has weights of its own")
    model = trained(given.model, given.weights or True)
    found = predict(model, given.images, topk=given.topk)
    if given.json:
        return as_json(given.images, found)
    backbone = bare(model)
    return table(given.images, found, scores_are=backbone.scores_are)


def write(given: argparse.Namespace) -> str:
    from zoo.export import export

    done = export(given.model, given.to, given.out)
    lines = [f"{done.path}: {done.size / 1e6:.3g} MB, SHA-256 {done.sha256}", done.load]
    return "\n".join([*lines, done.note] if done.note else lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
