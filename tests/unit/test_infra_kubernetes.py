"""infra/kubernetes as kubectl renders it: valid by Kubernetes' own schemas, every pod hardened, and no way out but the
ones that stand in a table here. There is no cluster here."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from infra.kubernetes import rules
from pawl.fleet.load_yaml import load
from pawl.fleet.reach import bases, expanded
from pawl.gateway.access.privacy import leaks
from pawl.platform.checks_services import LEARNING_S
from pawl.qe.tasks import names
from pawl.settings import Settings
from tasks.crashed import WAITING_S
from tests.manifests import Reach, pod_problems, pods

Manifest = dict[str, Any]
OVERLAYS = ("dev", "gpu")
VERSIONS = ("1.31", "1.37")  # the oldest that has all fields used here among those still met, and the newest known
CUSTOM = {"ExternalSecret", "SecretStore", "PodMonitor", "PrometheusRule"}  # kinds that Kubernetes itself does not know


@pytest.fixture(scope="module")
def kubernetes() -> Path:
    return Path(__file__).resolve().parents[2] / "infra" / "kubernetes"


@pytest.fixture(scope="module")
def rendered(kubernetes: Path) -> dict[str, list[Manifest]]:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    found = {}
    for overlay in OVERLAYS:
        done = subprocess.run(
            ["kubectl", "kustomize", str(kubernetes / "overlays" / overlay)], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
        found[overlay] = list(yaml.safe_load_all(done.stdout))
    return found


@pytest.fixture(params=OVERLAYS)
def manifests(request: pytest.FixtureRequest, rendered: dict[str, list[Manifest]]) -> list[Manifest]:
    return rendered[request.param]


def of(manifests: list[Manifest], kind: str, name: str) -> Manifest:
    (found,) = [m for m in manifests if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


def template(manifests: list[Manifest]) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(of(manifests, "ConfigMap", "prefect-work-pool")["data"]["work-pool.json"])
    return loaded


def flow_job(manifests: list[Manifest], **given: Any) -> Manifest:
    """The job of a flow run, its template filled in by Prefect's own function."""
    from prefect.utilities.templating import apply_values

    whole = template(manifests)
    values = {k: v["default"] for k, v in whole["variables"]["properties"].items() if "default" in v}
    run = {"name": "improve-agent", "command": "python -m prefect.engine", "env": {}}
    job: Manifest = apply_values(whole["job_configuration"]["job_manifest"], values | run | given)
    container = job["spec"]["template"]["spec"]["containers"][0]
    container["args"] = container["args"].split()  # as the worker does
    container["env"] = [{"name": k, "value": v} for k, v in container["env"].items()]
    # The worker demands these two here, and Kubernetes' API drops what it does not know.
    assert [job["spec"]["template"]["spec"].pop(k) for k in ("parallelism", "completions")] == [1, 1]
    return job


def everything(manifests: list[Manifest]) -> list[Manifest]:
    return [*manifests, flow_job(manifests)]


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_schemas_take_every_object(manifests: list[Manifest], version: str) -> None:
    for manifest in everything(manifests):
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, version, strict=True)


def test_a_misspelt_field_would_be_noticed(manifests: list[Manifest]) -> None:
    wrong = copy.deepcopy(of(manifests, "Deployment", "gateway"))
    container = wrong["spec"]["template"]["spec"]["containers"][0]
    container["readynessProbe"] = container.pop("readinessProbe")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[-1], strict=True)


def test_every_pod_is_hardened(manifests: list[Manifest]) -> None:
    found = pods(everything(manifests))
    assert {"gateway", "vllm", "mlflow", "prefect-server", "prefect-worker", "prefect-deploy", "flow"} <= found.keys()
    assert {name: pod_problems(spec) for name, spec in found.items() if pod_problems(spec)} == {}


@pytest.mark.parametrize(
    ("path", "value", "problem"),
    [
        (("containers", 0, "securityContext", "readOnlyRootFilesystem"), False, "can write to its image"),
        (("containers", 0, "securityContext", "capabilities"), {"drop": ["NET_RAW"]}, "keeps capabilities"),
        (("securityContext", "runAsUser"), 0, "runs as root"),
        (("securityContext", "seccompProfile"), {"type": "Unconfined"}, "no seccomp profile"),
        (("containers", 0, "resources", "limits"), {"cpu": "1"}, "no limit of memory"),
        (("hostNetwork",), True, "hostNetwork"),
        (("containers", 0, "image"), "pawl:latest", "no exact version"),
        (("containers", 0, "env"), [{"name": "DB_PASSWORD", "value": "x"}], "DB_PASSWORD in the open"),
    ],
)
def test_what_is_not_hardened_is_noticed(
    manifests: list[Manifest], path: tuple[str | int, ...], value: Any, problem: str
) -> None:
    spec = copy.deepcopy(pods(manifests)["gateway"])
    at: Any = spec
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value
    assert any(problem in said for said in pod_problems(spec)), pod_problems(spec)


