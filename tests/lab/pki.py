"""Certificates for RadSec: a CA, what it issues and revokes, and what nobody should trust."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = timedelta(days=1)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


class Identity:
    """A certificate and its key, as PEM files."""

    def __init__(
        self, folder: Path, label: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
    ) -> None:
        self.x509 = certificate
        self.certificate = folder / f"{label}.pem"
        self.key = folder / f"{label}.key"
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.touch(mode=0o600)
        self.key.touch(0o600)
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    @property
    def fingerprint(self) -> bytes:
        """SHA-256 of the certificate."""
        return self.x509.fingerprint(hashes.SHA256())


class Authority:
    """A CA whose files are in `folder`: a root, or one below `parent`, which its certificates bring along."""

    def __init__(self, folder: Path, label: str = "ca", parent: "Authority | None" = None) -> None:
        self._folder = folder
        self._parent = parent
        self._label = label
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _name(f"{label} of a network that does not exist")
        self._revoked: list[x509.RevokedCertificate] = []
        certificate = self._sign(
            self._builder(self._name, self._key, 365 * DAY, issuer=parent._name if parent is not None else None)
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True),
            parent._key if parent is not None else None,
        )
        self.identity = Identity(folder, label, certificate, self._key)
        self.certificate = self.identity.certificate
        """The CA's own certificate."""
        self.crl = folder / f"{label}.crl"
        self.write_crl()

    def issue(
        self, label: str, *names: str, valid: timedelta = 30 * DAY, common: str | None = None, self_signed: bool = False
    ) -> Identity:
        """A certificate with these DNS names, or only a common name; with a negative `valid`, it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = _name(common or label)
        builder = self._builder(subject, key, valid, issuer=subject if self_signed else None)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        usages = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH])
        builder = builder.add_extension(usages, critical=False)
        if names:
            alternatives = x509.SubjectAlternativeName([x509.DNSName(name) for name in names])
            builder = builder.add_extension(alternatives, critical=False)
        certificate = self._sign(builder, key if self_signed else None)
        made = Identity(self._folder, label, certificate, key)
        if self._parent is not None:
            made.certificate.write_bytes(made.certificate.read_bytes() + self.certificate.read_bytes())
        return made

    def revoke(self, identity: Identity) -> None:
        """Writes a revocation list with this certificate in it, too."""
        number = identity.x509.serial_number
        self._revoked.append(
            x509.RevokedCertificateBuilder().serial_number(number).revocation_date(datetime.now(UTC)).build()
        )
        self.write_crl()

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta, issuer: x509.Name | None = None
    ) -> x509.CertificateBuilder:
        end = datetime.now(UTC) + valid
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer or self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(min(datetime.now(UTC), end) - DAY)
            .not_valid_after(end)
        )

    def _sign(
        self, builder: x509.CertificateBuilder, key: ec.EllipticCurvePrivateKey | None = None
    ) -> x509.Certificate:
        return builder.sign(key or self._key, hashes.SHA256())

    def write_crl(self, valid: timedelta = 30 * DAY) -> None:
        """Writes the revocation list anew; with a negative `valid`, its nextUpdate is over."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder().issuer_name(self._name)
        builder = builder.last_update(now - 2 * DAY).next_update(now + valid)
        for revoked in self._revoked:
            builder = builder.add_revoked_certificate(revoked)
        made = builder.sign(self._key, hashes.SHA256())
        self.crl.write_bytes(made.public_bytes(serialization.Encoding.PEM))


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )
