"""A question made on the spot, its answer, and whether the answer is right."""

from transferscope.verbs.demo.make import make_demo

__all__ = ["make_demo"]
