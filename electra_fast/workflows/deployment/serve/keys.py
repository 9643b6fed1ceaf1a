"""Who may ask: API keys, compared in a time that tells nothing of them."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from .refusal import Refusal


class Keys:
    """The keys that a server takes, kept as hashes. Without any, everybody may ask."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._digests = [_digest(key.encode("ascii")) for key in keys]

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, headers: Sequence[tuple[bytes, bytes]]) -> None:
        """Look for a key in ``Authorization: Bearer KEY`` or ``X-API-Key: KEY``.

        Args:
            headers: names in lower case, and values.

        Raises:
            Refusal: 401 without a key, 403 with a wrong one.
        """
        if not self._digests:
            return
        given = _given(headers)
        if given is None:
            missing = "an API key is needed: Authorization: Bearer KEY, or X-API-Key: KEY"
            raise Refusal(401, missing, {"WWW-Authenticate": "Bearer"})
        digest = _digest(given)
        # All keys are compared, and hashes of equal length: the time is the same for every key.
        if not sum([hmac.compare_digest(digest, known) for known in self._digests]):
            raise Refusal(403, "this API key is not known here")


def _given(headers: Sequence[tuple[bytes, bytes]]) -> bytes | None:
    for name, value in headers:
        if name == b"x-api-key":
            return value.strip()
        if name == b"authorization":
            scheme, _, key = value.partition(b" ")
            if scheme.lower() == b"bearer":
                return key.strip()
    return None


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