def test_the_namespace_demands_it_of_whatever_else_is_put_there(manifests: list[Manifest]) -> None:
    labels = of(manifests, "Namespace", "pawl")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_pods_reach_each_other_as_this_table_says_and_nothing_else(manifests: list[Manifest]) -> None:
    reach = Reach(everything(manifests))
    expected = {
        ("gateway", "vllm", 8000), ("gateway", "mlflow", 5000), ("gateway", "prefect-server", 4200),
        ("flow", "vllm", 8000), ("flow", "mlflow", 5000), ("flow", "prefect-server", 4200),
        ("mlflow", "gateway", 8700),
        ("prefect-worker", "prefect-server", 4200), ("prefect-deploy", "prefect-server", 4200),
    }  # fmt: skip
    if "postgres" in reach.pods:
        users = ("mlflow", "prefect-server", "gateway", "flow", "control-database")
        expected |= {(user, "postgres", 5432) for user in users}
    assert reach.edges() == expected
    assert reach.outside("vllm") == set()


@pytest.mark.parametrize(
    ("overlay", "places"),
    [
        # A cluster on one machine: kind's and k3d's API, and minikube's.
        ("dev", {(cidr, port) for cidr in ("172.16.0.0/12", "192.168.0.0/16") for port in (443, 6443, 8443)}),
        # Addresses that belong to nobody, to be replaced: Kubernetes' API, PostgreSQL, S3.
        ("gpu", {("192.0.2.1/32", 443), ("192.0.2.1/32", 6443), ("192.0.2.2/32", 5432), ("192.0.2.3/32", 443)}),
    ],
)
def test_what_lies_outside_the_namespace_has_an_address(
    rendered: dict[str, list[Manifest]], overlay: str, places: set[tuple[str, int]]
) -> None:
    reach = Reach(everything(rendered[overlay]))
    found = {(cidr, port) for name in reach.pods for cidr, port in reach.outside(name)}
    assert found == places | {("names", 53)}
    to_api = {name for name in reach.pods if reach.outside(name) & {p for p in places if p[1] == 6443}}
    assert to_api == {"gateway", "flow", "prefect-worker"}


