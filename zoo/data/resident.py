"""Whether a set's images live on the device that trains."""

import os
from pathlib import Path

import torch

from zoo.data.images import Arrays, Images
from zoo.data.streams import Files

SHARE = 0.5  # of a device's free memory: the most that resident="auto" gives to a set


def placed(images: Images, device: torch.device, resident: bool | str) -> Images:
    """The images where batches are to be taken from.

    resident: True for the device, files decoded once for all; False for where they are; "auto" for the device if it
    takes at most half of its free memory, and for files as they are. Raises ValueError for files that do not fit into
    memory, or that are augmented while they are decoded.
    """
    if resident is False or (isinstance(images, Arrays) and images.images.device == device):
        return images
    if isinstance(images, Files):
        return decoded(images).to(device) if resident is True else images
    return images.to(device) if resident is True or size(images) <= SHARE * free(device) else images


def size(images: Images) -> int:
    """Bytes of its pixels."""
    channels, height, width = images.shape
    return len(images.labels) * channels * height * width


def free(device: torch.device) -> int:
    """Bytes that a device has left."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if Path("/proc/meminfo").is_file():
        told = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(told["MemAvailable"].split()[0]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def decoded(files: Files) -> Arrays:
    """All of them, once and for all. Raises ValueError as `placed` says."""
    if files.crop or files.transforms:
        raise ValueError("data.resident=true decodes each file once, but data augmentation works on files: leave one")
    needed, there = size(files), free(torch.device("cpu"))
    if needed > there:
        amounts = f"{needed / 1e9:.1f} GB of pixels, {there / 1e9:.1f} GB of memory are free"
        raise ValueError(f"data.resident=true: {amounts}; leave it out, and files are decoded as they are asked for")
    indices = torch.arange(len(files.labels))
    parts = list(files.batches((chosen, 0) for chosen in indices.split(256)))
    return Arrays(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))
