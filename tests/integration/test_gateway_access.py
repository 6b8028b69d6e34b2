"""Who may call, how much, over which connection: keys, budgets, an identity provider, TLS."""

from __future__ import annotations

import base64
import datetime as dt
import hmac
import ipaddress
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import jwt
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from pawl.fleet.limits import KeyTerms, LimitsSpec
from tests.integration.gateway_process import FLEET, PROMPT, LiveGateway
from tests.waiting import until

AGENT = "functional-negative"
CHAT = "/v1/chat/completions"
ASK = {"model": AGENT, "messages": [{"role": "user", "content": PROMPT}]}
Start = Callable[..., LiveGateway]


def key(live: LiveGateway, role: Any = "client", **terms: Any) -> str:
    return live.control.create_key(role, "a test", KeyTerms(**terms))[1]


# -- keys, rates, budgets


def test_a_key_may_call_its_agents_only(live: LiveGateway) -> None:
    other = key(live, agents=("another-agent",))
    assert live.request(CHAT, ASK, other)[0] == 403
    assert live.request("/v1/models", key=other)[1]["data"] == []
    assert live.request(CHAT, ASK, key(live, agents=(AGENT,)))[0] == 200


def test_a_rate_is_a_429_with_the_seconds_to_wait(live: LiveGateway) -> None:
    mine = key(live, limits=LimitsSpec(requests_per_minute=3))
    assert [live.request(CHAT, ASK, mine)[0] for _ in range(4)] == [200, 200, 200, 429]
    with pytest.raises(openai.RateLimitError) as caught:
        live.client(mine).chat.completions.create(**ASK)  # type: ignore[call-overload]
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 20
    assert caught.value.code == "rate_limit_exceeded" and live.request(CHAT, ASK)[0] == 200
    assert live.metric("pawl_refused_total", limit="requests a minute") == 2


def test_tokens_a_minute_count_what_answers_used(live: LiveGateway) -> None:
    mine = key(live, limits=LimitsSpec(tokens_per_minute=8))  # an answer has five
    assert [live.request(CHAT, ASK, mine)[0] for _ in range(3)] == [200, 200, 429]


def test_who_leaves_a_stream_early_pays_for_what_was_read(gateway: Start) -> None:
    live = gateway(FLEET.replace("shadow: cloud", "first_champion: cloud"))
    live.upstream.answers["big"] = " ".join(["word"] * 20_000)
    mine = key(live, limits=LimitsSpec(usd_per_day=1))
    stream = live.client(mine).chat.completions.create(**ASK, stream=True)  # type: ignore[call-overload]
    for _ in range(50):
        next(stream)
    stream.response.close()
    until(lambda: any(i.status == 499 for i in live.recorded()))
    left = next(i for i in live.recorded() if i.status == 499)
    assert left.completion_tokens > 10 and left.cost_usd > 1
    assert live.request(CHAT, ASK, mine)[0] == 429


def test_a_budget_survives_a_restart_and_names_itself(gateway: Start) -> None:
    live = gateway(FLEET.replace("shadow: cloud", "first_champion: cloud"))  # 7 USD an answer
    mine = key(live, limits=LimitsSpec(usd_per_day=10))
    assert [live.request(CHAT, ASK, mine)[0] for _ in range(3)] == [200, 200, 429]
    live.stop()
    live.start()
    status, body = live.request(CHAT, ASK, mine)
    assert (status, body["error"]["code"]) == (429, "insufficient_quota")
    assert "10 USD a day" in body["error"]["message"]


def test_spending_of_a_killed_gateway_is_known_to_the_next(gateway: Start) -> None:
    live = gateway(FLEET.replace("shadow: cloud", "first_champion: cloud"))
    mine = key(live, limits=LimitsSpec(usd_per_day=10))
    assert [live.request(CHAT, ASK, mine)[0] for _ in range(2)] == [200, 200]
    time.sleep(1.5)  # it is written once a second
    live.kill()
    live.start()
    assert live.request(CHAT, ASK, mine)[0] == 429


def test_an_agents_limits_hold_for_all_keys_together(gateway: Start) -> None:
    live = gateway(FLEET.replace("shadow: cloud", "limits: {{requests_per_minute: 2}}"))
    assert [live.request(CHAT, ASK, key(live))[0] for _ in range(3)] == [200, 200, 429]


def test_a_body_over_the_limit_is_refused(gateway: Start) -> None:
    live = gateway(FLEET + "gateway: {{max_body_bytes: 2000}}\n")
    assert live.request(CHAT, ASK)[0] == 200
    assert live.request(CHAT, ASK | {"x": "y" * 3000})[0] == 413