def test_only_those_who_need_kubernetes_api_have_a_token_for_it(manifests: list[Manifest]) -> None:
    with_token = {n for n, spec in pods(everything(manifests)).items() if spec["automountServiceAccountToken"]}
    assert with_token == {"gateway", "flow", "prefect-worker"}
    roles = {m["metadata"]["name"]: m["rules"] for m in manifests if m["kind"] == "Role"}
    assert roles["finds-replicas"] == [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
    assert not [m for m in manifests if m["kind"].startswith("ClusterRole")]
    assert "secrets" not in json.dumps(roles) and "*" not in json.dumps(roles)


def test_what_is_named_is_there(manifests: list[Manifest]) -> None:
    everyone = everything(manifests)
    there = {(m["kind"], m["metadata"]["name"]) for m in manifests}
    secrets = {name for kind, name in there if kind in ("Secret", "ExternalSecret")} | {"gateway-tls"}
    for name, spec in pods(everyone).items():
        assert ("ServiceAccount", spec["serviceAccountName"]) in there, name
        for volume in spec["volumes"]:
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in there
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
            if "secret" in volume:
                assert volume["secret"]["secretName"] in secrets
        for reference in re.findall(r'"secretKeyRef": (\{[^}]*\})', json.dumps(spec)):
            wanted = json.loads(reference)
            assert wanted.get("optional") or wanted["name"] in secrets, (name, wanted)
    labels = [m["spec"]["template"]["metadata"]["labels"] for m in everyone if "template" in m.get("spec", {})]
    for kind in ("Service", "PodDisruptionBudget"):
        for one in (m for m in manifests if m["kind"] == kind):
            selector = one["spec"]["selector"]
            wanted = (selector.get("matchLabels") or selector).items()
            assert any(wanted <= found.items() for found in labels), one["metadata"]["name"]
    for scaler in (m for m in manifests if m["kind"] == "HorizontalPodAutoscaler"):
        target = of(manifests, "Deployment", scaler["spec"]["scaleTargetRef"]["name"])
        assert "replicas" not in target["spec"]  # each `kubectl apply` would set it back


def test_all_that_share_the_journal_share_a_node(manifests: list[Manifest]) -> None:
    beside = [{"labelSelector": {"matchLabels": {"pawl/home": "true"}}, "topologyKey": "kubernetes.io/hostname"}]
    found = set()
    for manifest in everything(manifests):
        if "pawl-home" not in json.dumps(manifest.get("spec", {}).get("template", "")):
            continue
        made = manifest["spec"]["template"]
        required = made["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        assert required == beside and made["metadata"]["labels"]["pawl/home"] == "true"
        found.add((made["metadata"]["labels"]["app.kubernetes.io/name"], json.dumps(made["spec"].get("nodeSelector"))))
    assert {name for name, _ in found} == {"gateway", "flow"}
    # Else a training job would wait for ever for a GPU on the node that the gateway chose.
    assert len({selector for _, selector in found} - {"null", "{}"}) <= 1


def with_component(name: str, folder: Path, kubernetes: Path) -> list[Manifest]:
    """The gpu overlay with one more component."""
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    place = os.path.relpath(kubernetes, folder.resolve())
    (folder / "kustomization.yaml").write_text(
        f"namespace: pawl\nresources: [{place}/overlays/gpu]\ncomponents: [{place}/components/{name}]\n"
    )
    done = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def test_prometheus_operator_scrapes_what_prometheus_elsewhere_scrapes(tmp_path: Path, kubernetes: Path) -> None:
    """The schemas of its kinds are not at hand here: fields are held to what prometheus.yml says, and to the pods."""
    found = with_component("monitoring", tmp_path, kubernetes)
    jobs = {
        j["job_name"]: j
        for j in yaml.safe_load((kubernetes.parent / "prometheus" / "prometheus.yml").read_text())["scrape_configs"]
    }
    monitors = [m for m in found if m["kind"] == "PodMonitor"]
    named = set()
    for monitor in monitors:
        assert monitor["metadata"]["namespace"] == "pawl"
        spec = monitor["spec"]
        (pod,) = [p for n, p in pods(found).items() if spec["selector"]["matchLabels"] == {"app.kubernetes.io/name": n}]
        (endpoint,) = spec["podMetricsEndpoints"]
        (name,) = [r["replacement"] for r in endpoint["relabelings"] if r["targetLabel"] == "job"]
        named.add(name)
        (container,) = pod["containers"]
        assert endpoint["port"] in {p["name"] for p in container["ports"]}
        assert endpoint.get("scheme", "http") == container["readinessProbe"]["httpGet"].get("scheme", "HTTP").lower()
        if "tlsConfig" in endpoint:
            ca = endpoint["tlsConfig"]["ca"]["secret"]
            (stored,) = [
                m["spec"] for m in found
                if m["kind"] == "ExternalSecret" and m["spec"]["target"]["name"] == ca["name"]
            ]  # fmt: skip
            assert ca["key"] in {d["secretKey"] for d in stored["data"]}
        renamed = [
            {re.sub("[A-Z]", lambda upper: "_" + upper[0].lower(), k): v for k, v in rule.items()}
            for rule in endpoint.get("metricRelabelings", [])
        ]
        assert renamed == jobs[name].get("metric_relabel_configs", [])
    assert named == jobs.keys()
    # vLLM is found in one way, not in two.
    made = of(found, "Deployment", "vllm")
    assert "prometheus.io/scrape" not in json.dumps(made)
    kubernetes_validate.validate(made, VERSIONS[-1], strict=True)


def test_prometheus_operators_rules_are_those_of_prometheus(tmp_path: Path, kubernetes: Path) -> None:
    assert rules.OUT.read_text() == rules.rendered(), "run python -m infra.kubernetes.rules"
    found = {m["metadata"]["name"]: m["spec"] for m in with_component("monitoring", tmp_path, kubernetes)
             if m["kind"] == "PrometheusRule"}  # fmt: skip
    assert found.keys() == {"pawl-recording", "pawl-alerts"}
    for name, spec in found.items():
        source = kubernetes.parent / "prometheus" / "rules" / f"{name.removeprefix('pawl-')}.yml"
        assert spec == yaml.safe_load(source.read_text())


def test_spread_lets_gateways_go_where_they_like(tmp_path: Path, kubernetes: Path) -> None:
    found = with_component("spread", tmp_path, kubernetes)
    spec = of(found, "Deployment", "gateway")["spec"]["template"]["spec"]
    assert "affinity" not in spec and spec["topologySpreadConstraints"][0]["topologyKey"] == "kubernetes.io/hostname"
    assert of(found, "PersistentVolumeClaim", "pawl-home")["spec"]["accessModes"] == ["ReadWriteMany"]
    for version in VERSIONS:
        kubernetes_validate.validate(of(found, "Deployment", "gateway"), version, strict=True)
    free = flow_job(found, affinity={})
    assert free["spec"]["template"]["spec"]["affinity"] == {}
    kubernetes_validate.validate(free, VERSIONS[-1], strict=True)


def test_each_part_has_its_own_role_in_the_control_database(manifests: list[Manifest]) -> None:
    found = {}
    for name, spec in pods(everything(manifests)).items():
        secrets = {e["secretRef"]["name"] for c in spec["containers"] for e in c.get("envFrom", []) if "secretRef" in e}
        found[name] = {s for s in secrets if s.startswith("control-")}
    expected = {"gateway": {"control-gateway"}, "flow": {"control-flow"}, "control-database": {"control-owner"}}
    assert {name: roles for name, roles in found.items() if roles} == expected
    line = pods(manifests)["control-database"]["containers"][0]["args"][-1]
    made = (Path(__file__).resolve().parents[2] / "infra/kubernetes/overlays/dev/postgres-init.sh").read_text()
    for role in re.findall(r"--(?:gateway|flow) (\w+)", line):
        assert f"CREATE ROLE {role} LOGIN" in made


# What trains, or evaluates by asking a model of its own process.
TRAINING = {"improve-fleet/weekly", "improve-agent/now", "improve-agent/when-needed", "search-settings/search"}


def asked_for(manifests: list[Manifest]) -> dict[str, dict[str, Any]]:
    """The job variables of each deployment of prefect.yaml, as the job `prefect-deploy` sends them."""
    settings = of(manifests, "ConfigMap", "pawl-settings")["data"]
    read = pods(manifests)["prefect-deploy"]["containers"][0]["envFrom"]
    assert {"configMapRef": {"name": "pawl-settings"}} in read
    written = yaml.safe_load((Path(__file__).resolve().parents[2] / "prefect.yaml").read_text())["deployments"]
    return {
        f"{d['entrypoint'].rpartition(':')[2].replace('_', '-')}/{d['name']}": {
            k: re.sub(r"\{\{ \$(\w+) \}\}", lambda found: str(settings[found[1]]), v) if isinstance(v, str) else v
            for k, v in d["work_pool"].get("job_variables", {}).items()
        }
        for d in written
    }


def resources(job: Manifest) -> dict[str, Any]:
    found: dict[str, Any] = job["spec"]["template"]["spec"]["containers"][0]["resources"]
    return found


def test_only_what_trains_waits_for_a_gpu(rendered: dict[str, list[Manifest]]) -> None:
    for overlay, wanted in (("dev", "0"), ("gpu", "1")):
        manifests = rendered[overlay]
        small = resources(flow_job(manifests))
        assert small["limits"]["nvidia.com/gpu"] == 0
        for name, variables in asked_for(manifests).items():
            job = flow_job(manifests, **variables)
            kubernetes_validate.validate(job, VERSIONS[-1], strict=True)
            found = resources(job)
            if name not in TRAINING:
                assert found == small, name
                continue
            assert found["requests"]["nvidia.com/gpu"] == found["limits"]["nvidia.com/gpu"] == wanted
            assert amount(found["limits"]["cpu"]) >= amount(found["requests"]["cpu"]), name
            # Else the worker takes a training that is under way for dead.
            assert variables["job_watch_timeout_seconds"] > LEARNING_S, name
            assert variables["pod_watch_timeout_seconds"] < WAITING_S, "the worker gives up first"
            assert amount(found["requests"]["memory"]) > amount(small["requests"]["memory"]), name
    assert asked_for(rendered["gpu"]).keys() >= TRAINING


def test_the_pools_take_what_deployments_ask_for(rendered: dict[str, list[Manifest]]) -> None:
    """By the function with which Prefect's server checks it."""
    from prefect.utilities.schema_tools import ValidationError, validate

    def check(overlay: str, variables: dict[str, Any]) -> None:
        validate(variables, template(rendered[overlay])["variables"], raise_on_error=True, ignore_required=True)

    for overlay in OVERLAYS:
        for variables in asked_for(rendered[overlay]).values():
            check(overlay, {k: v for k, v in variables.items() if k != "working_dir"})
        check(overlay, {"gpus": 4, "memory": "256Gi"})
        # Deployed from where the overlay's settings are not known: refused, and not run without a GPU.
        for name in ("gpus", "cpu", "cpu_limit", "memory", "scratch"):
            with pytest.raises(ValidationError):
                check(overlay, {name: ""})
    dev, gpu = (template(rendered[o]) for o in OVERLAYS)
    assert dev["job_configuration"] == gpu["job_configuration"]
    for whole in (dev, gpu):
        used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(whole["job_configuration"])))
        assert used == whole["variables"]["properties"].keys()


def amount(quantity: Any) -> float:
    """A quantity of Kubernetes as a number."""
    found = re.fullmatch(r"([\d.]+)(m|[KMGT]i)?", str(quantity))
    assert found, quantity
    return float(found[1]) * {None: 1, "m": 1e-3, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}[found[2]]


@pytest.mark.parametrize(("what", "node", "its_own"), [("cpu", "4", "1"), ("memory", "16Gi", "1Gi")])
def test_one_small_node_holds_all_of_dev_and_the_runs_of_every_minute(
    rendered: dict[str, list[Manifest]], what: str, node: str, its_own: str
) -> None:
    """By requests; `its_own`: what the cluster's own parts and the node's system are reckoned at."""

    def asks(spec: Manifest) -> float:
        return sum(amount(c["resources"]["requests"][what]) for c in spec["containers"])

    manifests, one = rendered["dev"], {"Deployment", "StatefulSet"}
    standing = [m for m in manifests if m["kind"] in one]
    assert {m["spec"].get("replicas", 1) for m in standing} == {1}
    assert of(manifests, "HorizontalPodAutoscaler", "gateway")["spec"]["minReplicas"] == 1
    for_all = sum(asks(m["spec"]["template"]["spec"]) for m in standing)
    # The minute's rollout, beside another that is not yet done (the watch, or an answered approval).
    runs = 2 * asks(flow_job(manifests)["spec"]["template"]["spec"])
    assert for_all + runs + amount(its_own) <= amount(node)
    if what == "cpu":  # a training waits for no core either
        training = flow_job(manifests, **asked_for(manifests)["improve-fleet/weekly"])
        assert for_all + runs / 2 + asks(training["spec"]["template"]["spec"]) + amount(its_own) <= amount(node)


def test_prefect_is_one_version_everywhere(manifests: list[Manifest], root: Path) -> None:
    (locked,) = re.findall(r"^prefect==(\S+)$", (root / "requirements" / "core.txt").read_text(), re.M)
    image = pods(manifests)["prefect-worker"]["containers"][0]["image"]
    assert image == f"prefecthq/prefect:{locked}-python3.11-kubernetes"


@pytest.fixture
def environment() -> Iterator[None]:
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


def test_the_fleet_is_strict_and_cannot_leave_its_hosts(
    manifests: list[Manifest], tmp_path: Path, environment: None
) -> None:
    given = of(manifests, "ConfigMap", "pawl-settings")["data"]
    os.environ.update({k: v for k, v in given.items() if k.startswith("PAWL_")})
    settings = Settings()
    (tmp_path / "fleet.yaml").write_text(of(manifests, "ConfigMap", "pawl-fleet")["data"]["fleet.yaml"])
    fleet = load(tmp_path / "fleet.yaml", names())
    assert fleet.gateway.privacy == "strict" and settings.finds_pods
    urls = {name: bases(spec, settings.places) for name, spec in fleet.upstreams.items()}
    services = {
        "events": settings.prefect_api_url,
        "kubernetes": settings.kubernetes_api,
        "gateway.telemetry": expanded(fleet.gateway.telemetry.endpoint, settings.places),
    }
    assert leaks(fleet, urls, services) == []
    assert services["gateway.telemetry"] == "http://mlflow:5000/v1/traces"
    assert leaks(fleet, urls, services | {"events": "https://elsewhere.example/api"})
    # The names are those of the services, and the ports those that they listen on.
    for url in (settings.mlflow_url, settings.prefect_api_url):
        name, port = re.findall(r"//([\w-]+):(\d+)", url)[0]
        assert of(manifests, "Service", name)["spec"]["ports"][0]["port"] == int(port)


