"""Good files made bad by a seed: bytes anywhere, values of JSON, members of archives and tensors."""

import copy
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**56, 2**63 - 1, 2**64 - 1)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        -1,
        0,
        1.5,
        1e308,
        -1e308,
        2**31,
        2**53,
        2**80,
        "",
        "x",
        "../x",
        "\x1b[2J",
        "\ud800",
        "a" * 5000,
    ),
    *([], {}, [[]], {"a": None}, [1, "x"], "nan", "1e999", "/etc/passwd", "x\x00y", [0] * 1000),
)


def flip(content: bytes, random_: random.Random) -> bytes:
    """Up to 8 bits the other way."""
    out = bytearray(content)
    for _ in range(random_.randint(1, 8)):
        if out:
            out[random_.randrange(len(out))] ^= 1 << random_.randrange(8)
    return bytes(out)


def cut(content: bytes, random_: random.Random) -> bytes:
    """The beginning only."""
    return content[: random_.randrange(len(content) + 1)]


def remove(content: bytes, random_: random.Random) -> bytes:
    """A part less."""
    start, end = _range(content, random_)
    return content[:start] + content[end:]


def repeat(content: bytes, random_: random.Random) -> bytes:
    """A part many times."""
    start, end = _range(content, random_)
    return content[:end] + content[start:end] * random_.randint(1, 20) + content[end:]


def noise(content: bytes, random_: random.Random) -> bytes:
    """A part of random bytes."""
    start, end = _range(content, random_)
    return content[:start] + random_.randbytes(end - start) + content[end:]


def number(content: bytes, random_: random.Random) -> bytes:
    """An extreme number somewhere, of 1 to 8 bytes."""
    size = random_.choice((1, 2, 4, 8))
    value = random_.choice(NUMBERS) % (1 << 8 * size)
    start = random_.randrange(max(len(content) - size, 0) + 1)
    return content[:start] + value.to_bytes(size, random_.choice(("little", "big"))) + content[start + size :]


ZIP_METHODS = (
    zipfile.ZIP_STORED,
    zipfile.ZIP_STORED,
    zipfile.ZIP_DEFLATED,
    zipfile.ZIP_BZIP2,
    zipfile.ZIP_LZMA,
)
TAR_MODES = ("w", "w", "w:gz", "w:bz2", "w:xz")
BYTES: tuple[Callable[[bytes, random.Random], bytes], ...] = (flip, cut, remove, repeat, noise, number)


def of_bytes(content: bytes, random_: random.Random) -> bytes:
    """One or two changes of bytes."""
    for _ in range(random_.randint(1, 2)):
        content = random_.choice(BYTES)(content, random_)
    return content


def _sometimes_of_bytes(content: bytes, random_: random.Random) -> bytes:
    """Every third time other bytes: what is compressed is damaged otherwise than what is not."""
    return of_bytes(content, random_) if random_.random() < 1 / 3 else content


def of_json(content: bytes, random_: random.Random) -> bytes:
    """A JSON document with values or keys of another kind; or other bytes."""
    if random_.random() < 0.2:
        return of_bytes(content, random_)
    return _encoded(change_value(json.loads(content), random_))


def of_lines(content: bytes, random_: random.Random) -> bytes:
    """JSON Lines, one line changed; or other bytes."""
    if random_.random() < 0.2:
        return of_bytes(content, random_)
    lines = content.splitlines()
    which = random_.randrange(len(lines))
    lines[which] = of_json(lines[which], random_)
    return b"\n".join([*lines, b""])