def test_feedback_is_for_those_who_may_see_the_interaction(live: LiveGateway) -> None:
    identity = live.request(CHAT, ASK)[1]["id"]
    body = {"interaction": identity, "kind": "rating", "score": 1.0}
    assert live.request("/v1/feedback", body, key(live))[0] == 404, "another client's"
    assert live.request("/v1/feedback", body, key(live, "feedback", agents=("another-agent",)))[0] == 404
    assert live.request("/v1/feedback", body, key(live, "feedback"))[0] == 200
    assert live.request("/v1/feedback", body)[0] == 200


def pawl(live: LiveGateway, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | {"PAWL_HOME": str(live.home), "PAWL_FLEET": str(live.settings.fleet)}
    return subprocess.run([sys.executable, "-m", "pawl.cli", *arguments], env=env, capture_output=True, text=True)


def test_the_command_creates_rotates_and_revokes_and_the_log_says_so(live: LiveGateway) -> None:
    made = pawl(live, "keys", "create", "client", "ci", "--agent", AGENT, "--requests-per-minute", "50")
    old, key_id = made.stdout.strip(), made.stderr.split()[0]
    assert live.request(CHAT, ASK, old)[0] == 200
    assert "requests_per_minute=50" in pawl(live, "keys", "list").stdout
    new = pawl(live, "keys", "rotate", key_id, "--keep", "0").stdout.strip()
    assert live.request(CHAT, ASK, new)[0] == 200
    until(lambda: live.request(CHAT, ASK, old)[0] == 401, 2)
    assert pawl(live, "keys", "revoke", key_id).returncode == 0
    until(lambda: live.request(CHAT, ASK, new)[0] == 401, 2)
    events = [e["event"] for e in live.control.audit_log() if e["event"].startswith("key ")]
    assert events == ["key created", "key rotated", "key revoked"] and live.control.verify_audit() is None
    assert not any(old in json.dumps(e) or new in json.dumps(e) for e in live.control.audit_log())
    for wrong in (("create", "boss", "me"), ("create", "client", "me", "--agent", "nobody"), ("rotate", "key-none")):
        failed = pawl(live, "keys", *wrong)
        assert failed.returncode == 1 and failed.stderr.startswith("pawl: ")


# -- an identity provider


class Provider:
    """A small OpenID provider: a discovery document and its keys, over real HTTP."""

    def __init__(self) -> None:
        self.keys: dict[str, rsa.RSAPrivateKey] = {}
        self.asked = 0
        self.add("k1")
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                """Silent."""

            def do_GET(self) -> None:
                provider.asked += 1
                body = provider.jwks() if self.path == "/jwks" else {"jwks_uri": f"{provider.url}/jwks"}
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def add(self, kid: str) -> None:
        self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def jwks(self) -> dict[str, Any]:
        made = [jwt.algorithms.RSAAlgorithm.to_jwk(k.public_key(), as_dict=True) | {"kid": n, "use": "sig"}
                for n, k in self.keys.items()]  # fmt: skip
        return {"keys": made}

    def token(self, kid: str = "k1", signer: Any = None, algorithm: str = "RS256", **claims: Any) -> str:
        body = {"iss": self.url, "aud": "pawl", "sub": "ann", "exp": time.time() + 60, "pawl_role": "client"} | claims
        body = {k: v for k, v in body.items() if v is not None}
        return jwt.encode(body, signer or self.keys[kid], algorithm=algorithm, headers={"kid": kid})

    def forged(self, header: dict[str, Any], secret: bytes | None) -> str:
        """What a signing library refuses to make."""
        claims = {"iss": self.url, "aud": "pawl", "sub": "eve", "exp": time.time() + 60, "pawl_role": "admin"}
        parts = [json.dumps(header | {"kid": "k1"}).encode(), json.dumps(claims).encode()]
        signed = b".".join(base64.urlsafe_b64encode(p).rstrip(b"=") for p in parts)
        mac = hmac.digest(secret, signed, "sha256") if secret else b""
        return (signed + b"." + base64.urlsafe_b64encode(mac).rstrip(b"=")).decode()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.server.shutdown()


def test_tokens_of_the_identity_provider_are_callers(gateway: Start, provider: Provider) -> None:
    live = gateway(FLEET + f"gateway: {{{{oidc: {{{{issuer: '{provider.url}', audience: pawl}}}}}}}}\n")
    assert live.request(CHAT, ASK, provider.token())[0] == 200
    assert live.request("/v1/rollouts", key=provider.token())[0] == 403
    assert live.request("/v1/rollouts", key=provider.token(pawl_role="operator"))[0] == 200
    assert live.request(CHAT, ASK)[0] == 200, "keys go on working"
    assert next(i for i in live.recorded() if i.role == "answer").key_id == "oidc:ann"
    assert "log-in" in [e["event"] for e in live.control.audit_log()]
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = provider.keys["k1"].public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )  # fmt: skip
    for wrong in (
        provider.token(exp=time.time() - 120),
        provider.token(aud="another"),
        provider.token(iss="http://127.0.0.1:1"),
        provider.token(pawl_role="king"),
        provider.token(pawl_role=None),
        provider.token(sub=None),
        provider.token(signer=stranger),
        provider.forged({"alg": "HS256"}, public),  # who knows the public key must not be able to sign
        provider.forged({"alg": "none"}, None),
        provider.token()[:-4] + "AAAA",
    ):
        assert live.request(CHAT, ASK, wrong)[0] == 401, wrong
    asked = provider.asked
    assert asked <= 4, "tokens that nobody signed do not make the gateway ask the provider"


