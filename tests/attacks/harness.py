"""Corrupt a file, open it, and look at the answer: one line that names the file and the remedy, or what is right.

A kind of file is a function that writes a good one and a function that opens it. ``corruptions`` gives the ways to spoil any
file and, by what it begins with, those of its format; ``attack`` spoils, opens and judges. The same names and seeds give the
same bytes on every machine.
"""

from __future__ import annotations

import json
import random
import re
import resource
import signal
import struct
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 2.0  # of processor time an answer may take
MEMORY = 256 * 2**20  # bytes an answer may take beyond what the process had at its highest
HANG = 30  # seconds of wall time after which an answer is taken for hung
REMEDIES = re.compile(
    r"\b(Download|Choose|Use|use|Put|put|get|Get|Convert|Save|save|Install|Correct|Name|Remove|Load|Run|Check|Set|Give)\b"
    r"|\b[Ee]xpected\b|\brun '"
)

Corruption = Callable[[bytes, random.Random], bytes]


class Kind(NamedTuple):
    """write(folder) makes a good file and returns its path; open(path) loads it; right(loaded) says whether that can be used."""

    name: str
    write: Callable[[Path], Path]
    open: Callable[[Path], Any]
    right: Callable[[Any], bool]


class Answer(NamedTuple):
    """What opening a file came to: ``error`` is None if it loaded."""

    error: BaseException | None
    seconds: float
    memory: int


def attack(kind: Kind, path: Path, refusals: tuple[type[BaseException], ...], names: tuple[str, ...] = ()) -> Answer:
    """Open a spoiled file and judge the answer; ``names`` are other names the error may give the file."""
    answer = open_it(kind, path)
    assert answer.seconds < SECONDS, f"took {answer.seconds:.1f} s"
    assert answer.memory < MEMORY, f"took {answer.memory / 2**20:.0f} MiB"
    if answer.error is not None:
        judge(answer.error, refusals, (path.name, *names))
    return answer


def judge(error: BaseException, refusals: tuple[type[BaseException], ...], names: tuple[str, ...]) -> None:
    """An error for a person: of an announced type, one line, with the file's name and something to do."""
    text = str(error)
    assert isinstance(error, refusals), f"{type(error).__name__}: {text[:300]}"
    assert "\n" not in text and len(text) < 1500, f"no one line: {text[:300]!r}"
    assert any(name in text for name in names), f"names no file of {names}: {text[:300]}"
    assert REMEDIES.search(text), f"names no remedy: {text[:300]}"


def open_it(kind: Kind, path: Path) -> Answer:
    """Open a file under a watch."""
    before, start, error = _peak(), time.process_time(), None
    with _watch():
        try:
            loaded = kind.open(path)
            assert kind.right(loaded), f"{kind.name} loaded what cannot be right"
        except (KeyboardInterrupt, Hung, AssertionError):
            raise
        except BaseException as refused:  # also the panics of foreign libraries, which are no Exception
            error = refused
    return Answer(error, time.process_time() - start, _peak() - before)


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


class Hung(BaseException):
    """Not to be caught by what is under attack."""


