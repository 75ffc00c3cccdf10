"""`Location`: where an image is, whether a file, a folder, a GDAL virtual path or a URL."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

# What GDAL calls files on servers and in object stores. Credentials come from the usual environment variables.
_VIRTUAL = {"http": "/vsicurl/http://", "https": "/vsicurl/https://", "s3": "/vsis3/", "gs": "/vsigs/", "az": "/vsiaz/"}
_SECRETS = re.compile(r"""(?<=://)[^\s/@]+@|(?<=\S)\?[^\s'",]+""")
_URL = re.compile(rf"({'|'.join([*_VIRTUAL, 'file'])}):/+(.*)", re.DOTALL)


def redacted(text: str) -> str:
    """What another program says, without queries and passwords of URLs, even where it cut these to their last part."""
    return _SECRETS.sub("", text)


BAND = "{band}"
SEPARATORS = "_-. "


def without_band(name: str) -> str:
    """What an image is called whose files have this name, with `{band}`: what is around that, without separators."""
    before, _, after = name.partition(BAND)
    return "_".join(part for part in (before.rstrip(SEPARATORS), after.lstrip(SEPARATORS)) if part) or "image"


@dataclass(frozen=True, slots=True)
class Location:
    """Where an image is. `str` of it is for messages: a URL without query and password, as these may be secret.

    Attributes:
        text: a path, a GDAL virtual path (`/vsizip/...`) or a URL (http, https, s3, gs, az).
    """

    text: str

    @classmethod
    def of(cls, place: Path | str | Location) -> Location:
        """The location that a path or text means; a URL that went through `Path` gets its second slash back."""
        if isinstance(place, Location):
            return place
        found = _URL.fullmatch(str(place))
        if found is None:
            return cls(str(Path(place)) if str(place) else "")
        scheme, rest = found.groups()
        return cls(unquote(f"/{rest}")) if scheme == "file" else cls(f"{scheme}://{rest}")

    @property
    def is_remote(self) -> bool:
        """Whether it is a URL."""
        return "://" in self.text

    @property
    def is_virtual(self) -> bool:
        """Whether only GDAL knows what the text means."""
        return self.text.startswith("/vsi")

    @property
    def is_local(self) -> bool:
        """Whether it is a file or folder of this computer."""
        return not (self.is_remote or self.is_virtual)

    @property
    def path(self) -> Path:
        """The file. Of a URL a path that names no file, whose name and stem are those of the URL."""
        return Path("{}:/{}{}".format(*self._bare)) if self.is_remote else Path(self.text)

    @property
    def name(self) -> str:
        """What the image is called: its file's name without suffix, also ".ome"; of a folder, but Zarr, all of it."""
        path = self.path
        if BAND in path.name:
            return without_band(path.stem)
        whole = self.is_local and path.suffix.lower() != ".zarr" and path.is_dir()
        return path.name if whole else re.sub(r"(?<=.)\.ome$", "", path.stem, flags=re.IGNORECASE)

    @property
    def gdal(self) -> str:
        """What GDAL opens."""
        if not self.is_remote:
            return self.text
        scheme, _, rest = self.text.partition("://")
        return _VIRTUAL[scheme] + rest

    def __str__(self) -> str:
        return urlunsplit((*self._bare[:2], self._bare[2], "", "")) if self.is_remote else self.text

    @property
    def _bare(self) -> tuple[str, str, str]:
        """Scheme, host and path of a URL."""
        parts = urlsplit(self.text)
        return parts.scheme, parts.netloc.rpartition("@")[2], parts.path
