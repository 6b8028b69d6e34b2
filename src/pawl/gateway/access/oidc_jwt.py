"""Tokens of an OpenID Connect provider as callers (RFC 7519; OpenID Connect Core 1.0, section 3.1.3.7)."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, get_args

import aiohttp
import jwt

from pawl.fleet.spec import OidcSpec
from pawl.rollout.control import Key, Role

log = logging.getLogger("pawl.oidc")
# Asymmetric only: with HS256 anybody who knows the public key could sign.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
_LEEWAY_S = 30.0  # clocks differ
_ASK_AGAIN_S = 30.0  # tokens signed by a key that is not known must not make us ask the provider each time
_KEEP_S = 3600.0


class OidcIdentities:
    """Checks signature, issuer, audience and expiry; the role stands in a claim."""

    def __init__(self, spec: OidcSpec, log_in: Callable[[str, dict[str, Any]], Awaitable[None]]) -> None:
        self._spec, self._log_in = spec, log_in
        self._keys: dict[str, jwt.PyJWK] = {}
        self._asked_at = -1e9
        self._asking = asyncio.Lock()
        self._seen: dict[tuple[str, str], None] = {}

    async def key_of(self, token: str) -> Key | None:
        """The caller that a token names, None where it names none that we trust."""
        try:
            kid = str(jwt.get_unverified_header(token).get("kid") or "")
            signer = await self._signer(kid)
            if signer is None:
                return None
            claims = jwt.decode(
                token,
                signer.key,
                algorithms=_ALGORITHMS,
                audience=self._spec.audience,
                issuer=self._spec.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.PyJWTError as e:
            log.info("a token was refused: %s", e)
            return None
        named = claims.get(self._spec.role_claim)
        role: Role | None = next((r for r in get_args(Role) if r == named), None)
        if role is None:
            log.info("a token of %s names no role in %s", claims["sub"], self._spec.role_claim)
            return None
        subject = str(claims["sub"])
        once = (subject, str(claims.get("jti") or claims.get("iat") or claims["exp"]))
        if once not in self._seen:
            self._seen[once] = None
            if len(self._seen) > 10_000:
                self._seen.pop(next(iter(self._seen)))
            await self._log_in(subject, {"issuer": self._spec.issuer, "role": role})
        return Key(id=f"oidc:{subject}", role=role, name=str(claims.get("email") or subject))

    async def _signer(self, kid: str) -> jwt.PyJWK | None:
        now = time.monotonic()
        age = now - self._asked_at
        if age > _KEEP_S or (kid not in self._keys and age > _ASK_AGAIN_S):
            async with self._asking:
                if self._asked_at < now:
                    await self._ask()
        return self._keys.get(kid)

    async def _ask(self) -> None:
        self._asked_at = time.monotonic()
        try:
            async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
                url = self._spec.jwks_url
                if url is None:
                    place = f"{self._spec.issuer.rstrip('/')}/.well-known/openid-configuration"
                    async with session.get(place, allow_redirects=False) as answer:
                        url = str((await answer.json())["jwks_uri"])
                async with session.get(url, allow_redirects=False) as answer:
                    found = await answer.json(content_type=None)
            self._keys = {str(k.get("kid") or ""): jwt.PyJWK(k) for k in found["keys"] if k.get("use", "sig") == "sig"}
        except (aiohttp.ClientError, TimeoutError, OSError, KeyError, TypeError, ValueError, jwt.PyJWTError) as e:
            log.warning("the identity provider's keys could not be read (%r); the known ones stay", e)
