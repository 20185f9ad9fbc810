"""Sets by name, as batches of pixels in [0, 1]."""

from zoo.data import faces, folders, listed, mixing, norb, policies, recipes, shards  # noqa: F401  (they register)
from zoo.data.augment import AUGMENTS
from zoo.data.batches import Batches
from zoo.data.module import ImageData, create_data
from zoo.data.sets import DATASETS

__all__ = ["AUGMENTS", "DATASETS", "Batches", "ImageData", "create_data"]
