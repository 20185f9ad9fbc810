"""Our nets beside torchvision's and timm's of the same weights: speed, memory of a training step, time to build.

    python tests/benchmarks/backbones.py                          speed of one net of each family
    python tests/benchmarks/backbones.py resnet18 --size 64 --rounds 3 --json speed.json
    python tests/benchmarks/backbones.py --memory                 peak of one training step, in a fresh process each
    python tests/benchmarks/backbones.py --build                  create_model("efficientnet_b7")

The nets of a comparison are in one process, on the same threads (OMP_NUM_THREADS says how many), and take turns: in
each round ours, the peer and a second copy of ours, in an order that is rotated from round to round. A figure is the
median of the rounds' ratios ours / peer: below 1 ours is the faster. ours / second copy is what noise alone makes.
"""

import argparse
import copy
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from zoo.report import results

NAMES = (
    *("alexnet", "vgg11", "vgg11_bn", "googlenet", "inception_v3", "inception_v4", "inception_resnet_v2"),
    *("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "squeezenet1_1"),
    *("mobilenet_v1", "mobilenet_v2", "mobilenet_v3_large"),
    *("efficientnet_b0", "efficientnet_v2_s", "efficientnet_lite0"),
)
TIMM = {  # what torchvision has not: timm's name, and its options that make it drop as much as ours does
    "inception_v4": ("inception_v4", {"drop_rate": 0.2}),
    "inception_resnet_v2": ("inception_resnet_v2", {"drop_rate": 0.2}),
    "mobilenet_v1": ("mobilenetv1_100", {}),
    **{
        f"efficientnet_lite{i}": (f"tf_efficientnet_lite{i}", {"drop_rate": 0.2, "drop_path_rate": 0.2})
        for i in range(5)
    },
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
MOST = {
    "ratio": 1.10,
    "over itself": 0.05,
    "mean": 1.02,
    "memory": 1.02,
    "build": 1.5,
}  # times the peer's
SAMPLE = 0.05  # seconds: the least that one figure is measured over; faster nets are called several times


def ours(name: str) -> zoo.Backbone:
    auxiliary = {"aux_logits": False} if "aux_logits" in zoo.BACKBONES[name].options else {}
    return zoo.create_model(name, **auxiliary)


def peer(name: str) -> nn.Module:
    if name in TIMM:
        import timm

        other, options = TIMM[name]
        return timm.create_model(other, **options)
    from torchvision.models import get_model

    auxiliary = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, **auxiliary)


def load(name: str, x: Tensor) -> dict[str, nn.Module]:
    """ "ours", "peer" and "again", a second copy of ours: the peer's fresh weights, batch norms settled on x."""
    theirs = peer(name)
    norms = {module: module.momentum for module in theirs.modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        theirs.train()(x)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    mine = ours(name)
    mine.load_state_dict(theirs.state_dict())
    return {"ours": mine, "peer": theirs, "again": copy.deepcopy(mine)}


def images(name: str, args: argparse.Namespace) -> Tensor:
    side = args.size or zoo.model_info(name).input_size[-1]
    return torch.randn(args.batch, 3, side, side)


def largest_difference(models: dict[str, nn.Module], x: Tensor) -> float:
    """Between the scores of ours and the peer's, as a share of the largest score."""
    with torch.no_grad():
        mine, theirs = models["ours"].eval()(x), models["peer"].eval()(x)
    return ((mine - theirs).abs().max() / theirs.abs().max()).item()


def call(model: nn.Module, x: Tensor, mode: str) -> Callable[[], None]:
    """What is timed: a forward in eval mode, or forward, backward and SGD in train mode."""
    model.train(mode == "train")
    if mode == "forward":

        def forward() -> None:
            with torch.no_grad():
                model(x)

        return forward
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)  # the same work, and weights that stay
    y = torch.arange(len(x)) % 1000

    def train() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    return train


def take_turns(calls: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Seconds of one call of each, in each round."""

    def seconds(what: Callable[[], object], repeats: int = 1) -> float:
        start = time.perf_counter()
        for _ in range(repeats):
            what()
        return (time.perf_counter() - start) / repeats

    for what in calls.values():
        what()
    repeats = max(1, round(SAMPLE / min(seconds(what) for what in calls.values())))
    order, times = list(calls), {key: [] for key in calls}
    for i in range(rounds):
        first = i % len(order)
        for key in order[first:] + order[:first]:
            times[key].append(seconds(calls[key], repeats))
    return times


def compared(times: dict[str, list[float]]) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(times["ours"], times["peer"], strict=True)]
    noise = [a / b for a, b in zip(times["ours"], times["again"], strict=True)]
    seconds = {key: statistics.median(each) for key, each in times.items()}
    medians = {"ratio": statistics.median(ratios), "self_ratio": statistics.median(noise)}
    return {**medians, "seconds": seconds, "ratios": ratios, "self_ratios": noise}


def speed(names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    found = []
    line = "{:22} {:8} {:14} {:>9} {:>9} {:>7} {:>7}".format
    print(line("net", "mode", "layout", "ours, ms", "peer, ms", "ratio", "self"))
    for name in names:
        x = images(name, args)
        models = load(name, x)
        difference = largest_difference(models, x)
        if difference > 1e-3:
            print(f"{name}: the scores differ from the peer's by {difference:.1e} of the largest")
        for layout in args.layout:
            placed = {key: model.to(memory_format=LAYOUTS[layout]) for key, model in models.items()}
            like = x.contiguous(memory_format=LAYOUTS[layout])
            for mode in args.mode:
                calls = {key: call(model, like, mode) for key, model in placed.items()}
                row = {"name": name, "mode": mode, "layout": layout, "difference": difference}
                row |= compared(take_turns(calls, args.rounds))
                found.append(row)
                mine, theirs = (f"{1e3 * row['seconds'][key]:.1f}" for key in ("ours", "peer"))
                print(line(name, mode, layout, mine, theirs, f"{row['ratio']:.3f}", f"{row['self_ratio']:.3f}"))
                sys.stdout.flush()
    means = {}
    for layout in args.layout:
        for mode in args.mode:
            same = [row for row in found if (row["mode"], row["layout"]) == (mode, layout)]
            mean = {key: statistics.geometric_mean(row[key] for row in same) for key in ("ratio", "self_ratio")}
            means[f"{mode}, {layout}"] = mean
            shown = f"{mean['ratio']:.3f}", f"{mean['self_ratio']:.3f}"
            print(line("geometric mean", mode, layout, "", "", *shown))
    verdict(
        [
            f"{row['name']}, {row['mode']}, {row['layout']}"
            for row in found
            if row["ratio"] > min(MOST["ratio"], row["self_ratio"] + MOST["over itself"])
        ]
        + [f"the mean of {key}" for key, mean in means.items() if mean["ratio"] > MOST["mean"]]
    )
    return {"speed": found, "geometric_means": means}


def verdict(over: list[str]) -> None:
    print("over its limit: " + "; ".join(over) if over else "all are within their limits")


def resident(field: str) -> int:
    """Bytes of this process: VmRSS, what is in memory now; VmHWM, the most since the last reset."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def peak_of_a_step(name: str, who: str, args: argparse.Namespace) -> int:
    """Bytes that one training step adds to this process at its peak: activations, gradients, momentum, scratch.

    torch does not count memory on the CPU, and ru_maxrss never falls: what importing and building took at their worst
    would hide part of the step. So the kernel's own mark is reset first (5 → clear_refs, Linux only), and the step's
    highest mark is taken less what was resident before it. The parent has malloc give every block of 64 kB or more
    back when it is freed, so that the mark follows live tensors and not malloc's hoard.
    """
    small = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 1000))
    call(small, torch.randn(2, 3, 8, 8), "train")()  # loads what any step loads: threads, kernels, autograd
    x = images(name, args).contiguous(memory_format=LAYOUTS[args.layout[0]])
    step = call((ours if who == "ours" else peer)(name).to(memory_format=LAYOUTS[args.layout[0]]), x, "train")
    Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    step()
    return resident("VmHWM") - before


