"""Keys of a round: two clients agree on one through a server that only passes messages on.

X25519 (RFC 7748) gives the two a common secret; HKDF-SHA256 (RFC 5869) makes keys of it, one for
each purpose, bound to the round, to both clients and to both public keys. Nothing here says whose a
public key is: that is the channel's word.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

PUBLIC_BYTES = 32
# ChaCha20-Poly1305's (RFC 8439).
_TAG_BYTES = 16
NONCE_BYTES = 12
_ID_BYTES = 4
# What a derived key is for. Different labels, unrelated keys.
SEALING = b"fldp secagg: sealing of shares"
PAIR = b"fldp secagg: mask of a pair"
SELF = b"fldp secagg: mask of one client"


def derived(secret: bytes, label: bytes, round_tag: bytes, *parts: bytes) -> bytes:
    """A key of 32 bytes for one purpose in one round.

    Parameters
    ----------
    secret : bytes
        What only its owners know.
    label : bytes
        The purpose.
    round_tag : bytes
        `Rules.tag`.
    parts : bytes
        Whatever else the key is bound to, each of a fixed length.

    Returns
    -------
    bytes
        32 of them.

    Examples
    --------
    >>> len(derived(bytes(32), SELF, bytes(16), as_bytes(3)))
    32
    """
    info = b"".join([label, round_tag, *parts])
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=info).derive(secret)


def as_bytes(client: int) -> bytes:
    """A client's number in four bytes."""
    return client.to_bytes(_ID_BYTES, "big")


def self_key(seed: bytes, round_tag: bytes, client: int) -> bytes:
    """The key of a client's own mask, from its seed."""
    return derived(seed, SELF, round_tag, as_bytes(client))


class Pairing:
    """A client's own key pair, and the keys that it has in common with others.

    Parameters
    ----------
    label : bytes
        What the common keys are for.
    round_tag : bytes
        `Rules.tag`.
    client : int
        Its owner's number.
    private : bytes, optional
        32 bytes; None: fresh ones from the operating system.

    Examples
    --------
    >>> one, two = Pairing(PAIR, bytes(16), 1), Pairing(PAIR, bytes(16), 2)
    >>> one.key(2, two.public) == two.key(1, one.public)
    True
    """

    def __init__(
        self, label: bytes, round_tag: bytes, client: int, private: bytes | None = None
    ) -> None:
        self._label = label
        self._tag = round_tag
        self._client = client
        if private is None:
            self._private = X25519PrivateKey.generate()
        else:
            self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    def secret(self) -> bytes:
        """The private key, in 32 bytes."""
        return self._private.private_bytes_raw()

    def key(self, peer: int, public: bytes) -> bytes:
        """The key in common with a peer.

        Parameters
        ----------
        peer : int
            Its number.
        public : bytes
            Its public key, 32 bytes.

        Returns
        -------
        bytes
            32 of them; the peer computes the same.

        Raises
        ------
        ValueError
            For a public key of low order, with which every secret is the same.
        """
        try:
            common = self._private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise ValueError(
                f"the public key of client {peer} is no point of large order: a secret agreed "
                "with it would be known to everyone"
            ) from None
        # Several public keys give one common secret; the key is bound to the two that were told.
        ends = sorted([(self._client, self.public), (peer, public)])
        parts = [as_bytes(client) + key for client, key in ends]
        return derived(common, self._label, self._tag, *parts)


def sealed_bytes(plain: int) -> int:
    """How long `plain` bytes are when they are sealed."""
    return NONCE_BYTES + plain + _TAG_BYTES


def sealed(key: bytes, nonce: bytes, plain: bytes, context: bytes) -> bytes:
    """Encrypt and authenticate bytes (ChaCha20-Poly1305).

    Parameters
    ----------
    key, nonce : bytes
        32 bytes, and 12 that were never used with this key.
    plain : bytes
        What is hidden.
    context : bytes
        What is not hidden, yet authenticated too.

    Returns
    -------
    bytes
        Nonce, ciphertext and tag.

    Examples
    --------
    >>> box = sealed(bytes(32), bytes(12), b"share", b"from 1 to 2")
    >>> opened(bytes(32), box, b"from 1 to 2")
    b'share'
    """
    return nonce + ChaCha20Poly1305(key).encrypt(nonce, plain, context)


def opened(key: bytes, box: bytes, context: bytes) -> bytes | None:
    """What `sealed` hid; None for anything that is not exactly what it made."""
    try:
        return ChaCha20Poly1305(key).decrypt(box[:NONCE_BYTES], box[NONCE_BYTES:], context)
    except (InvalidTag, ValueError):
        return None
