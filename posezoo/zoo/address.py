"""Where a file can be fetched: `Address`, one record for each kind of host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from ..errors import InputError

__all__ = ["Address", "drive", "folder", "https", "hub"]

Kind = Literal["hub", "hub_dataset", "https", "drive", "folder"]

_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_VALID = {
    "hub": (_REPOSITORY, "owner/repository"),
    "hub_dataset": (_REPOSITORY, "owner/repository"),
    "https": (re.compile(r"https?://[^/]+/.+"), "https://…"),
    "drive": (re.compile(r"[\w-]+"), "the id of a Google Drive file"),
    "folder": (re.compile(r".+"), "a folder"),
}


@dataclass(frozen=True, kw_only=True)
class Address:
    """One address of a file.

    Attributes:
        kind: a model or a data-set repository on the Hub, a web server, Google Drive, or a
            local folder.
        where: the repository `owner/name`, the URL, the Drive id, or the folder.
        file: the file's path in a repository or folder.
        revision: commit of a repository, 40 hex digits; None is the main branch.
        member: the file's path in the tar or zip that is at the address.
        publisher: who publishes the weights here; None where somebody else keeps a copy.
    """

    kind: Kind
    where: str
    file: str | None = None
    revision: str | None = None
    member: str | None = None
    publisher: str | None = None

    def __post_init__(self) -> None:
        pattern, valid = _VALID.get(self.kind, (None, ""))
        if pattern is None:
            raise InputError(f"address kind is {self.kind!r}, expected one of {', '.join(_VALID)}")
        if not pattern.fullmatch(self.where):
            raise InputError(f"{self.kind} address is {self.where!r}, expected {valid}")
        if (self.file is None) != (self.kind in ("https", "drive")):
            raise InputError(f"address {self.where!r}: repositories and folders, only, have a file")
        if self.revision is not None and not (self.is_hub and _COMMIT.fullmatch(self.revision)):
            raise InputError(
                f"address {self.where!r}: revision is {self.revision!r}, expected the 40 hex "
                "digits of a commit on the Hub"
            )

    @property
    def is_hub(self) -> bool:
        """Whether the Hub is asked."""
        return self.kind in ("hub", "hub_dataset")

    def __str__(self) -> str:
        at = f"@{self.revision[:8]}" if self.revision else ""
        text = {
            "hub": f"hf:{self.where}/{self.file}{at}",
            "hub_dataset": f"hf:datasets/{self.where}/{self.file}{at}",
            "drive": self.link,
            "folder": f"{self.where}/{self.file}",
        }.get(self.kind, self.where)
        return f"{self.member} in {text}" if self.member else text

    @property
    def link(self) -> str:
        """What a browser opens."""
        base = {
            "hub": "https://huggingface.co/",
            "hub_dataset": "https://huggingface.co/datasets/",
            "drive": "https://drive.google.com/file/d/",
        }.get(self.kind, "")
        return f"{base}{self.where}" + ("/view" if self.kind == "drive" else "")


def hub(
    repository: str,
    file: str,
    *,
    revision: str | None = None,
    member: str | None = None,
    publisher: str | None = None,
) -> Address:
    """A file of a model repository on the Hub."""
    return Address(
        kind="hub",
        where=repository,
        file=file,
        revision=revision,
        member=member,
        publisher=publisher,
    )


def https(url: str, *, member: str | None = None, publisher: str | None = None) -> Address:
    """A file on a web server."""
    return Address(kind="https", where=url, member=member, publisher=publisher)


def drive(file_id: str, *, member: str | None = None, publisher: str | None = None) -> Address:
    """A file on Google Drive."""
    return Address(kind="drive", where=file_id, member=member, publisher=publisher)


def folder(path: str, file: str, *, member: str | None = None) -> Address:
    """A file in a local folder."""
    return Address(kind="folder", where=path, file=file, member=member)