def memory(names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    found = []
    line = "{:22} {:14} {:>9} {:>9} {:>7}".format
    print(line("net", "layout", "ours, MB", "peer, MB", "ratio"))
    for name in names:
        for layout in args.layout:
            size = ["--size", str(args.size)] if args.size else []
            options = ["--layout", layout, "--batch", str(args.batch), *size]
            row: dict[str, Any] = {"name": name, "layout": layout}
            for who in "ours", "peer":
                command = [sys.executable, __file__, name, *options, "--step", who]
                given_back = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
                done = subprocess.run(
                    command, env=os.environ | given_back, stdout=subprocess.PIPE, text=True, check=True
                )
                row[who] = int(done.stdout)
            row["ratio"] = row["ours"] / row["peer"]
            found.append(row)
            print(line(name, layout, *(f"{row[who] / 1e6:.1f}" for who in ("ours", "peer")), f"{row['ratio']:.3f}"))
            sys.stdout.flush()
    mean = statistics.geometric_mean(row["ratio"] for row in found)
    print(line("geometric mean", "", "", "", f"{mean:.3f}"))
    verdict([f"{row['name']}, {row['layout']}" for row in found if row["ratio"] > MOST["memory"]])
    return {"memory": found, "geometric_mean": mean}


def build(names: list[str], args: argparse.Namespace) -> dict[str, Any]:
    found = []
    line = "{:22} {:>9} {:>9} {:>7} {:>7}".format
    print(line("net", "ours, ms", "peer, ms", "ratio", "self"))
    for name in names:
        calls = {"ours": lambda name=name: ours(name), "peer": lambda name=name: peer(name)}
        row = {"name": name, **compared(take_turns({**calls, "again": calls["ours"]}, args.rounds))}
        found.append(row)
        mine, theirs = (f"{1e3 * row['seconds'][key]:.1f}" for key in ("ours", "peer"))
        print(line(name, mine, theirs, f"{row['ratio']:.3f}", f"{row['self_ratio']:.3f}"))
    verdict([row["name"] for row in found if row["ratio"] > MOST["build"]])
    return {"build": found}


def parsed() -> argparse.Namespace:
    def several(known: tuple[str, ...]) -> Callable[[str], list[str]]:
        def listed(text: str) -> list[str]:
            if unknown := set(text.split(",")) - set(known):
                raise argparse.ArgumentTypeError(f"{', '.join(unknown)} is none of {', '.join(known)}")
            return text.split(",")

        return listed

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="nets that torchvision or timm has too; default: one of each family")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--size", type=int, help="side of the images; default: what each net was published for")
    parser.add_argument("--mode", type=several(("forward", "train")), default=["forward", "train"])
    parser.add_argument("--layout", type=several(tuple(LAYOUTS)), default=list(LAYOUTS))
    parser.add_argument("--json", type=Path, help="where to save every ratio, and what it takes to repeat them")
    parser.add_argument("--memory", action="store_true", help="peak memory of one training step instead of speed")
    parser.add_argument("--build", action="store_true", help="time to build instead of speed; default: efficientnet_b7")
    parser.add_argument("--step", choices=("ours", "peer"), help=argparse.SUPPRESS)  # what --memory starts for itself
    args = parser.parse_args()
    for name in args.names:
        if not zoo.is_model(name):
            parser.error(f"no net is named {name!r}")
    return args


def main() -> None:
    args = parsed()
    torch.manual_seed(0)
    if args.step:
        print(peak_of_a_step(args.names[0], args.step, args))
        return
    names = args.names or (["efficientnet_b7"] if args.build else list(NAMES))
    missing = [name for name in names if not zoo.is_model(name)]
    if missing:
        print(f"not registered, left out: {', '.join(missing)}")
    measure = memory if args.memory else build if args.build else speed
    found = measure([name for name in names if name not in missing], args)
    if args.json:
        told = {key: value for key, value in vars(args).items() if key not in ("json", "step")} | {"names": names}
        versions = results.versions() | ({"timm": version("timm")} if set(names) & set(TIMM) else {})
        surroundings = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": told,
            "threads": torch.get_num_threads(),
            "versions": versions,
            "hardware": results.hardware(),
            "commit": results.commit(),
        }
        results.save({**surroundings, **found}, args.json)


if __name__ == "__main__":
    main()
