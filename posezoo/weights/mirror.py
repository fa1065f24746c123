"""A mirror: a folder, or the same folder on a web server, of converted weights.

    SHA256SUMS                              as `sha256sum -c` reads it
    <architecture.tag>/model.safetensors
    <architecture.tag>/config.json          for `local-dir:`

`posezoo fetch NAMES --to DIR` writes it, `POSEZOO_MIRROR=DIR|https://…` asks it before all others.
A mirror is its owner's word: a file must have the hash in SHA256SUMS, and the one in `pins.json`
where the package has it. Its metadata must name the authors' file whose hash is in the table.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from ..errors import IntegrityError, WeightsUnavailableError
from ..files import replacing, sha256_of, write_text
from ..zoo.config import PretrainedCfg
from .cache import CONFIG_FILE, WEIGHTS_FILE, CacheDir, cache_root, locked
from .located import Located
from .tensors import read_metadata
from .transfer import save
from .verify import verify_file
from .web import Web, page

__all__ = ["MANIFEST", "add", "find", "mirror"]

MANIFEST = "SHA256SUMS"
_LINE = re.compile(r"([0-9a-f]{64}) [ *](\S.*)")


def mirror() -> str | None:
    """Return the folder or the URL of the mirror that the user named."""
    return os.environ.get("POSEZOO_MIRROR") or None


def find(
    where: str, cfg: PretrainedCfg, *, sha256: str | None, cache_dir: CacheDir, web: Web
) -> Located:
    """Return the weights of a variant from the mirror `where`.

    Those in a folder are used where they are, those on a server are downloaded.

    Args:
        where: folder or URL.
        cfg: the variant.
        sha256: of the weights, if the package pins it.
        cache_dir: as in `create_model`.
        web: how to ask web servers.

    Raises:
        WeightsUnavailableError: the mirror does not have them, or cannot be reached.
        IntegrityError: it has others.
    """
    name = f"{cfg.name}/{WEIGHTS_FILE}"
    is_remote = "://" in where
    expected = _read(where, web, is_remote=is_remote).get(name)
    if expected is None:
        raise WeightsUnavailableError(f"{MANIFEST} has no {name}")
    if sha256 not in (None, expected):
        raise IntegrityError(f"{name} has hash {expected[:16]}… there, but {sha256} is pinned")
    if is_remote:
        path = cache_root(cache_dir) / "mirror" / name
        with locked(path.parent):
            if not path.is_file() or sha256_of(path) != expected:
                save(f"{where.rstrip('/')}/{name}", path, sha256=expected, web=web)
    else:
        path = Path(where).expanduser() / name
        if not path.is_file():
            raise WeightsUnavailableError(f"{name} is in {MANIFEST}, but there is no such file")
    verify_file(path, expected, cache_dir=cache_dir)
    _check_origin(path, cfg)
    return Located(path=path, sha256=expected)


def _read(where: str, web: Web, *, is_remote: bool) -> dict[str, str]:
    """Return the hashes by file name."""
    if not is_remote:
        return _read_folder(Path(where).expanduser())
    url = urlsplit(where)
    if url.scheme != "https" and url.hostname != "127.0.0.1":
        raise WeightsUnavailableError("a mirror on the web needs https://")
    is_page, content = page(f"{where.rstrip('/')}/{MANIFEST}", web)
    if is_page:
        raise WeightsUnavailableError(f"a web page answers instead of {MANIFEST}")
    return _parse(content.decode("utf-8", "replace"))


def _read_folder(folder: Path) -> dict[str, str]:
    try:
        return _parse((folder / MANIFEST).read_text(encoding="utf-8"))
    except OSError as error:
        raise WeightsUnavailableError(f"{MANIFEST} cannot be read: {error.strerror}") from error


def _parse(text: str) -> dict[str, str]:
    found = (_LINE.fullmatch(line.rstrip()) for line in text.splitlines())
    return {match[2]: match[1] for match in found if match}


def _check_origin(path: Path, cfg: PretrainedCfg) -> None:
    """Refuse weights that were made from another file than the one in the table."""
    published = cfg.source.original_sha256
    made_from = read_metadata(path).get("origin_sha256", "")
    if published and not made_from.startswith(published):
        raise IntegrityError(
            f"{path.name} was made from a file with hash {made_from[:16] or 'unknown'}…, "
            f"not from the published one ({published[:16]}…)"
        )


def add(folder: Path, cfg: PretrainedCfg, found: Located) -> Path:
    """Copy weights into a mirror and list them in its manifest; return the file.

    Raises:
        IntegrityError: the file changed meanwhile.
    """
    target = folder / cfg.name / WEIGHTS_FILE
    if not target.is_file() or sha256_of(target) != found.sha256:
        with replacing(target) as temporary:
            shutil.copyfile(found.path, temporary)
            if sha256_of(temporary) != found.sha256:
                raise IntegrityError(f"{found.path} changed while it was copied")
    files = [target]
    config = found.path.with_name(CONFIG_FILE)
    if config.is_file():
        files.append(target.with_name(CONFIG_FILE))
        with replacing(files[-1]) as temporary:
            shutil.copyfile(config, temporary)
    with locked(folder):
        listed = _read_folder(folder) if (folder / MANIFEST).is_file() else {}
        listed |= {str(p.relative_to(folder).as_posix()): sha256_of(p) for p in files}
        lines = (f"{listed[name]}  {name}\n" for name in sorted(listed))
        write_text(folder / MANIFEST, "".join(lines))
    return target