# -- TLS


def certificate(folder: Path, name: str, issuer: tuple[Any, Any] | None = None) -> tuple[Path, Path, tuple[Any, Any]]:
    """(certificate, key, what can sign others) for 127.0.0.1."""
    mine = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    signer, by = (issuer[0], issuer[1].subject) if issuer else (mine, subject)
    now = dt.datetime.now(dt.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(mine.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(minutes=5))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .sign(signer, hashes.SHA256())
    )
    cert, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    cert.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        mine.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert, key_file, (mine, made)


def served(live: LiveGateway) -> bytes:
    """The certificate that the gateway shows now."""
    found = ssl.get_server_certificate(("127.0.0.1", live.settings.gateway_port), timeout=5)
    return ssl.PEM_cert_to_DER_cert(found)


def test_tls_is_served_and_a_new_certificate_needs_no_restart(tmp_path: Path, gateway: Start) -> None:
    ca, _, signer = certificate(tmp_path, "ca")
    cert, key_file, _ = certificate(tmp_path, "one", signer)
    live = gateway(PAWL_TLS_CERT=str(cert), PAWL_TLS_KEY=str(key_file), TEST_CA=str(ca))
    assert live.settings.gateway_url.startswith("https://") and live.open("/healthz").status == 200
    first = served(live)
    with pytest.raises((OSError, urllib.error.URLError)):
        urllib.request.urlopen(f"http://127.0.0.1:{live.settings.gateway_port}/healthz", timeout=2)
    key_file.write_text("half a key")  # written bit by bit: the old one serves on
    time.sleep(2.5)
    assert served(live) == first and "cannot be used yet" in live.log
    new_cert, new_key, _ = certificate(tmp_path, "two", signer)
    cert.write_bytes(new_cert.read_bytes())
    key_file.write_bytes(new_key.read_bytes())
    until(lambda: served(live) != first, 6)
    assert live.open("/healthz").status == 200


def test_mutual_tls_lets_in_who_shows_a_certificate(tmp_path: Path, gateway: Start) -> None:
    ca, _, signer = certificate(tmp_path, "ca")
    cert, key_file, _ = certificate(tmp_path, "server", signer)
    client_cert, client_key, _ = certificate(tmp_path, "client", signer)
    live = gateway(
        PAWL_TLS_CERT=str(cert), PAWL_TLS_KEY=str(key_file), PAWL_TLS_CLIENT_CA=str(ca), TEST_CA=str(ca),
        TEST_CLIENT_CERT=str(client_cert), TEST_CLIENT_KEY=str(client_key),
    )  # fmt: skip
    assert live.open("/healthz").status == 200
    bare = ssl.create_default_context(cafile=str(ca))
    with pytest.raises((OSError, urllib.error.URLError)):
        urllib.request.urlopen(f"{live.settings.gateway_url}/healthz", timeout=5, context=bare)


@pytest.mark.parametrize(
    ("env", "said"),
    [
        ({"PAWL_GATEWAY_HOST": "0.0.0.0"}, "set PAWL_TLS_CERT and PAWL_TLS_KEY"),
        ({"PAWL_TLS_CERT": "/nowhere.pem"}, "go together"),
        ({"PAWL_TLS_CLIENT_CA": "/nowhere.pem"}, "needs PAWL_TLS_CERT"),
        ({"PAWL_TLS_CERT": "/nowhere.pem", "PAWL_TLS_KEY": "/nowhere.key"}, "cannot be used"),
    ],
)
def test_a_listener_that_would_be_open_or_broken_does_not_start(
    tmp_path: Path, free_port: int, env: dict[str, str], said: str
) -> None:
    (tmp_path / "fleet.yaml").write_text(FLEET.format(port=1))
    more = {"PAWL_HOME": str(tmp_path), "PAWL_FLEET": str(tmp_path / "fleet.yaml"), "PAWL_GATEWAY_PORT": str(free_port)}
    done = subprocess.run(
        [sys.executable, "-m", "pawl.cli", "gateway"], env=os.environ | more | env, capture_output=True, text=True,
        timeout=30,
    )  # fmt: skip
    assert done.returncode == 1 and said in done.stderr
