"""Answers of a registry whose tags a test decides, without a store."""

from types import SimpleNamespace
from typing import Any


class Registry:
    """A store of one model with two versions, whose answers have some tags."""

    def __init__(self, tags: dict[str, str], version_tags: dict[str, str], aliases: dict[str, str]) -> None:
        self.model = SimpleNamespace(name="m", tags=tags, aliases=aliases)
        self.versions = [
            SimpleNamespace(name="m", version=number, tags=version_tags, creation_timestamp=1000)
            for number in ("1", "2")
        ]

    def get_registered_model(self, name: str) -> Any:
        return self.model

    def search_model_versions(self, text: str) -> list[Any]:
        return self.versions

    def search_registered_models(self, page_token: str | None) -> Any:
        return Page([self.model])

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self.model.tags[key] = value

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.model.aliases[alias] = version


class Page(list[Any]):
    token = None
