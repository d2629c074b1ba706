"""The Kubernetes manifest: valid by the schemas of Kubernetes, and in agreement with itself."""

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from xpmem_emu.live.topology import read_topology

MANIFEST = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes.yaml"
KINDS = ["ConfigMap", "Service", "StatefulSet"]


@pytest.fixture(scope="module")
def objects() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


@pytest.mark.parametrize("kind", KINDS)
def test_each_object_is_valid_by_the_published_schema(objects: dict[str, Any], kind: str) -> None:
    kubernetes_validate.validate(objects[kind], kubernetes_validate.latest_version(), strict=True)


def test_the_schema_would_refuse_a_wrong_key(objects: dict[str, Any]) -> None:
    wrong = {**objects["Service"], "spek": {}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_topology_names_the_pods_by_their_service(
    objects: dict[str, Any], tmp_path: Path
) -> None:
    path = tmp_path / "topology.toml"
    path.write_text(objects["ConfigMap"]["data"]["topology.toml"])
    partitions = read_topology(str(path))
    spec = objects["StatefulSet"]["spec"]
    service = objects["Service"]["metadata"]["name"]
    pods = [f"{objects['StatefulSet']['metadata']['name']}-{n}" for n in range(spec["replicas"])]
    assert spec["serviceName"] == service
    assert [one.endpoint for one in partitions] == [f"tcp://{pod}.{service}:7000" for pod in pods]
    assert [one.console for one in partitions] == [f"tcp://{pod}.{service}:7100" for pod in pods]
    assert len({one.domain for one in partitions}) == len(pods)


def test_the_keys_are_those_of_the_shipped_topology(objects: dict[str, Any]) -> None:
    text = objects["ConfigMap"]["data"]["topology.toml"]
    for one in read_topology("hosts"):
        assert f'name = "{one.name}"\npartid = {one.partid}\n' in text


def test_no_container_has_rights(objects: dict[str, Any]) -> None:
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip


def test_every_mount_has_its_volume(objects: dict[str, Any]) -> None:
    pod = objects["StatefulSet"]["spec"]["template"]["spec"]
    volumes = {each["name"] for each in pod["volumes"]}
    containers = [*pod["initContainers"], *pod["containers"]]
    assert {each["name"] for one in containers for each in one["volumeMounts"]} == volumes