def test_the_queue_that_vllm_tells_is_the_one_that_scales_it(
    rendered: dict[str, list[Manifest]], kubernetes: Path
) -> None:
    (metric,) = of(rendered["gpu"], "HorizontalPodAutoscaler", "vllm")["spec"]["metrics"]
    values = yaml.safe_load((kubernetes / "components" / "queue-autoscaling" / "prometheus-adapter.yaml").read_text())
    (rule,) = values["rules"]["custom"]
    assert rule["name"]["as"] == metric["pods"]["metric"]["name"]
    for name in ("vllm:num_requests_waiting", "vllm_num_requests_waiting"):
        assert re.match(rule["name"]["matches"], name)
        assert re.fullmatch(re.findall(r'__name__=~"([^"]+)"', rule["seriesQuery"])[0], name)


def test_every_secret_of_the_pods_comes_from_the_store(rendered: dict[str, list[Manifest]]) -> None:
    manifests = rendered["gpu"]
    assert not [m["metadata"]["name"] for m in manifests if m["kind"] == "Secret"]
    stored = {
        m["spec"]["target"]["name"]: {d["secretKey"] for d in m["spec"]["data"]}
        for m in manifests
        if m["kind"] == "ExternalSecret"
    }
    for name, spec in pods(everything(manifests)).items():
        for reference in re.findall(r'"secretKeyRef": (\{[^}]*\})', json.dumps(spec)):
            wanted = json.loads(reference)
            assert wanted["key"] in stored[wanted["name"]], (name, wanted)
    assert stored["gateway-tls"] == {"tls.crt", "tls.key"}


@pytest.mark.parametrize("store", ["vault", "aws", "google", "azure"])
def test_every_secret_comes_from_whichever_store_is_chosen(kubernetes: Path, tmp_path: Path, store: str) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed: it renders the manifests")
    shutil.copytree(kubernetes / "components", tmp_path / "components")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "kustomization.yaml").write_text(
        "namespace: pawl\ncomponents: "
        f"[../components/external-secrets, ../components/secret-store-{store}, ../components/encrypted-volumes]\n"
        "resources: [claims.yaml]\nconfigMapGenerator: [{name: pawl-settings, literals: [A=B]}]\n"
    )
    shutil.copy(kubernetes / "base" / "storage.yaml", tmp_path / "mine" / "claims.yaml")
    done = subprocess.run(["kubectl", "kustomize", str(tmp_path / "mine")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    manifests = list(yaml.safe_load_all(done.stdout))
    (made,) = [m for m in manifests if m["kind"] == "SecretStore"]
    assert made["metadata"]["namespace"] == "pawl" and len(made["spec"]["provider"]) == 1
    (account,) = re.findall(r'"serviceAccountRef": \{"name": "([^"]+)"\}', json.dumps(made))
    assert of(manifests, "ServiceAccount", account)["automountServiceAccountToken"] is False
    for secret in (m for m in manifests if m["kind"] == "ExternalSecret"):
        assert secret["spec"]["secretStoreRef"] == {"kind": "SecretStore", "name": made["metadata"]["name"]}
        for data in secret["spec"]["data"]:
            # What names may hold in all four; Azure's is the narrowest.
            assert re.fullmatch(r"pawl-[a-z0-9-]+", data["remoteRef"]["key"]), data
    # The claim lies on the encrypted class, and the report can tell.
    kind = of(
        manifests, "StorageClass", of(manifests, "PersistentVolumeClaim", "pawl-home")["spec"]["storageClassName"]
    )
    assert kind["parameters"]["encrypted"] == "true" and "namespace" not in kind["metadata"]
    told = of(manifests, "ConfigMap", "pawl-settings")["data"]
    assert kind["metadata"]["name"] in told["PAWL_DISK_ENCRYPTION"] and told["A"] == "B"
    for manifest in manifests:
        if manifest["kind"] not in CUSTOM:
            kubernetes_validate.validate(manifest, VERSIONS[-1], strict=True)
