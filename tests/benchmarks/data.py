"""Our batches beside torchvision's DataLoader: images a second, and the share of a training step that data takes.

    python tests/benchmarks/data.py                             MNIST with shift, CIFAR with crop and flip
    python tests/benchmarks/data.py --folder PATH               files of a class-folder tree too: decoded and cropped
    python tests/benchmarks/data.py --step                      share of a training step of resnet20 on CIFAR's size
    python tests/benchmarks/data.py --rounds 5 --json data.json

The ways are in one process, on the same threads (OMP_NUM_THREADS says how many), and take turns in an order that is
rotated from round to round; a figure is the median of the rounds. Each way ends at float images on the device. The
pixels are random: their values change nothing.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from backbones import take_turns
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import zoo
from zoo.data import AUGMENTS, Batches, create_data
from zoo.data.images import Arrays
from zoo.report import results

SETS = {  # shape, the DataLoader's transforms, ours, the least ratio to the DataLoader with 2 workers
    "mnist, shift": ((1, 28, 28), [v2.RandomCrop(28, padding=2)], {"crop": {"padding": 2}}, 20),
    "cifar, crop and flip": (
        (3, 32, 32),
        [v2.RandomCrop(32, padding=4), v2.RandomHorizontalFlip()],
        {"crop": {"padding": 4}, "flip": {}},
        8,
    ),
}
TENSORS = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True)]
MOST_OF_A_STEP = 0.03


class Pictures(Dataset):
    """As torchvision's MNIST and CIFAR10 hand out an image: an array → PIL's image → its transforms."""

    def __init__(self, images: Tensor, transforms: list[nn.Module]) -> None:
        self.images = images.permute(0, 2, 3, 1).squeeze(-1).numpy()
        self.transform = v2.Compose([*transforms, *TENSORS])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.images[index])), index % 10


def pixels(count: int, shape: tuple[int, int, int]) -> Tensor:
    return torch.randint(256, (count, *shape), dtype=torch.uint8)


def endless(loader: Iterable[Any], device: torch.device) -> Iterator[Tensor]:
    """Batches of epoch after epoch: the start of workers, once an epoch, is part of it."""
    while True:
        for x, _ in loader:
            yield x.to(device, non_blocking=True)


def ours(images: Tensor, augment: dict[str, dict[str, Any]], args: argparse.Namespace) -> Batches:
    changes = [AUGMENTS.bind(name, **options) for name, options in augment.items()]
    source = Arrays(images, torch.arange(len(images)) % 10).to(args.device)
    return Batches(source, batch_size=args.batch, training=True, shuffle=True, augment=changes, device=args.device)


def theirs(dataset: Dataset, workers: int, args: argparse.Namespace) -> DataLoader:
    return DataLoader(dataset, args.batch, shuffle=True, drop_last=True, num_workers=workers)


def taking(loader: Iterable[Any], batches: int, device: torch.device) -> Callable[[], None]:
    """What is timed: the next `batches` batches, on the device when it returns."""
    stream = endless(loader, device)

    def take() -> None:
        for _ in islice(stream, batches):
            pass
        if device.type != "cpu":
            torch.accelerator.synchronize()

    return take


def resident(args: argparse.Namespace) -> list[dict[str, Any]]:
    found = []
    line = "{:22} {:28} {:>12} {:>8}".format
    print(line("set", "way", "images/s", "ratio"))
    for name, (shape, transforms, augment, least) in SETS.items():
        images = pixels(args.count, shape)
        ways = {
            "ours, resident": (ours(images, augment, args), 16 * args.batches),
            "DataLoader, 2 workers": (theirs(Pictures(images, transforms), 2, args), args.batches),
            "DataLoader, 0 workers": (theirs(Pictures(images, transforms), 0, args), args.batches),
        }
        rates = rates_of(ways, args)
        found.append({"set": name, "images_per_second": rates, "least": least})
        for way, rate in rates.items():
            print(line(name, way, f"{rate:,.0f}", f"{rates['ours, resident'] / rate:.1f}"))
        ratio = rates["ours, resident"] / rates["DataLoader, 2 workers"]
        print(f"{'as' if ratio >= least else 'NOT as'} wanted: at least {least} times the DataLoader with 2 workers")
    return found


def rates_of(ways: dict[str, tuple[Iterable[Any], int]], args: argparse.Namespace) -> dict[str, float]:
    calls = {way: taking(loader, batches, args.device) for way, (loader, batches) in ways.items()}
    times = take_turns(calls, args.rounds)
    return {
        way: statistics.median(args.batch * batches / seconds for seconds in times[way])
        for way, (_, batches) in ways.items()
    }


def folder(args: argparse.Namespace) -> dict[str, Any]:
    """Files → 224×224, as torchvision's reference for training does it, and as data=image_folder does."""
    train = [v2.RandomResizedCrop(224, antialias=True), v2.RandomHorizontalFlip(), *TENSORS]
    data = create_data(
        "image_folder",
        root=str(args.folder),
        size=224,
        workers=2,
        batch_size=args.batch,
        augment={"random_resized_crop": {}, "flip": {}},
    )
    ways = {
        "ours, 2 workers": (data.training(args.device, epoch=int), args.batches),
        "ImageFolder, 2 workers": (theirs(ImageFolder(args.folder, v2.Compose(train)), 2, args), args.batches),
    }
    rates = rates_of(ways, args)
    for way, rate in rates.items():
        print(f"{way:28} {rate:12,.0f} images/s")
    print(f"ours / torchvision's: {rates['ours, 2 workers'] / rates['ImageFolder, 2 workers']:.2f}")
    return rates


