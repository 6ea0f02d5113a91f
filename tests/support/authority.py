"""A throw-away certificate authority that signs CSRs, for tests of whoever asks for certificates."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Authority:
    """Signs whatever it is asked, as its attributes say. `asked` keeps every (identity, CSR); `others`: PEM of further
    roots in its answers, `between`: PEM of an intermediate."""

    def __init__(self, name: str = "test root", lasts: timedelta = timedelta(days=3650)) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.life = timedelta(hours=1)
        self.begin = timedelta(minutes=-1)
        self.rename = ""
        self.others = ""
        self.between = ""
        self.failure: Exception | None = None
        self.asked: list[tuple[str, str]] = []
        subject = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, name)])
        now = datetime.now(UTC)
        self.root = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + lasts)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(self.key, hashes.SHA256())
        )

    @property
    def root_pem(self) -> str:
        return self.root.public_bytes(Encoding.PEM).decode()

    async def sign(self, identity: str, csr_pem: str) -> list[str]:
        """As the CA's client: leaf and root bundle, or the failure that is set."""
        self.asked.append((identity, csr_pem))
        if self.failure is not None:
            raise self.failure
        between = [self.between] if self.between else []
        return [self.leaf(csr_pem), *between, self.root_pem + self.others]

    def leaf(self, csr_pem: str) -> str:
        """The certificate for a CSR; `rename` puts another identity into it."""
        csr = x509.load_pem_x509_csr(csr_pem.encode())
        san = csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if self.rename:
            san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.rename)])
        begin = datetime.now(UTC) + self.begin
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
        return (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self.root.subject)
            .public_key(csr.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(begin)
            .not_valid_after(begin + self.life)
            .add_extension(san, critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .sign(self.key, hashes.SHA256())
            .public_bytes(Encoding.PEM)
            .decode()
        )


def short_authority() -> str:
    """PEM of an authority whose key is too short for TLS."""
    key = rsa.generate_private_key(65537, 1024)
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "short")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(Encoding.PEM).decode()
