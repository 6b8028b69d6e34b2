"""What tests ask of rendered Kubernetes manifests: their pods, what those may do, and whom they may reach."""

from __future__ import annotations

import re
from itertools import product
from typing import Any

Manifest = dict[str, Any]
NAME = "app.kubernetes.io/name"
_CLAIM = "persistentVolumeClaim"
_WRITABLE = {"emptyDir", _CLAIM}
_OPEN = re.compile(r"password|secret|token|api_?key", re.I)


def pods(manifests: list[Manifest]) -> dict[str, Manifest]:
    """The pod spec of every workload, by its pods' name label."""
    found = {}
    for manifest in manifests:
        if manifest["kind"] in ("Deployment", "StatefulSet", "DaemonSet", "Job"):
            made = manifest["spec"]["template"]
            found[made["metadata"]["labels"][NAME]] = made["spec"]
        assert manifest["kind"] not in ("Pod", "CronJob", "ReplicaSet"), "pods() does not know this kind"
    return found


def pod_problems(spec: Manifest) -> list[str]:
    """What keeps a pod from Pod Security's level `restricted` (kubernetes.io, "Pod Security Standards"), and more."""
    pod = spec.get("securityContext", {})
    found = [field for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    found += [] if pod.get("runAsNonRoot") is True and pod.get("runAsUser", 0) > 0 else ["runs as root"]
    found += [] if pod.get("seccompProfile") == {"type": "RuntimeDefault"} else ["no seccomp profile"]
    found += [] if "automountServiceAccountToken" in spec else ["a token unasked for"]
    found += [f"volume {v['name']} of the node" for v in spec.get("volumes", []) if "hostPath" in v]
    found += [f"{v['name']} has no size" for v in spec.get("volumes", []) if v.get("emptyDir") == {} and _endless(spec)]
    volumes = {v["name"]: v for v in spec.get("volumes", [])}
    for container in [*spec.get("initContainers", []), *spec["containers"]]:
        found += [f"{container['name']}: {problem}" for problem in _container_problems(container, volumes)]
    return found


def _endless(spec: Manifest) -> bool:
    """Whether nothing bounds the pod's temporary files: neither its volume nor its container's ephemeral storage."""
    return any("ephemeral-storage" not in c["resources"].get("limits", {}) for c in spec["containers"])


def _container_problems(container: Manifest, volumes: dict[str, Manifest]) -> list[str]:
    context, resources = container.get("securityContext", {}), container.get("resources", {})
    found = [] if context.get("readOnlyRootFilesystem") is True else ["can write to its image"]
    found += [] if context.get("allowPrivilegeEscalation") is False else ["can gain rights"]
    found += [] if context.get("capabilities") == {"drop": ["ALL"]} else ["keeps capabilities"]
    found += ["privileged"] if context.get("privileged") else []
    found += ["runs as root"] if context.get("runAsUser", 1) == 0 or context.get("runAsNonRoot") is False else []
    for kind in ("requests", "limits"):
        for what in ("cpu", "memory", "ephemeral-storage"):
            found += [] if what in resources.get(kind, {}) else [f"no {kind[:-1]} of {what}"]
    tag = container["image"].rpartition("/")[2].partition(":")[2]
    found += [] if re.search(r"\d+\.\d+", tag) else ["no exact version of its image"]
    found += [f"{e['name']} in the open" for e in container.get("env", []) if "value" in e and _OPEN.search(e["name"])]
    mounts = {m["mountPath"]: m for m in container.get("volumeMounts", [])}
    temporary = volumes.get(mounts.get("/tmp", {}).get("name", ""), {})
    found += [] if "emptyDir" in temporary else ["nowhere to put temporary files"]
    # What is no volume of the pod is a claim of its StatefulSet.
    shown = [p for p, mount in mounts.items() if not volumes.get(mount["name"], {_CLAIM: {}}).keys() & _WRITABLE]
    found += [f"{path} is not read-only" for path in shown if not mounts[path].get("readOnly")]
    return found


class Reach:
    """Whom the pods of a namespace may reach by its network policies (kubernetes.io, "Network Policies": a pod that
    some policy selects for a direction may do what one of them allows; a connection needs both sides)."""

    def __init__(self, manifests: list[Manifest]) -> None:
        self._policies = [m["spec"] for m in manifests if m["kind"] == "NetworkPolicy"]
        self.pods: dict[str, dict[str, str]] = {}
        self._ports: dict[str, set[int]] = {}
        for manifest in manifests:
            if "template" in manifest.get("spec", {}):
                made = manifest["spec"]["template"]
                name = made["metadata"]["labels"][NAME]
                self.pods[name] = made["metadata"]["labels"]
                self._ports[name] = {p["containerPort"] for c in made["spec"]["containers"] for p in c.get("ports", [])}

    def edges(self) -> set[tuple[str, str, int]]:
        """(from, to, port) for every connection between two workloads that is allowed."""
        return {
            (one, other, port)
            for one, other in product(self.pods, self.pods)
            for port in self._ports[other]
            if one != other and self._may("Egress", one, other, port) and self._may("Ingress", other, one, port)
        }

    def outside(self, name: str) -> set[tuple[str, int]]:
        """(CIDR or "names", port) of all beyond the namespace that a workload may reach; "*" where a rule is open."""
        found = set()
        for policy in self._of("Egress", name):
            for rule in policy.get("egress", []):
                ports = [p["port"] for p in rule.get("ports", [])] or [0]
                for peer in rule.get("to") or [{"ipBlock": {"cidr": "*"}}]:
                    cidr = peer["ipBlock"]["cidr"] if "ipBlock" in peer else ""
                    if "namespaceSelector" in peer:
                        dns = {"k8s-app": "kube-dns"}
                        cidr = "names" if peer.get("podSelector", {}).get("matchLabels") == dns else "*"
                    found |= {(cidr, port) for port in ports if cidr}
        return found

    def _of(self, direction: str, name: str) -> list[Manifest]:
        return [
            p for p in self._policies if direction in p["policyTypes"] and _selects(p["podSelector"], self.pods[name])
        ]

    def _may(self, direction: str, name: str, peer: str, port: int) -> bool:
        policies = self._of(direction, name)
        field, end = ("egress", "to") if direction == "Egress" else ("ingress", "from")
        for rule in (r for p in policies for r in p.get(field, [])):
            ports = [p["port"] for p in rule.get("ports", [])]
            peers = rule.get(end)
            named = peers is None or any(
                "podSelector" in p and "namespaceSelector" not in p and _selects(p["podSelector"], self.pods[peer])
                for p in peers
            )
            if named and (not ports or port in ports):
                return True
        return not policies


def _selects(selector: Manifest, labels: dict[str, str]) -> bool:
    for wanted in selector.get("matchExpressions", []):
        inside = labels.get(wanted["key"]) in wanted["values"]
        if inside != (wanted["operator"] == "In"):
            return False
    return bool(selector.get("matchLabels", {}).items() <= labels.items())
