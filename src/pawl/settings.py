"""Settings of this machine; the only place that reads the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Where things are on this machine. Every field is the environment variable `PAWL_<NAME>`."""

    model_config = SettingsConfigDict(env_prefix="PAWL_", extra="ignore", frozen=True)

    home: Path = Field(default=Path(".pawl"), description="everything Pawl writes on this machine")
    fleet: Path = Field(default=Path("infra/fleet.yaml"), description="the fleet's specification")
    gateway_host: str = Field(
        default="127.0.0.1", description="address the gateway binds to; beyond loopback it demands TLS"
    )
    gateway_port: int = 8700
    tls_cert: Path | None = Field(default=None, description="the gateway's certificate chain (PEM)")
    tls_key: Path | None = Field(default=None, description="its private key (PEM)")
    tls_client_ca: Path | None = Field(default=None, description="clients must show a certificate of these (mTLS)")
    vllm_port: int = 8710
    vllm_urls: str = Field(
        default="",
        description="the vLLM replicas, separated by commas; or kubernetes://NAMESPACE/LABEL=VALUE?port=8000 for pods; "
        "not given: one on this machine at vllm_port",
    )
    kubernetes_api: str = "https://kubernetes.default.svc"
    kubernetes_account: Path = Field(
        default=Path("/var/run/secrets/kubernetes.io/serviceaccount"), description="holds token and ca.crt"
    )
    vllm_cpu_loras: int = Field(default=12, ge=1, description="adapters a replica keeps: vLLM's --max-cpu-loras")
    vllm_drain_s: float = Field(
        default=150.0,
        ge=0,
        description="an adapter nobody needs is unloaded when it was idle for so long; longer than "
        "a call may wait for its turn",
    )
    mlflow_port: int = 8720
    standin_port: int = 8730
    prefect_port: int = 8740
    prometheus_port: int = 8760
    grafana_port: int = 8770
    alertmanager: str | None = Field(
        default=None,
        pattern="^https?://",
        description="an Alertmanager, e.g. http://127.0.0.1:9093, to which the Prometheus of `pawl up` sends alerts",
    )
    root: Path = Field(default=Path(), description="the project's folder: prefect.yaml, flows/, infra/")
    mlflow_address: str | None = Field(
        default=None, description="MLflow's server where it is not on this machine, e.g. http://mlflow:5000"
    )
    prefect_address: str | None = Field(
        default=None, description="Prefect's server where it is not on this machine, e.g. http://prefect-server:4200"
    )
    prometheus_address: str | None = Field(
        default=None,
        pattern="^https?://",
        description="the Prometheus that `pawl report` asks, where it is not on this machine, e.g. "
        "http://prometheus:9090",
    )
    control_url: str | None = Field(
        default=None,
        repr=False,
        description="the control database as postgresql://USER@HOST/DATABASE; not given: a SQLite file under PAWL_HOME",
    )
    lake_url: str | None = Field(
        default=None, description="s3://bucket/prefix for the lake's objects; not given: a folder under PAWL_HOME"
    )
    s3_endpoint: str | None = Field(default=None, description="an S3 server other than Amazon's")
    s3_encryption: Literal["AES256", "aws:kms"] | None = Field(default=None, description="server-side encryption")
    disk_encryption: str = Field(
        default="", description="how the disk under PAWL_HOME is encrypted, in your words, for the compliance report"
    )
    mlflow_accounts: bool = Field(default=False, description="MLflow asks for accounts (mlflow/README.md)")
    mlflow_promoter: str = Field(default="pawl-promotion", description="the only account that may move aliases there")
    timezone: str = Field(
        default="UTC", description="of the schedules that follow the calendar (docs/operations.md), e.g. Europe/Berlin"
    )
    prefect_database: Literal["postgres", "sqlite"] = "postgres"
    journal_sync: Literal["kernel", "fsync"] = Field(
        default="kernel",
        description="kernel: survives kill -9; fsync: survives power loss too",
    )
    ray: str = Field(
        default="",
        description="where evaluations and searches run in pieces: `local` for a Ray on this machine, or the address "
        "of a Ray cluster, e.g. ray-head:6379; not given: in the process that begins them",
    )
    api_key: str | None = Field(default=None, description="the key this process acts with", repr=False)

    @property
    def host(self) -> str:
        """Where every server but the gateway binds: only the gateway is meant to be reached from elsewhere."""
        return "127.0.0.1"

    @property
    def journal_dir(self) -> Path:
        return self.home / "journal"

    @property
    def lake_dir(self) -> Path:
        return self.home / "lake"

    @property
    def control_db(self) -> Path:
        return self.home / "control.sqlite"

    @property
    def models_dir(self) -> Path:
        return self.home / "models"

    @property
    def adapters_dir(self) -> Path:
        return self.home / "adapters"

    @property
    def datasets_dir(self) -> Path:
        return self.home / "datasets"

    @property
    def regression_dir(self) -> Path:
        return self.home / "regression"

    @property
    def reviews_dir(self) -> Path:
        return self.home / "reviews"

    @property
    def validation_dir(self) -> Path:
        return self.home / "validation"

    @property
    def reports_dir(self) -> Path:
        return self.home / "reports"

    @property
    def logs_dir(self) -> Path:
        return self.home / "logs"

    @property
    def gateway_url(self) -> str:
        scheme = "https" if self.tls_cert else "http"
        host = "127.0.0.1" if self.gateway_host in ("0.0.0.0", "::") else self.gateway_host  # noqa: S104 - compared
        return f"{scheme}://{host}:{self.gateway_port}"

    @property
    def replica_urls(self) -> tuple[str, ...]:
        """The vLLM replicas, without `/v1`."""
        if self.finds_pods:
            return (self.vllm_urls.strip(),)
        given = tuple(url.strip().rstrip("/") for url in self.vllm_urls.split(",") if url.strip())
        return given or (f"http://{self.host}:{self.vllm_port}",)

    @property
    def finds_pods(self) -> bool:
        """Whether the replicas are found by label, and not at addresses of their own."""
        return self.vllm_urls.strip().startswith("kubernetes:")

    @property
    def vllm_url(self) -> str:
        """The first replica."""
        return self.replica_urls[0]

    @property
    def mlflow_url(self) -> str:
        return (self.mlflow_address or "").rstrip("/") or f"http://{self.host}:{self.mlflow_port}"

    @property
    def prometheus_url(self) -> str:
        return (self.prometheus_address or "").rstrip("/") or f"http://{self.host}:{self.prometheus_port}"

    @property
    def standin_url(self) -> str:
        return f"http://{self.host}:{self.standin_port}"

    @property
    def places(self) -> dict[str, str]:
        """What `${PAWL_...}` stands for in URLs of fleet.yaml."""
        return {
            "PAWL_VLLM_URL": self.vllm_url,
            "PAWL_VLLM_URLS": "" if self.finds_pods else ",".join(self.replica_urls),
            "PAWL_STANDIN_URL": self.standin_url,
            "PAWL_MLFLOW_URL": self.mlflow_url,
        }

    @property
    def prefect_api_url(self) -> str:
        return (self.prefect_address or f"http://{self.host}:{self.prefect_port}").rstrip("/") + "/api"
