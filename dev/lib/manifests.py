"""Checks Kubernetes manifests: manifests.py CRDS SETTINGS FILE...

Owns: each document against its kind's schema, names that refer to each other; writes the ConfigMaps' files below SETTINGS.
Does not own: what the settings mean.
"""

import pathlib
import sys

import jsonschema
import kubernetes_validate
import yaml


class UniqueKeys(yaml.SafeLoader):
    """A key that is there twice is a mistake, which PyYAML hides."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.YAMLError(f"{node.start_mark}: {twice} twice")
        return super().construct_mapping(node, deep)


def schemas(folder):
    found = {}
    for file in pathlib.Path(folder).glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())["spec"]
        for version in crd["versions"]:
            found[f"{crd['group']}/{version['name']}", crd["names"]["kind"]] = version["schema"]["openAPIV3Schema"]
    return found


def closed(schema):
    """Unknown keys are errors, as with kubectl's --validate=strict."""
    if isinstance(schema, list):
        return [closed(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        if "additionalProperties" not in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            # The API server knows more of it than the CRD says.
            if schema["properties"].keys() != {"apiVersion", "kind", "metadata", "spec", "status"}:
                schema["additionalProperties"] = False
    return schema


def pods(document):
    spec = document.get("spec", {})
    spec = spec.get("jobTemplate", {}).get("spec", spec)
    if "template" in spec:
        yield spec["template"]["spec"]


def main(crds, settings, *files):
    custom = schemas(crds)
    documents = []
    for file in files:
        documents += [(file, document) for document in yaml.load_all(open(file), UniqueKeys) if document]
    names = {(document["kind"], document["metadata"]["name"]) for _, document in documents}
    for file, document in documents:
        kind = document["apiVersion"], document["kind"]
        if kind in custom:
            jsonschema.validate(document, closed(custom[kind]))
        else:
            # Without a schema this fails.
            kubernetes_validate.validate(document, "1.37", strict=True)
        for pod in pods(document):
            for volume in pod["volumes"]:
                for key, of, name in [("configMap", "ConfigMap", "name"), ("secret", "Secret", "secretName")]:
                    assert key not in volume or (of, volume[key][name]) in names, f"{file}: no {of} {volume}"
            for container in pod["containers"] + pod.get("initContainers", []):
                mounted = {mount["name"] for mount in container["volumeMounts"]}
                assert mounted <= {volume["name"] for volume in pod["volumes"]}, f"{file}: {mounted}"
        if document["kind"] == "ConfigMap":
            folder = pathlib.Path(settings)
            folder = folder / "connectors" if document["metadata"]["name"].endswith("connectors") else folder
            folder.mkdir(parents=True, exist_ok=True)
            for name, text in document["data"].items():
                (folder / name).write_text(text)
        print(f"{file}: {document['kind']} {document['metadata']['name']} fits {kind[0]}")
    assert len(documents) > 5, "manifests are missing"


main(*sys.argv[1:])
