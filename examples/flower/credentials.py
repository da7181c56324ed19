"""What a federation needs first: an authority, the certificate of the SuperLink, a key a node.

    python credentials.py FOLDER --host superlink.example.org --nodes 4

An organisation has an authority of its own: give its certificate to the SuperNodes instead, and let
each owner of a node make the key, which never leaves the node (`ssh-keygen -t ecdsa -b 384`).
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

VALID = datetime.timedelta(days=365)
AUTHORITY = "private federation"
# What the authority's key may be used for: to sign certificates, and nothing else.
SIGNS_ALONE = {
    "digital_signature": False,
    "content_commitment": False,
    "key_encipherment": False,
    "data_encipherment": False,
    "key_agreement": False,
    "key_cert_sign": True,
    "crl_sign": False,
    "encipher_only": False,
    "decipher_only": False,
}


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def write_key(
    path: Path, key: ec.EllipticCurvePrivateKey, form: serialization.PrivateFormat
) -> None:
    """Into a new file that only its owner reads."""
    path.touch(mode=0o600, exist_ok=False)
    plain = serialization.NoEncryption()
    path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


def unsigned(
    name: str, key: ec.EllipticCurvePrivateKey, authority: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    """What the certificates of the authority and of the server have in common."""
    now = datetime.datetime.now(datetime.timezone.utc)
    signer = x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, AUTHORITY)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + VALID)
        .add_extension(signer, critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def address(host: str) -> x509.GeneralName:
    """As a certificate writes it: a number is no name."""
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def certificates(folder: Path, host: str) -> None:
    """`ca.crt`, `server.pem` and `server.key`; the authority's own key is kept nowhere."""
    authority, server = new_key(), new_key()
    write_key(folder / "server.key", server, serialization.PrivateFormat.PKCS8)
    made = {
        "ca.crt": unsigned(AUTHORITY, authority, authority)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**SIGNS_ALONE), critical=True),
        "server.pem": unsigned(host, server, authority).add_extension(
            x509.SubjectAlternativeName([address(host)]), critical=False
        ),
    }
    for name, builder in made.items():
        signed = builder.sign(authority, hashes.SHA256())
        (folder / name).write_bytes(signed.public_bytes(serialization.Encoding.PEM))


def node_key(folder: Path, name: str) -> str:
    """`name` and `name`.pub, as ssh-keygen writes them; the text of the public one."""
    key = new_key()
    write_key(folder / name, key, serialization.PrivateFormat.OpenSSH)
    form = serialization.PublicFormat.OpenSSH
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, form).decode()
    (folder / f"{name}.pub").write_text(f"{public} {name}\n", encoding="utf-8")
    return public


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--host", default="127.0.0.1", help="where SuperNodes find the SuperLink")
    parser.add_argument("--nodes", type=int, default=4)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    certificates(arguments.folder, arguments.host)
    keys = [node_key(arguments.folder, f"node-{n}") for n in range(arguments.nodes)]
    (arguments.folder / "roster").write_text("\n".join(keys) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
