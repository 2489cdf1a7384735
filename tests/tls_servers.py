"""Debian's Redis and PostgreSQL with TLS, which the ones from PyPI were built without, and certificates for them."""

import datetime
import ipaddress
import os
import pwd
import shutil
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from local.children import HOST, Child, free_port, spawn, wait_ready
from local.embedded import (
    PLAIN_ENVIRONMENT,
    POSTGRES_STOP,
    READY_TIMEOUT_SECONDS,
    SYSTEM_USER,
    USER,
    VALKEY_SETTINGS,
    start_valkey,
)
from tests.running import Part, Postgres

REDIS = shutil.which("redis-server")
POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin/postgres"), default=None)
DATABASE = "postgres"


@dataclass(frozen=True)
class Authority:
    """Who signs certificates; `file` has its own one."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate
    file: Path


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _unsigned(subject: str, issuer: str, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder(_name(issuer), _name(subject), key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=1))
        .not_valid_after(now + datetime.timedelta(days=1))
    )


def authority(folder: Path, name: str) -> Authority:
    """As people make them by hand, so without what only the strictest clients ask for."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _unsigned(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=False)
    certificate = builder.sign(key, hashes.SHA256())
    file = folder / f"{name}.crt"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return Authority(key, certificate, file)


def certify(signer: Authority, folder: Path) -> tuple[Path, Path]:
    """The files of a certificate for 127.0.0.1, but for no name of it, and of its key; both belong to PostgreSQL."""
    key = ec.generate_private_key(ec.SECP256R1())
    builder = _unsigned("store", signer.file.stem, key).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(HOST))]), critical=False
    )
    files = folder / "store.crt", folder / "store.key"
    files[0].write_bytes(builder.sign(signer.key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    for file in files:
        file.chmod(0o600)
        if (owner := _owner()) is not None:
            os.chown(file, owner, owner)
    return files


def _owner() -> int | None:
    """PostgreSQL refuses to run as root."""
    return pwd.getpwnam(SYSTEM_USER).pw_uid if os.geteuid() == 0 else None


def redis_with_tls(folder: Path, certificate: Path, key: Path) -> Part:
    """The port of the part is the one with TLS; a second one without tells when it is ready."""
    assert REDIS is not None
    server, plain, port = Path(REDIS), free_port(), free_port()
    settings = {
        **VALKEY_SETTINGS,
        "tls-port": str(port),
        "tls-cert-file": str(certificate),
        "tls-key-file": str(key),
        "tls-auth-clients": "no",
    }
    return Part(port, lambda: start_valkey(folder / "redis", folder, plain, server, settings))


def postgres_with_tls(folder: Path, certificate: Path, key: Path) -> Postgres:
    """It takes nobody in without TLS."""
    port = free_port()
    return Postgres(port, lambda: _start_postgres(folder, certificate, key, port))


async def _start_postgres(folder: Path, certificate: Path, key: Path, port: int) -> Child:
    assert POSTGRES is not None
    place, owner = folder / "postgres", _owner()
    place.mkdir()
    if owner is not None:
        os.chown(place, owner, owner)
    command: list[str | Path] = [POSTGRES.with_name("initdb"), "--auth=trust", "-U", USER, "-D", place]
    made = await spawn("initdb", command, folder, environment=PLAIN_ENVIRONMENT, user=owner, cwd=place)
    assert await made.process.wait() == 0, made.last_lines(10)
    (place / "pg_hba.conf").write_text(f"hostssl all all {HOST}/32 trust\n")
    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": "",
        "ssl": "on",
        "ssl_cert_file": str(certificate),
        "ssl_key_file": str(key),
    }
    command = [POSTGRES, "-D", place, *(word for name, value in settings.items() for word in ("-c", f"{name}={value}"))]
    child = await spawn(
        "postgres",
        command,
        folder,
        environment=PLAIN_ENVIRONMENT,
        stop_signal=POSTGRES_STOP,
        death_signal=POSTGRES_STOP,
        user=owner,
        cwd=place,
    )

    async def ready(_: Child) -> bool:
        file = place / "postmaster.pid"
        lines = file.read_text().splitlines() if file.exists() else []
        return len(lines) >= 8 and lines[7].strip() == "ready"

    return await wait_ready(child, ready, READY_TIMEOUT_SECONDS)
