"""python -m zoo COMMAND: what the registry knows, what a model sees, models for others to load, data in numbers."""

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from zoo.backbones import is_model, list_models, model_info
from zoo.registry import suggest

MODEL = "a registered name, a checkpoint of train.py or its run's folder, or a folder of save_pretrained"
DATA = "a data set's name, a folder of images, or the folder or URL of shards"
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

    command = add("sheet", draw_sheet, "draw what each augmentation does, and what the drawn sets show")
    command.add_argument("out", metavar="PNG")
    command.add_argument("--root", metavar="FOLDER", default="data", help="where MNIST is, or is fetched to (data)")

    command = add("export", write, "write a trained model as a file or folder that others load")
    command.add_argument("model", metavar="MODEL", help=MODEL)
    command.add_argument("--to", required=True, choices=("folder", "onnx", "torchvision", "checkpoint"))
    command.add_argument("--out", metavar="PATH", help="where to; without it a name that tells the model, here")

    command = add("stats", show_statistics, "show how many images of which class data has, their mean and std")
    command.add_argument("data", metavar="DATA", help=DATA)
    command.add_argument("options", metavar="KEY=VALUE", nargs="*", help="options of the data, as size=224 workers=8")
    command.add_argument("--json", action="store_true", help="print JSON instead of tables")

    command = add("shards", write_shards, "write a folder of images as shards, tar files that data=shards streams")
    command.add_argument("folder", metavar="FOLDER", help="class folders, or train/ and val/ or test/ that hold them")
    command.add_argument("out", metavar="OUT", help="a folder that is new or empty")
    command.add_argument("--size-mb", metavar="MB", type=float, default=100.0, help="of a shard, about (default: 100)")
    command.add_argument("--seed", metavar="N", type=int, default=0, help="of the order (default: 0)")
    fraction = {"metavar": "SHARE", "type": share, "help": "of a folder without test/: 1 for all (default: 0.2)"}
    command.add_argument("--test-fraction", **fraction)
    return parser


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def share(text: str) -> float:
    number = float(text)
    if not 0 < number <= 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0, at most 1")
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


def draw_sheet(given: argparse.Namespace) -> str:
    from zoo.files import whole
    from zoo.report.sheet import sheet

    with whole(Path(given.out)) as fresh:
        sheet(root=given.root).save(fresh, format="PNG")
    return f"{given.out}\n"


def write(given: argparse.Namespace) -> str:
    from zoo.export import export

    done = export(given.model, given.to, given.out)
    lines = [f"{done.path}: {done.size / 1e6:.3g} MB, SHA-256 {done.sha256}", done.load]
    return "\n".join([*lines, done.note] if done.note else lines) + "\n"


def show_statistics(given: argparse.Namespace) -> str:
    from zoo.data.statistics import named, statistics
    from zoo.report.statistics import as_json, tables

    found = statistics(named(given.data, typed(given.options)), watched)
    return as_json(found) if given.json else tables(found)


def typed(options: Sequence[str]) -> dict[str, Any]:
    """key=value, or data.key=value as for train.py; values are read as YAML."""
    import yaml

    found = {}
    for each in options:
        key, mark, value = each.partition("=")
        if not (key and mark):
            raise ValueError(f"{each!r} is not of the form key=value")
        try:
            found[key.removeprefix("data.")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{each}: the value cannot be read") from error
    return found


def write_shards(given: argparse.Namespace) -> str:
    from zoo.data.packing import pack
    from zoo.report.columns import aligned

    how = {"megabytes": given.size_mb, "seed": given.seed, "test_fraction": given.test_fraction}
    index = pack(given.folder, given.out, **how, watch=watched)
    rows = [("part", "images", "shards", "MB")]
    for part, content in index["parts"].items():
        tars = content["shards"]
        images, size = (sum(tar[key] for tar in tars) for key in ("images", "bytes"))
        rows.append((part, f"{images:,}", f"{len(tars):,}", f"{size / 1e6:.3g}"))
    return aligned(rows, right=(1, 2, 3)) + f"\npython train.py data=shards data.root={given.out}\n"


def watched(items: Sequence[Any]) -> Iterable[Any]:
    """A bar on stderr, for a person who waits."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, "", console=console, transient=True, disable=not console.is_terminal)


if __name__ == "__main__":
    sys.exit(main())