def step(args: argparse.Namespace) -> dict[str, float]:
    """The time of the next batch in that of a training step of resnet20 with crop and flip."""
    shape, _, augment, _ = SETS["cifar, crop and flip"]
    stream = endless(ours(pixels(args.count, shape), augment, args), args.device)
    model = zoo.create_model("resnet20").to(args.device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0, momentum=0.9)
    y = torch.arange(args.batch, device=args.device) % 10

    def seconds(what: Callable[[], Any]) -> tuple[float, Any]:
        if args.device.type != "cpu":
            torch.accelerator.synchronize()
        start = time.perf_counter()
        result = what()
        if args.device.type != "cpu":
            torch.accelerator.synchronize()
        return time.perf_counter() - start, result

    def train(x: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()

    shares = []
    for i in range(10 * args.rounds):
        loading, x = seconds(lambda: next(stream))
        training, _ = seconds(lambda x=x: train(x))
        if i > 2:  # the first ones warm up
            shares.append(loading / (loading + training))
    share = statistics.median(shares)
    print(f"data takes {100 * share:.2f} % of a training step of resnet20, batch {args.batch}")
    print("as wanted" if share <= MOST_OF_A_STEP else f"NOT as wanted: at most {100 * MOST_OF_A_STEP:g} %")
    return {"share": share}


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument(
        "--batches", type=int, default=20, help="of the DataLoader in a round; 16 times as many of ours"
    )
    parser.add_argument("--count", type=int, default=50_000, help="images in a set")
    parser.add_argument("--device", type=torch.device, default="cpu")
    parser.add_argument("--folder", type=Path, help="class folders of images to decode")
    parser.add_argument("--step", action="store_true", help="the share of a training step instead of images a second")
    parser.add_argument("--json", type=Path, help="where to save the figures, and what it takes to repeat them")
    return parser.parse_args()


def main() -> None:
    args = parsed()
    torch.manual_seed(0)
    found = {"step": step(args)} if args.step else {"folder": folder(args)} if args.folder else {"sets": resident(args)}
    if args.json:
        surroundings = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": {key: str(value) for key, value in vars(args).items() if key != "json"},
            "threads": torch.get_num_threads(),
            "versions": results.versions(),
            "hardware": results.hardware(),
            "commit": results.commit(),
        }
        results.save({**surroundings, **found}, args.json)


if __name__ == "__main__":
    main()
