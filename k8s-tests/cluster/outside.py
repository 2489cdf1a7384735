"""A Redis and a PostgreSQL that are part of no release: in a namespace of their own, and only to be had with TLS."""

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cluster.check import PSQL, Stores
from cluster.kube import Json, Namespace
from cluster.release import SMALL

REDIS, POSTGRESQL, TLS = "redis", "postgresql", "tls"
REDIS_IMAGE, POSTGRESQL_IMAGE = "docker.io/library/redis:8.0", "docker.io/library/postgres:17-trixie"
# The user of both images.
USER = 999
PASSWORD = "not-a-secret"  # noqa: S105 - of servers that live for a minute
CERTIFICATE_DAYS = 2
# Whoever comes without TLS is refused.
HBA = "local all all trust\nhostssl all all all scram-sha-256\n"
# docs/operations.md
REDIS_SETTINGS = {
    "port": "0",
    "tls-port": "6379",
    "tls-cert-file": "/tls/tls.crt",
    "tls-key-file": "/tls/tls.key",
    "tls-ca-cert-file": "/tls/ca.crt",
    "tls-auth-clients": "no",
    "requirepass": PASSWORD,
    "appendonly": "yes",
    "appendfsync": "always",
    "no-appendfsync-on-rewrite": "no",
    "save": "",
    "maxmemory": "256mb",
    "maxmemory-policy": "volatile-ttl",
}
POSTGRESQL_SETTINGS = {
    "ssl": "on",
    "ssl_cert_file": "/tls/tls.crt",
    "ssl_key_file": "/tls/tls.key",
    "hba_file": "/tls/pg_hba.conf",
}


class Certificates(NamedTuple):
    """PEM texts: an authority's certificate, and a certificate with its key that the authority signed."""

    authority: str
    certificate: str
    key: str


def certificates_for(*hosts: str) -> Certificates:
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    authority = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    server = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0])])
    names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
    root = _unsigned(authority, authority, authority_key)
    root = root.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    leaf = _unsigned(server, authority, key).add_extension(names, critical=False)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    trusted, shown = (_pem(builder.sign(authority_key, hashes.SHA256())) for builder in (root, leaf))
    return Certificates(trusted, shown, private.decode())


def _unsigned(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder().subject_name(subject).issuer_name(issuer).public_key(key.public_key())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=CERTIFICATE_DAYS))
    return builder.serial_number(x509.random_serial_number())


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def host(namespace: Namespace, server: str) -> str:
    return f"{server}.{namespace.name}.svc.cluster.local"


async def start_stores(namespace: Namespace) -> tuple[Stores, str]:
    """Both servers, and the certificate of the authority that clients must trust."""
    made = certificates_for(host(namespace, REDIS), host(namespace, POSTGRESQL))
    files = {"ca.crt": made.authority, "tls.crt": made.certificate, "tls.key": made.key, "pg_hba.conf": HBA}
    redis = ["redis-server"] + [word for name, value in REDIS_SETTINGS.items() for word in (f"--{name}", value)]
    postgresql = ["postgres"] + [
        word for name, value in POSTGRESQL_SETTINGS.items() for word in ("-c", f"{name}={value}")
    ]
    variables = {
        "POSTGRES_USER": "chatbot",
        "POSTGRES_PASSWORD": PASSWORD,
        "POSTGRES_DB": "chatbot",
        "PGDATA": "/data/pgdata",
    }
    await namespace.create_objects(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": TLS}, "stringData": files},
        *_server(REDIS, REDIS_IMAGE, 6379, redis, {}),
        *_server(POSTGRESQL, POSTGRESQL_IMAGE, 5432, postgresql, variables),
    )
    for server in (REDIS, POSTGRESQL):
        await namespace.ready_pod(server)
    redis_command = ("redis-cli", "--no-auth-warning", "-a", PASSWORD, "--tls", "--cacert", "/tls/ca.crt")
    return Stores(namespace, REDIS, redis_command, POSTGRESQL, PSQL), made.authority


def _server(name: str, image: str, port: int, arguments: list[str], variables: dict[str, str]) -> tuple[Json, Json]:
    labels = {"app": name}
    container: Json = {
        "name": name,
        "image": image,
        "args": arguments,
        "env": [{"name": key, "value": value} for key, value in variables.items()],
        "resources": SMALL,
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "volumeMounts": [
            {"name": "tls", "mountPath": "/tls", "readOnly": True},
            {"name": "data", "mountPath": "/data"},
            {"name": "run", "mountPath": "/var/run/postgresql"},
        ],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    spec: Json = {
        "containers": [container],
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "volumes": [
            {"name": "tls", "secret": {"secretName": TLS, "defaultMode": 0o440}},
            {"name": "data", "emptyDir": {}},
            {"name": "run", "emptyDir": {}},
        ],
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels}, "spec": spec}
    ports = {"selector": labels, "ports": [{"port": port}]}
    return pod, {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": ports}
