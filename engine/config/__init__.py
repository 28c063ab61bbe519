"""Recipes: schema, strict loader, overrides. Never imports torch."""

from engine.config.loader import dump_recipe, find_recipe, load_recipe
from engine.config.overrides import KeyInfo, Override, RecipeFileError, parse_overrides, valid_keys
from engine.config.schema import Recipe

__all__ = [
    "KeyInfo",
    "Override",
    "Recipe",
    "RecipeFileError",
    "dump_recipe",
    "find_recipe",
    "load_recipe",
    "parse_overrides",
    "valid_keys",
]
