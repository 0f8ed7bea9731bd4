"""What stands twice in rendered manifests: a key in a map, a name in what Kubernetes merges by names. A first install takes that; the
next upgrade, a rollback or a server-side apply does not."""

import yaml


class Strict(yaml.SafeLoader):
    """Refuses a map that has a key twice, as an API server with strict fields and Kustomize do."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key) for key, _ in node.value]
        repeated = {key for key in keys if keys.count(key) > 1}
        if repeated:
            raise yaml.YAMLError(f"{repeated} twice{node.start_mark}")
        return super().construct_mapping(node, deep)


def twice(text, pods):
    """Complaints about a rendered text, one a time; `pods` gives the pods of an object."""
    try:
        documents = [document for document in yaml.load_all(text, Strict) if document]
    except yaml.YAMLError as error:
        yield str(error)
        return
    for item, pod in pods(documents):
        containers = pod.get("initContainers", []) + pod["containers"]
        lists = [("name", containers), ("name", pod["volumes"]), ("name", pod.get("imagePullSecrets", []))]
        for container in containers:
            lists += [("name", container.get("env", [])), ("mountPath", container.get("volumeMounts", []))]
        for key, entries in lists:
            keys = [entry[key] for entry in entries]
            if len(keys) != len(set(keys)):
                yield f"{item['kind']} has something twice: {keys}"
