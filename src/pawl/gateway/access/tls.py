"""TLS of the gateway's listener: certificates are read again when their files change."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import ssl
from pathlib import Path

from pawl.errors import ConfigError
from pawl.settings import Settings

LOOK_S = 2.0
log = logging.getLogger("pawl.tls")


class Certificates:
    """One server context. New connections use what the files held when they last changed; open ones go on.

    A client CA that is taken out of its file is trusted until the gateway restarts: a context only ever learns more.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        if client_ca is not None:
            self.context.verify_mode = ssl.CERT_REQUIRED
        try:
            self._seen = self._stamps()
            self._load()
        except (OSError, ssl.SSLError) as e:
            problem = f"PAWL_TLS_CERT, PAWL_TLS_KEY or PAWL_TLS_CLIENT_CA cannot be used: {e}"
            raise ConfigError("the gateway's TLS", [problem]) from e

    async def follow(self) -> None:
        """For ever: look whether the files changed."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                now = self._stamps()
                if now != self._seen:
                    self._load()
                    self._seen = now
                    log.info("the certificates were read again")
            except (OSError, ssl.SSLError) as e:  # perhaps half written: the old ones serve until the new ones load
                log.warning("the new certificates cannot be used yet: %s", e)

    def _load(self) -> None:
        # Into a context of its own first: a key that does not fit must not leave the live one half changed.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self._cert, self._key)
        self.context.load_cert_chain(self._cert, self._key)
        if self._client_ca is not None:
            self.context.load_verify_locations(self._client_ca)

    def _stamps(self) -> list[tuple[int, int]]:
        files = [self._cert, self._key, *([self._client_ca] if self._client_ca else [])]
        return [(f.stat().st_mtime_ns, f.stat().st_size) for f in files]


def certificates(settings: Settings) -> Certificates | None:
    """The listener's certificates; None for plain HTTP on loopback. ConfigError beyond loopback without them."""
    if settings.tls_cert is not None and settings.tls_key is not None:
        return Certificates(settings.tls_cert, settings.tls_key, settings.tls_client_ca)
    problems = []
    if settings.tls_cert is not None or settings.tls_key is not None:
        problems.append("PAWL_TLS_CERT and PAWL_TLS_KEY go together: set both")
    if settings.tls_client_ca is not None:
        problems.append("PAWL_TLS_CLIENT_CA needs PAWL_TLS_CERT and PAWL_TLS_KEY")
    if not is_loopback(settings.gateway_host):
        problems.append(
            f"PAWL_GATEWAY_HOST is {settings.gateway_host}, beyond this machine: set PAWL_TLS_CERT and PAWL_TLS_KEY, "
            "or bind to 127.0.0.1"
        )
    if problems:
        raise ConfigError("the gateway's listener", problems)
    return None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach that address (pure)."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
