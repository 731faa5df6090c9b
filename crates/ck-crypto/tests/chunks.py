"""A second implementation of "Encrypted in chunks", written from docs/formats.md alone.

It writes chunks.json, which chunks.rs reads. Nothing in it is random, so each run writes the same bytes:

    pip install cryptography
    python chunks.py
"""

import hashlib
import json
import pathlib

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TAG = 16

# Longer entries are told by their hash, their first and their last bytes.
LONGEST_SHOWN = 2048
ENDS = 64

# The bytes of a body repeat after this many: a prime, so that no two chunks of it are equal.
BODY_VALUES = 251


def be(number: int, size: int) -> bytes:
    return number.to_bytes(size, "big")


def hkdf(secret: bytes, salt: bytes, info: bytes) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=salt, info=info).derive(secret)


def tenant_key(master: bytes, tenant: str, purpose: bytes) -> bytes:
    name = tenant.encode()
    salt = b"cachekit_v1_" + be(len(purpose), 1) + purpose + be(len(name), 2) + name
    return hkdf(master, salt, purpose)


def fingerprint(master: bytes, tenant: str) -> str:
    key = tenant_key(master, tenant, b"encryption")
    return hashlib.sha256(b"key_fingerprint_v1" + key).digest()[:16].hex()


def entry_key(master: bytes, tenant: str, salt: bytes) -> bytes:
    return hkdf(tenant_key(master, tenant, b"ck-chunks"), salt, b"ck-chunks v1")


def frame_header(fields: dict) -> bytes:
    """The frame up to its payload."""
    text = json.dumps({"s": "ck-encrypted", "m": {}, "v": "2.0", "ck": fields}).encode()
    return b"CK\x03" + be(len(text), 4) + text


def nonce(index: int, is_last: bool) -> bytes:
    return be(index, 8) + bytes(3) + be(is_last, 1)


def associated(header: bytes, cache_key: str, index: int, is_last: bool) -> bytes:
    name = cache_key.encode()
    return be(len(header), 4) + header + be(len(name), 4) + name + be(index, 8) + be(is_last, 1)


def seal(master: bytes, tenant: str, cache_key: str, salt: bytes, chunk: int, head: bytes, body: bytes) -> bytes:
    """The whole entry."""
    header = frame_header(
        {
            "layout": 1,
            "cipher": "AES-256-GCM",
            "key_fingerprint": fingerprint(master, tenant),
            "salt": salt.hex(),
            "chunk": chunk,
            "head": len(head),
        }
    )
    cipher = AESGCM(entry_key(master, tenant, salt))
    plain = [be(len(body), 8) + head]
    plain += [body[at : at + chunk] for at in range(0, len(body), chunk)]
    last = len(plain) - 1
    sealed = [
        cipher.encrypt(nonce(i, i == last), data, associated(header, cache_key, i, i == last))
        for i, data in enumerate(plain)
    ]
    return header + b"".join(sealed)


