"""A certificate for one WebRTC connection.

FFmpeg with GnuTLS makes itself one on a curve (P-224) that other implementations of WebRTC refuse;
RFC 8827, 6.5, asks for P-256.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def new_certificate() -> Iterator[dict[str, str]]:
    """Makes a self-signed certificate and its key, as options of FFmpeg, while they are needed.

    They lie in memory of this process, so that no key is ever left on a disk.
    """
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "streamer")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    options: dict[str, str] = {}
    files: list[int] = []
    try:
        for option, data in (
            ("cert_file", certificate.public_bytes(serialization.Encoding.PEM)),
            ("key_file", private),
        ):
            files.append(os.memfd_create(option, os.MFD_CLOEXEC))
            os.write(files[-1], data)
            options[option] = f"/proc/self/fd/{files[-1]}"
        yield options
    finally:
        for file in files:
            os.close(file)
