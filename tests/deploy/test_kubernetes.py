"""The Kubernetes manifest: valid by the schemas of Kubernetes, and in agreement with itself."""

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from xpmem_emu.cluster.topology import read_topology

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes.yaml"
PARTITIONS = [one.name for one in read_topology("hosts")]
CONSOLE = "xpmem-emu-console"


def objects(kind: str) -> dict[str, Any]:
    """All objects of a kind, by name."""
    items = yaml.safe_load(MANIFEST.read_text())["items"]
    return {one["metadata"]["name"]: one for one in items if one["kind"] == kind}


def pods() -> dict[str, Any]:
    """Every pod template's spec, by the name of its owner."""
    owners = objects("StatefulSet") | objects("Deployment")
    return {name: owner["spec"]["template"]["spec"] for name, owner in owners.items()}


def containers(pod: Any) -> list[Any]:
    return [*pod["initContainers"], *pod["containers"]]


EVERY_POD = [*PARTITIONS, CONSOLE]


def test_each_object_is_valid_by_the_published_schema() -> None:
    items = yaml.safe_load(MANIFEST.read_text())["items"]
    assert len(items) == 2 * len(PARTITIONS) + 4
    for one in items:
        kubernetes_validate.validate(one, kubernetes_validate.latest_version(), strict=True)


def test_the_schema_would_refuse_a_wrong_key() -> None:
    wrong = {**objects("Service")["p0"], "spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_there_is_a_pod_for_every_partition_found_by_its_name_before_it_is_ready() -> None:
    assert [*objects("StatefulSet")] == [*objects("Service")] == PARTITIONS
    for one in read_topology("hosts"):
        owner, service = objects("StatefulSet")[one.name], objects("Service")[one.name]
        labels = owner["spec"]["template"]["metadata"]["labels"]
        assert labels == owner["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
        assert labels["partition"] == one.name
        assert (owner["spec"]["serviceName"], owner["spec"]["replicas"]) == (one.name, 1)
        assert service["spec"]["clusterIP"] == "None"
        assert service["spec"]["publishNotReadyAddresses"] is True
        assert (one.endpoint, one.console) == (f"tcp://{one.name}:7000", f"tcp://{one.name}:7100")
        (container,) = pods()[one.name]["containers"]
        assert container["args"] == ["boot", "$(PARTITION)", "--topology", "hosts"]
        field = container["env"][0]["valueFrom"]["fieldRef"]["fieldPath"]
        assert (container["env"][0]["name"], field) == ("PARTITION", "metadata.labels['partition']")


@pytest.mark.parametrize("name", EVERY_POD)
def test_a_pod_has_no_rights_and_limits_for_everything(name: str) -> None:
    pod = pods()[name]
    # What the restricted pod security standard asks for, and no token.
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["terminationGracePeriodSeconds"] > 0
    for container in containers(pod):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        for bound in ("requests", "limits"):
            assert container["resources"][bound].keys() == {"cpu", "memory"}
    for volume in pod["volumes"]:
        assert volume.keys() & {"secret", "configMap"} or "sizeLimit" in volume["emptyDir"]


@pytest.mark.parametrize("name", EVERY_POD)
def test_a_pod_mounts_its_own_key_and_no_other(name: str) -> None:
    pod = pods()[name]
    secrets = [one["secret"]["secretName"] for one in pod["volumes"] if "secret" in one]
    assert secrets == [f"xpmem-emu-key-{'operator' if name == CONSOLE else name}"]
    volumes = {each["name"] for each in pod["volumes"]}
    assert {each["name"] for one in containers(pod) for each in one["volumeMounts"]} == volumes
    head = MANIFEST.read_text().partition("apiVersion")[0]
    assert re.search(r"for name in p0 p1 p2 operator; do\n.*xpmem-emu-key-\$name", head)


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_probe_asks_a_partition_about_itself(name: str) -> None:
    (container,) = pods()[name]["containers"]
    asked = {
        kind: container[f"{kind}Probe"]["exec"]["command"]
        for kind in ("startup", "liveness", "readiness")
    }
    assert asked == {
        "startup": ["xpmem-emu-health", "live"],
        "liveness": ["xpmem-emu-health", "live"],
        "readiness": ["xpmem-emu-health", "ready"],
    }


def test_partitions_shun_one_host_and_one_disruption_at_a_time() -> None:
    spec = objects("PodDisruptionBudget")["xpmem-emu"]["spec"]
    assert spec["maxUnavailable"] == 1
    for name in PARTITIONS:
        (term,) = pods()[name]["affinity"]["podAntiAffinity"][
            "preferredDuringSchedulingIgnoredDuringExecution"
        ]
        assert term["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
        assert term["podAffinityTerm"]["labelSelector"] == spec["selector"]


def chosen(selector: Any, labels: dict[str, str]) -> bool:
    """Whether a pod with these labels is meant."""
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        one["operator"] == "Exists" and one["key"] in labels
        for one in selector.get("matchExpressions", [])
    )


def allowed(
    policies: list[Any], direction: str, own: dict[str, str], other: dict[str, str], port: int
) -> bool:
    """Whether the policies of a pod let it talk to another, as Kubernetes says."""
    peer = {"ingress": "from", "egress": "to"}[direction]
    mine = [one["spec"] for one in policies if chosen(one["spec"]["podSelector"], own)]
    assert all({"Ingress", "Egress"} == set(spec["policyTypes"]) for spec in mine)
    return not mine or any(
        port in [each["port"] for each in rule["ports"]]
        and any(
            "namespaceSelector" not in each and chosen(each["podSelector"], other)
            for each in rule[peer]
        )
        for spec in mine
        for rule in spec.get(direction, [])
    )


@pytest.mark.parametrize(
    ("source", "target", "port", "passes"),
    [
        ("p0", "p1", 7000, True),
        ("p1", "p0", 7100, False),
        (CONSOLE, "p2", 7100, True),
        (CONSOLE, "p2", 7000, False),
        ("p0", CONSOLE, 7100, False),
        ("stranger", "p0", 7000, False),
        ("stranger", "p0", 7100, False),
        ("stranger", CONSOLE, 22, False),
    ],
)
def test_the_network_lets_through_what_is_needed_and_nothing_else(
    source: str, target: str, port: int, passes: bool
) -> None:
    owners = objects("StatefulSet") | objects("Deployment")
    labels = {name: one["spec"]["template"]["metadata"]["labels"] for name, one in owners.items()}
    labels["stranger"] = {"app": "other"}
    policies = list(objects("NetworkPolicy").values())
    assert passes == (
        allowed(policies, "egress", labels[source], labels[target], port)
        and allowed(policies, "ingress", labels[target], labels[source], port)
    )
