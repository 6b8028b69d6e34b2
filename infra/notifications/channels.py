"""Where notifications go, as the environment says."""

from __future__ import annotations

from urllib.parse import quote, urlencode, urlsplit

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from pawl.errors import ConfigError

# How a mail server is spoken to -> Apprise's scheme, its `mode`, the usual port
_MAIL = {
    "smtps": ("mailtos", "ssl", 465),
    "smtp+starttls": ("mailtos", "starttls", 587),
    "smtp": ("mailto", "insecure", 25),
}


class Channels(BaseSettings):
    """Every field is the environment variable `PAWL_NOTIFY_<NAME>`; what is not given is not used."""

    model_config = SettingsConfigDict(env_prefix="PAWL_NOTIFY_", extra="ignore", frozen=True)

    slack_url: SecretStr | None = Field(default=None, description="Slack's incoming webhook")
    webhook_url: SecretStr | None = Field(default=None, description="takes POST with JSON: subject, body")
    webhook_token: SecretStr | None = Field(default=None, description="sent to it as Authorization: Bearer")
    smtp_url: SecretStr | None = Field(
        default=None, description="smtps://USER:PASSWORD@HOST, smtp+starttls://..., or smtp://HOST:PORT in the clear"
    )
    email_from: str = ""
    email_to: str = Field(default="", description="addresses, separated by commas")

    def names(self) -> tuple[str, ...]:
        """The channels that are given. ConfigError for one that is given by half."""
        problems = []
        if self.smtp_url and not (self.email_from and self.email_to):
            problems.append("PAWL_NOTIFY_SMTP_URL wants PAWL_NOTIFY_EMAIL_FROM and PAWL_NOTIFY_EMAIL_TO beside it")
        if not self.smtp_url and (self.email_from or self.email_to):
            problems.append("an e-mail address is given and no PAWL_NOTIFY_SMTP_URL")
        if self.webhook_token and not self.webhook_url:
            problems.append("PAWL_NOTIFY_WEBHOOK_TOKEN is given and no PAWL_NOTIFY_WEBHOOK_URL")
        if self.smtp_url and urlsplit(self.smtp_url.get_secret_value()).scheme not in _MAIL:
            problems.append(f"PAWL_NOTIFY_SMTP_URL must begin with one of: {', '.join(f'{s}://' for s in _MAIL)}")
        if problems:
            raise ConfigError("the notifications' environment", problems)
        given = {"slack": self.slack_url, "email": self.smtp_url, "webhook": self.webhook_url}
        return tuple(name for name, value in given.items() if value)


def mail_address(channels: Channels) -> str:
    """The mail server with sender and receivers as one address of Apprise, which sends for Prefect."""
    assert channels.smtp_url is not None
    at = urlsplit(channels.smtp_url.get_secret_value())
    scheme, mode, port = _MAIL[at.scheme]
    host = at.hostname or ""
    who = f"{at.username}:{at.password or ''}@" if at.username else ""  # percent-encoded as they came
    to = ",".join(part.strip() for part in channels.email_to.split(","))
    asked = urlencode({"smtp": host, "from": channels.email_from, "to": to, "mode": mode}, quote_via=quote)
    return f"{scheme}://{who}{host}:{at.port or port}?{asked}"