@contextmanager
def _watch() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise Hung(f"no answer within {HANG} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(HANG)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Ways to spoil a file --------------------------------------------------------------------------------------------------------


def corruptions(data: bytes) -> dict[str, Corruption]:
    """All ways to spoil this file, by name."""
    ways = dict(_GENERAL)
    if data[8:9] == b"{":
        ways |= _SAFETENSORS
    elif data[:4] == b"PK\x03\x04":
        ways |= _ARCHIVES
    elif data.lstrip()[:1] == b"{":
        ways |= _JSON
    return ways


def spoil(data: bytes, name: str, seed: int = 0) -> bytes:
    """The file spoiled in the way of this name."""
    return corruptions(data)[name](data, random.Random(f"{name}{seed}"))


def _cut(share: float) -> Corruption:
    return lambda data, _: data[: int(len(data) * share)]


def _flip(count: int, reach: float = 1.0) -> Corruption:
    def flip(data: bytes, draw: random.Random) -> bytes:
        spoiled = bytearray(data)
        for _ in range(count):
            spoiled[draw.randrange(max(1, int(len(data) * reach)))] ^= 1 << draw.randrange(8)
        return bytes(spoiled)

    return flip


def _over(block: bytes, at: float) -> Corruption:
    def over(data: bytes, _: random.Random) -> bytes:
        start = int(len(data) * at)
        return data[:start] + block + data[start + len(block) :]

    return over


def _just(content: bytes) -> Corruption:
    return lambda *_: content


_GENERAL: dict[str, Corruption] = {
    **{f"cut to {share:g}": _cut(share) for share in (0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999)},
    "without the last byte": lambda data, _: data[:-1],
    "one more byte": lambda data, _: data + b"\0",
    "one byte in front": lambda data, _: b"\0" + data,
    "twice": lambda data, _: data + data,
    "halves swapped": lambda data, _: data[len(data) // 2 :] + data[: len(data) // 2],
    "zeros of its size": lambda data, _: bytes(len(data)),
    "noise of its size": lambda data, draw: draw.randbytes(min(len(data), 2**16)),
    "backwards": lambda data, _: data[::-1],
    **{f"{count} bits flipped": _flip(count) for count in (1, 10, 1000)},
    **{f"{count} bits flipped at its head": _flip(count, 0.02) for count in (1, 3, 30)},
    **{f"0xff at {at:g}": _over(b"\xff" * 16, at) for at in (0.0, 0.002, 0.3, 0.99)},
    "a web page": _just(b"<!DOCTYPE html><html>Sign in to continue</html>"),
    "an LFS pointer": _just(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    "a picture": _just(b"\x89PNG\r\n\x1a\n" + bytes(500)),
    "a list": _just(b"[1, 2, 3]"),
    "null": _just(b"null"),
    "deep JSON": _just(b'{"a":' * 200_000),
    "deep lists": _just(b"[" * 200_000),
    "no UTF-8": _just(b'{"a": "\xff\xfe\xc3\x28"}'),
    "a long number": _just(b'{"a": ' + b"9" * 100_000 + b"}"),
}


def _header(edit: Callable[[dict[str, Any], int], dict[str, Any] | bytes]) -> Corruption:
    """A .safetensors file with another header; ``edit`` gets the header and the size of the data."""

    def change(data: bytes, _: random.Random) -> bytes:
        size = struct.unpack("<Q", data[:8])[0]
        body = data[8 + size :]
        header = edit(json.loads(data[8 : 8 + size]), len(body))
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        return struct.pack("<Q", len(text)) + text + body

    return change


def _entry(**changes: Any) -> Corruption:
    """The largest tensor's entry in the header changed."""

    def edit(header: dict[str, Any], size: int) -> dict[str, Any]:
        largest = max((name for name in header if name != "__metadata__"), key=lambda n: header[n]["data_offsets"][1])
        return header | {largest: header[largest] | changes}

    return _header(edit)


def _renamed(change: Callable[[str], str]) -> Corruption:
    return _header(lambda header, _: {change(name): entry for name, entry in header.items()})


def _size(value: int) -> Corruption:
    return lambda data, _: struct.pack("<Q", value) + data[8:]


_EMPTY = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
_SAFETENSORS: dict[str, Corruption] = {
    **{f"a header of {size} bytes": _size(size) for size in (0, 1, 2**20, 2**40, 2**64 - 1)},
    "no tensors": _header(lambda *_: {}),
    "a list for a header": _header(lambda *_: b"{[1]}"),
    "a header of spaces": _header(lambda *_: b"{" + b" " * 1000),
    "a deep header": _header(lambda *_: b'{"a":' * 100_000),
    "entries that are numbers": _header(lambda header, _: dict.fromkeys(header, 1)),
    "entries that are lists": _header(lambda header, _: {name: [] for name in header}),
    "metadata of numbers": _header(lambda header, _: header | {"__metadata__": {"ttsvar": 3}}),
    "metadata that is a list": _header(lambda header, _: header | {"__metadata__": []}),
    "metadata of broken JSON": _header(lambda header, _: header | {"__metadata__": {"ttsvar": "{", "state": "{"}}),
    "metadata of deep JSON": _header(lambda header, _: header | {"__metadata__": {"ttsvar": "[" * 99_999, "state": "[" * 99_999}}),
    "30,000 empty tensors": _header(lambda header, _: header | {f"t{i}": _EMPTY for i in range(30_000)}),
    "a block number of 999,999": _renamed(lambda name: re.sub(r"\.1\.", ".999999.", name, count=1)),
    "a block number of 30 digits": _renamed(lambda name: re.sub(r"\.0\.", "." + "9" * 30 + ".", name, count=1)),
    "names of other letters": _renamed(lambda name: "é\n" + name),
    "names that are empty": _header(lambda header, _: {"": next(iter(header.values()))}),
    **{f"{dtype} for floats": _entry(dtype=dtype) for dtype in ("I64", "BOOL", "F8_E4M3", "F4", "F64", "NONE", 7)},
    **{
        f"shape {shape}": _entry(shape=shape)
        for shape in ([], [0], [-1], [2**62, 4], [10**9, 10**9], ["a"], [1.5], {}, None, [10**6, 0])
    },
    **{f"offsets {at}": _entry(data_offsets=at) for at in ([0, 0], [-1, 5], [5, 1], [0, 2**60], [0], "ab", None, [1.5, 2])},
    "infinity throughout": lambda data, _: data[: 8 + struct.unpack("<Q", data[:8])[0]]
    + b"\x00\x7c" * ((len(data) - 8 - struct.unpack("<Q", data[:8])[0]) // 2),
    "NaN throughout": lambda data, _: data[: 8 + struct.unpack("<Q", data[:8])[0]]
    + b"\xff" * (len(data) - 8 - struct.unpack("<Q", data[:8])[0]),
}


def _archive(edit: Callable[[str, bytes], bytes], compression: int = zipfile.ZIP_STORED, more: tuple[str, ...] = ()) -> Corruption:
    """A zip archive written again with its records edited, and ``more`` records of no content."""

    def change(data: bytes, _: random.Random) -> bytes:
        source, target = zipfile.ZipFile(BytesIO(data)), BytesIO()
        root = source.namelist()[0].split("/")[0]
        with zipfile.ZipFile(target, "w", compression) as archive:
            for name in source.namelist():
                archive.writestr(name, edit(name, source.read(name)))
            for name in more:
                archive.writestr(f"{root}/{name}", b"")
        return target.getvalue()

    return change


def _pickle(content: bytes) -> Corruption:
    return _archive(lambda name, data: content if name.endswith("data.pkl") else data)


_ARCHIVES: dict[str, Corruption] = {
    "TorchScript": _archive(lambda _, data: data, more=("constants.pkl", "code/__torch__.py")),
    "compressed": _archive(lambda _, data: data, zipfile.ZIP_DEFLATED),
    "a bomb of zeros": _archive(lambda name, data: bytes(2**24) if "/data/" in name else data, zipfile.ZIP_DEFLATED),
    "30,000 records": _archive(lambda _, data: data, more=tuple(f"data/x{i}" for i in range(30_000))),
    "records of no content": _archive(lambda name, data: data if name.endswith("pkl") else b""),
    "objects of no content": _pickle(b""),
    "objects cut": _archive(lambda name, data: data[: len(data) // 2] if name.endswith("data.pkl") else data),
    "a pickle that calls": _pickle(b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85R."),
    "a bytearray of 1 GiB": _pickle(b"\x80\x02}X\x01\x00\x00\x00acbuiltins\nbytearray\nJ\x00\x00\x00\x40\x85Rs."),
    "a dictionary that holds itself": _pickle(b"\x80\x02}q\x00X\x05\x00\x00\x00modelh\x00s."),
    "dictionaries that hold themselves": _pickle(
        b"\x80\x02}q\x00(X\x05\x00\x00\x00modelh\x00X\x0a\x00\x00\x00state_dicth\x00X\x06\x00\x00\x00moduleh\x00u."
    ),
    "a list": _pickle(b"\x80\x02](K\x01K\x02e."),
    "lists in lists": _pickle(b"\x80\x02" + b"]" * 50_000 + b"a" * 49_999 + b"."),
    "a stack that is empty": _pickle(b"\x80\x02."),
    "names that are numbers": _pickle(b"\x80\x02}(K\x01K\x02K\x03K\x04u."),
    "another byte order": _archive(lambda name, data: b"big" if name.endswith("byteorder") else data),
}


def _values(value: Any) -> Corruption:
    return lambda data, _: json.dumps(dict.fromkeys(json.loads(data), value)).encode()


def _without(part: int) -> Corruption:
    return lambda data, _: json.dumps(dict(list(json.loads(data).items())[part::2])).encode()


_ODD_VALUES = (None, True, 0, -1, 10**9, 10**30, 1.5, float("nan"), float("inf"), "x", "", [], [[]], {}, {"a": None})
_JSON: dict[str, Corruption] = {
    **{f"all values {value!r}": _values(value) for value in _ODD_VALUES},
    "half of its keys": _without(0),
    "the other half of its keys": _without(1),
    "no keys": _just(b"{}"),
    "spaces behind": lambda data, _: data + b" " * 100_000,
    "code to run": lambda data, _: json.dumps(
        json.loads(data) | {"auto_map": {"AutoModel": "owned.Owned", "AutoTokenizer": ["owned.Owned", None]}}
    ).encode(),
}