class Reader:
    """Reads as the page says a reader does: chunk 0 first, then any chunk at its computed place."""

    def __init__(self, entry: bytes, master: bytes, tenant: str, cache_key: str):
        end = 7 + int.from_bytes(entry[3:7], "big")
        fields = json.loads(entry[7:end])["ck"]
        assert fields["layout"] == 1 and fields["cipher"] == "AES-256-GCM"
        assert fields["key_fingerprint"] == fingerprint(master, tenant)
        self.header, self.payload, self.cache_key = entry[:end], entry[end:], cache_key
        self.chunk, head = fields["chunk"], fields["head"]
        self.cipher = AESGCM(entry_key(master, tenant, bytes.fromhex(fields["salt"])))
        self.first = 8 + head + TAG
        # It is the last chunk when nothing follows it.
        opened = self.open(0, self.payload[: self.first], len(self.payload) == self.first)
        self.len, self.head = int.from_bytes(opened[:8], "big"), opened[8:]
        self.last = -(-self.len // self.chunk)
        assert len(self.payload) == 8 + head + TAG + self.len + TAG * self.last

    def open(self, index: int, sealed: bytes, is_last: bool) -> bytes:
        data = associated(self.header, self.cache_key, index, is_last)
        return self.cipher.decrypt(nonce(index, is_last), sealed, data)

    def byte(self, b: int) -> int:
        index = 1 + b // self.chunk
        start = 8 + len(self.head) + TAG + (b // self.chunk) * (self.chunk + TAG)
        sealed = self.payload[start : start + self.chunk + TAG]
        return self.open(index, sealed, index == self.last)[b % self.chunk]


def body_of(rule: dict) -> bytes:
    return bytes(i * rule["step"] % BODY_VALUES for i in range(rule["len"]))


def frame_head(serializer: str) -> bytes:
    """The header of a plain entry, after which we part entries that are no tables."""
    text = json.dumps({"s": serializer, "m": {}, "v": "2.0"}).encode()
    return b"CK\x03" + be(len(text), 4) + text


KEY_32 = bytes(range(32))
KEY_40 = bytes(0xA0 + i for i in range(40))
UUID = "7f9c24e8-3b1d-4c55-9a60-0d2e5f8b1c47"
HEAD = frame_head("default")

# Name, master key, tenant, cache key, bytes of a chunk, head, length and step of the body.
CASES = [
    ("nothing in head and body", KEY_32, "default", "empty", 4096, b"", 0, 1),
    ("a head and no body", KEY_40, UUID, "user:1", 4096, HEAD, 0, 1),
    ("one byte", KEY_32, "default", "user:1", 4096, b"", 1, 1),
    ("less than a chunk", KEY_32, UUID, "größe:日本語:🗝", 65536, HEAD, 1000, 3),
    ("one chunk less a byte", KEY_40, "default", "k", 4096, HEAD, 4095, 5),
    ("exactly one chunk", KEY_32, "default", "k", 4096, HEAD, 4096, 7),
    ("one chunk and a byte", KEY_32, UUID, "k", 4096, b"", 4097, 7),
    ("exactly three chunks", KEY_40, UUID, "", 4096, bytes(range(256)) * 5, 3 * 4096, 11),
    ("several chunks", KEY_40, "default", "größe:日本語:🗝", 4096, HEAD, 9 * 4096 + 123, 13),
]


def vector(
    name: str, master: bytes, tenant: str, cache_key: str, chunk: int, head: bytes, length: int, step: int
) -> dict:
    salt = hashlib.sha256(b"salt of " + name.encode()).digest()
    rule = {"len": length, "step": step}
    body = body_of(rule)
    entry = seal(master, tenant, cache_key, salt, chunk, head, body)
    check(entry, master, tenant, cache_key, head, body)
    if len(entry) <= LONGEST_SHOWN:
        shown = {"hex": entry.hex()}
    else:
        shown = {
            "len": len(entry),
            "sha256": hashlib.sha256(entry).hexdigest(),
            "first": entry[:ENDS].hex(),
            "last": entry[-ENDS:].hex(),
        }
    return {
        "name": name,
        "master_key": master.hex(),
        "tenant": tenant,
        "cache_key": cache_key,
        "salt": salt.hex(),
        "chunk": chunk,
        "head": head.hex(),
        "body": rule,
        "fingerprint": fingerprint(master, tenant),
        "entry_key": entry_key(master, tenant, salt).hex(),
        "entry": shown,
    }


def check(entry: bytes, master: bytes, tenant: str, cache_key: str, head: bytes, body: bytes) -> None:
    """What was written can be read, and under another key it cannot."""
    reader = Reader(entry, master, tenant, cache_key)
    assert reader.head == head and reader.len == len(body)
    for b in {0, len(body) // 2, len(body) - 1} & set(range(len(body))):
        assert reader.byte(b) == body[b]
    try:
        Reader(entry, master, tenant, cache_key + "?")
    except InvalidTag:
        return
    raise AssertionError("an entry was read under another cache key")


def main() -> None:
    vectors = [vector(*case) for case in CASES]
    text = json.dumps({"vectors": vectors}, indent=1, ensure_ascii=False)
    pathlib.Path(__file__).with_suffix(".json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