def change_value(value: Any, random_: random.Random) -> Any:
    """A copy of a JSON value with one or two places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(random_.randint(1, 2)):
        places = list(_places(value))
        if not places:
            return random_.choice(VALUES)
        holder, key = random_.choice(places)
        action = random_.random()
        if action < 0.6:
            holder[key] = copy.deepcopy(random_.choice(VALUES))
        elif action < 0.8:
            del holder[key]
        elif isinstance(holder, dict):
            holder[random_.choice(("x", "", "schema", str(key) * 2))] = holder.pop(key)
        else:
            holder.append(copy.deepcopy(holder[key]))
    return value


def of_safetensors(content: bytes, random_: random.Random) -> bytes:
    """A safetensors file with another header or metadata, or with other bytes."""
    if random_.random() < 0.3:
        return of_bytes(content, random_)
    (size,) = struct.unpack("<Q", content[:8])
    header, tensors = json.loads(content[8 : 8 + size]), content[8 + size :]
    metadata = header.get("__metadata__", {})
    texts = [name for name, text in metadata.items() if text[:1] in "{["]
    if texts and random_.random() < 0.6:
        name = random_.choice(texts)
        metadata[name] = json.dumps(change_value(json.loads(metadata[name]), random_))
    else:
        header = change_value(header, random_)
    packed = _encoded(header)
    return struct.pack("<Q", len(packed)) + packed + tensors


def of_zip(content: bytes, random_: random.Random) -> bytes:
    """A zip, npz or PyTorch file with a member changed, renamed, missing or doubled; or other bytes."""
    if random_.random() < 0.3:
        return of_bytes(content, random_)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    members = _changed_members(members, random_)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, random_.choice(ZIP_METHODS))
    return _sometimes_of_bytes(packed.getvalue(), random_)


def of_tar(content: bytes, random_: random.Random) -> bytes:
    """A tar with a member that is changed, renamed, missing, doubled or of another type; or other bytes."""
    if random_.random() < 0.3:
        return of_bytes(content, random_)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(member.name, archive.extractfile(member).read()) for member in archive if member.isfile()]
    types = (
        tarfile.REGTYPE,
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.DIRTYPE,
    )
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=random_.choice(TAR_MODES)) as archive:
        for name, data in _changed_members(members, random_):
            member = tarfile.TarInfo(name)
            member.type = random_.choice(types) if random_.random() < 0.2 else tarfile.REGTYPE
            member.linkname, member.size = random_.choice((name, "/etc/passwd", "..")), len(data)
            archive.addfile(member, io.BytesIO(data))
    return _sometimes_of_bytes(packed.getvalue(), random_)


def of_png(content: bytes, random_: random.Random) -> bytes:
    """A PNG whose chunks are changed, with checksums that hold; or other bytes."""
    if random_.random() < 0.3 or not content.startswith(b"\x89PNG"):
        return of_bytes(content, random_)
    chunks, start = [], 8
    while start + 12 <= len(content):
        (size,) = struct.unpack(">I", content[start : start + 4])
        chunks.append((content[start + 4 : start + 8], content[start + 8 : start + 8 + size]))
        start += size + 12
    which = random_.randrange(len(chunks))
    kind, data = chunks[which]
    action = random_.random()
    if action < 0.6:
        chunks[which] = (kind, of_bytes(data, random_))
    elif action < 0.8:
        chunks.insert(which, chunks[which])
    else:
        chunks[which] = (random_.choice((b"tRNS", b"PLTE", b"acTL", b"gAMA", b"zzzz")), data)
    return content[:8] + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )


def _changed_members(members: list[tuple[str, bytes]], random_: random.Random) -> list[tuple[str, bytes]]:
    if not members:
        return members
    which = random_.randrange(len(members))
    name, data = members[which]
    action = random_.random()
    if action < 0.6:
        change = of_json if name.endswith(".json") else of_png
        members[which] = (name, change(data, random_))
    elif action < 0.75:
        members[which] = (
            random_.choice(("../x.png", "/x.png", "", "a\\b.png", "x\ny.png", name[::-1])),
            data,
        )
    elif action < 0.85:
        members.pop(which)
    else:
        members.append((name, data))
    return members


def _places(value: Any) -> Any:
    """Every (holder, key) in a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def _encoded(value: Any) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


def _range(content: bytes, random_: random.Random) -> tuple[int, int]:
    start = random_.randrange(len(content) + 1)
    return start, min(len(content), start + random_.randint(1, max(1, len(content) // 8)))
