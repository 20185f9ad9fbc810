"""Convolutional networks by name. Importing it is cheap: torchvision, Lightning and Hydra are left to their users."""

from zoo.backbones import BACKBONES, Backbone, is_model, list_models, model_info
from zoo.pixels import OnPixels, on_pixels, probabilities
from zoo.taps import extract, tapped
from zoo.weights import create_model, load_checkpoint

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "Backbone",
    "OnPixels",
    "create_model",
    "extract",
    "is_model",
    "list_models",
    "load_checkpoint",
    "model_info",
    "on_pixels",
    "probabilities",
    "tapped",
]
