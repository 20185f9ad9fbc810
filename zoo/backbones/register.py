"""Where backbones are registered. A file of its own, so that a family can import it while the package is loading."""

from zoo.registry import Registry

BACKBONES = Registry("backbone")
