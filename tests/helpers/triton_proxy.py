"""A proxy in front of a server: TLS with certificates of a test authority, and failures."""

import datetime
import ipaddress
import socket
import ssl
import threading
from collections.abc import Container, Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["make_certificate", "proxy"]


def make_certificate(folder: Path, address: str) -> Path:
    """A file with a key and its own certificate for an IP address."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = folder / f"{address}.pem"
    path.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    return path


@contextmanager
def proxy(target: str, certificate: Path | None = None, dropped: Container[int] = ()) -> Iterator[str]:
    """HOST:PORT of a proxy that passes everything on to the plain server at `target`.

    Args:
        certificate: The proxy speaks TLS with it.
        dropped: Connections, counted from 1, that it closes at once.
    """
    host, port = target.split(":")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if certificate:
        context.load_cert_chain(certificate)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            for number in count(1):
                try:
                    plain, _ = listener.accept()
                except OSError:
                    return
                if number in dropped:
                    plain.close()
                else:
                    threading.Thread(target=serve, args=(plain,), daemon=True).start()

        def serve(plain: socket.socket) -> None:
            with suppress(OSError):
                inner = context.wrap_socket(plain, server_side=True) if certificate else plain
                outer = socket.create_connection((host, int(port)))
                threading.Thread(target=copy, args=(outer, inner), daemon=True).start()
                copy(inner, outer)

        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        # A thread that waits in accept is not woken by close.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
