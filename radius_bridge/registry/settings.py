"""Where Consul is and how to talk to it: the `[consul]` table of both configuration files."""

import re
import ssl
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from radius_bridge.secretfile import secret_from_file

_PART = re.compile(r"[A-Za-z0-9._-]+")


def plain_url(value: str) -> str:
    """A URL of scheme, host and port, without a slash at its end. Raises ValueError if it is more, or none."""
    if not re.fullmatch(r"https?://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", value.rstrip("/")):
        raise ValueError("write scheme, host and port only, such as http://127.0.0.1:8500")
    return value.rstrip("/")


PlainUrl = Annotated[str, AfterValidator(plain_url)]


def _plain_path(value: str) -> str:
    parts = value.split("/")
    if any(not _PART.fullmatch(part) or set(part) == {"."} for part in parts):
        raise ValueError("write letters, digits and . _ - (parts separated by one /), such as befw or sites/befw")
    return value


class ConsulSettings(BaseModel):
    """How the registry reaches Consul."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: PlainUrl = "http://127.0.0.1:8500"
    """Consul's HTTP API; in production the agent on the same host."""
    token: SecretStr | None = None
    """ACL token; prefer `token_file`."""
    token_file: Path | None = None
    """A file that holds the ACL token and nothing else; read again when Consul refuses something."""
    root: Annotated[str, AfterValidator(_plain_path)] = "befw"
    """Everything we keep in Consul is below this key."""
    datacenter: str | None = Field(default=None, pattern=r"^[A-Za-z0-9_-]+$")
    """The datacenter that holds the registry; without it, the one of the agent behind `url`."""
    ca_file: Path | None = None
    """Certificates that sign the server's, for https; without it, the system's."""

    @model_validator(mode="after")
    def _one_token(self) -> Self:
        if self.token is not None and self.token_file is not None:
            raise ValueError("token and token_file are both set: keep one")
        return self

    def in_datacenter(self, name: str, url: str = "") -> Self:
        """The same for another datacenter: through its own Consul at `url`, or else through ours."""
        return self.model_copy(update={"datacenter": name, **({"url": url} if url else {})})

    def tls(self) -> ssl.SSLContext | None:
        """What Consul's certificate is checked with; None without https. Raises ValueError, naming the file."""
        if not self.url.startswith("https:"):
            return None
        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except ssl.SSLError as error:
            raise ValueError(f"ca_file {self.ca_file}: holds no certificates as PEM ({error.reason})") from None
        except OSError as error:
            raise ValueError(f"ca_file {self.ca_file}: cannot be read ({error.strerror})") from None

    def read_token(self) -> str:
        """The ACL token; empty without one.

        Raises ValueError, naming the file, if it cannot be read, or if everybody can.
        """
        if self.token is not None:
            return self.token.get_secret_value()
        if self.token_file is None:
            return ""
        try:
            token = secret_from_file(self.token_file, "token_file").decode().strip()
        except UnicodeDecodeError as error:
            raise ValueError(f"token_file {self.token_file} cannot be read: {error}") from None
        if not token or not token.isascii() or not token.isprintable():
            raise ValueError(f"token_file {self.token_file}: holds no token; write the token and nothing else")
        return token
