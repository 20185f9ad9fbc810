"""Convolutional networks by name. Importing it is cheap: torchvision, Lightning and Hydra are left to their users."""

from zoo.backbones import BACKBONES, Backbone, is_model, list_models, model_info
from zoo.fit import LoadReport
from zoo.pixels import OnPixels, create_transform, on_pixels, probabilities
from zoo.sources import Preprocess
from zoo.taps import extract, tapped
from zoo.weights import create_model, load_checkpoint, load_pretrained, load_weights, save_pretrained

__version__ = "0.1.0"

__all__ = [
    "BACKBONES",
    "Backbone",
    "LoadReport",
    "OnPixels",
    "Preprocess",
    "create_model",
    "create_transform",
    "extract",
    "is_model",
    "list_models",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "model_info",
    "on_pixels",
    "probabilities",
    "save_pretrained",
    "tapped",
]
