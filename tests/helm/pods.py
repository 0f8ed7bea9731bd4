#!/usr/bin/env python3
"""pods.py CACHE: what a newcomer does by the README, against a real Kafka with TLS and SCRAM, without a cluster: the chart is rendered, and
its pods run here as a node would run them: each container in a root of its own that it cannot write to, as user 65532, without
rights, with the volumes, files and variables that its manifest names and nothing else. TIDEMILL names the program.

Needs root, unshare, setpriv, java, mvn and the chart's tools; says so and passes where they are missing."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request

import yaml

HERE = pathlib.Path(__file__).parent.resolve()
TOP = HERE.parent.parent
CACHE = pathlib.Path(sys.argv[1])
PROGRAM = pathlib.Path(os.environ["TIDEMILL"])
MODEL = TOP / "config/demo/models/breast-cancer/1"
USER = 65532
KAFKA = "4.2.2"
# Kafka's own programs, as its image has them in /opt/kafka/bin.
TOOLS = {"kafka-console-producer": "ConsoleProducer", "kafka-console-consumer": "consumer.ConsoleConsumer",
         "kafka-consumer-groups": "consumer.group.ConsumerGroupCommand"}
PATIENCE = 60  # seconds until a pod is ready, or has ended


def run(*command, **more):
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True, **more).stdout


def possible():
    """Why not, where it is not."""
    for needed in ("unshare", "setpriv", "java", "mvn"):
        if not shutil.which(needed):
            return f"no {needed}"
    if os.geteuid() != 0 or subprocess.run(["unshare", "--mount", "true"], capture_output=True).returncode != 0:
        return "mounts are not allowed here"
    return None


def bare(root):
    """The root of the service's image, as image.sh proves it: the program and its libraries."""
    for folder in ("etc/ssl/certs", "usr/local/bin", "proc", "dev"):
        (root / folder).mkdir(parents=True)
    shutil.copy(PROGRAM, root / "usr/local/bin/tidemill")
    for line in run("ldd", PROGRAM).splitlines():
        for library in (word for word in line.split() if word.startswith("/")):
            (root / library[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(library, root / library[1:])


def kafka(root):
    """A root that stands for Kafka's image: this machine's programs, and Kafka's tools where that image has them."""
    jars = CACHE / f"kafka-{KAFKA}" / "libs"
    own = CACHE / f"kafka-tools-{KAFKA}"
    if not own.exists():
        run("mvn", "-q", "dependency:copy", f"-Dartifact=org.apache.kafka:kafka-tools:{KAFKA}", f"-DoutputDirectory={own}")
    for folder in ("usr", "proc", "dev", "etc", "opt/kafka/bin", "opt/kafka/libs", "opt/kafka/tools"):
        (root / folder).mkdir(parents=True)
    for name in ("bin", "lib", "lib64"):
        (root / name).symlink_to(f"usr/{name}")
    for name in ("passwd", "group", "alternatives", "ld.so.cache", *(path.name for path in pathlib.Path("/etc").glob("java*"))):
        source = pathlib.Path("/etc") / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, root / "etc" / name, **({"symlinks": True} if source.is_dir() else {}))
    for name, kind in TOOLS.items():
        script = root / "opt/kafka/bin" / f"{name}.sh"
        script.write_text(f"#!/bin/sh\nexec java $KAFKA_HEAP_OPTS -cp '/opt/kafka/tools/*:/opt/kafka/libs/*' org.apache.kafka.tools.{kind} \"$@\"\n")
        script.chmod(0o755)
    return [("/usr", "/usr"), (jars, "/opt/kafka/libs"), (own, "/opt/kafka/tools")]


class Node:
    """Runs pods: volumes are made of the other objects, as the kubelet does."""

    def __init__(self, place, objects, models, secrets):
        self.place, self.secrets, self.maps = place, secrets, {}
        self.learn(objects)
        bare(place / "tidemill")
        # The image with the models is one with a shell too.
        self.images = {"tidemill": (place / "tidemill", []), "others": (place / "others", kafka(place / "others") + [(models, "/registry")])}

    def learn(self, objects):
        self.maps.update({item["metadata"]["name"]: item["data"] for item in objects if item["kind"] == "ConfigMap"})

    def volume(self, pod, volume):
        folder = self.place / "volumes" / pod / volume["name"]
        if folder.exists():
            return folder
        folder.mkdir(parents=True)
        if "emptyDir" in volume:
            os.chown(folder, 0, USER)
            folder.chmod(0o2777)
            return folder
        secret = volume.get("secret")
        files = self.secrets[secret["secretName"]] if secret else self.maps[volume["configMap"]["name"]]
        wanted = (secret or volume["configMap"]).get("items") or [{"key": key, "path": key} for key in files]
        for item in wanted:
            file = folder / item["path"]
            file.write_text(files[item["key"]])
            os.chown(file, 0, USER)
            file.chmod(secret["defaultMode"] if secret else 0o644)
        return folder

    def start(self, pod, spec, container):
        """Starts a container; its words go to the file that is given back with it."""
        ours = "/tidemill:" in container["image"]
        root, binds = self.images["tidemill" if ours else "others"]
        context = {**spec["securityContext"], **container["securityContext"]}
        assert context["runAsUser"] == USER and context["readOnlyRootFilesystem"] and context["capabilities"] == {"drop": ["ALL"]}, context
        volumes = {volume["name"]: self.volume(pod, volume) for volume in spec["volumes"]}
        mounts = [(source, path, True) for source, path in binds]
        for mount in container["volumeMounts"]:
            source = volumes[mount["name"]] / mount.get("subPath", "")
            mounts.append((source, mount["mountPath"], mount.get("readOnly", False)))
        steps = [f"mount --bind '{root}' '{root}'"]
        for source, path, _ in mounts:
            target = root / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch() if pathlib.Path(source).is_file() else target.mkdir(exist_ok=True)
        for name in ("null", "urandom", "random"):
            (root / "dev" / name).touch()
            mounts.append((f"/dev/{name}", f"/dev/{name}", False))
        steps += [f"mount --bind '{source}' '{root}{path}'" for source, path, _ in mounts]
        steps += [f"mount -o remount,ro,bind '{root}{path}'" for _, path, fixed in mounts if fixed]
        steps += [f"mount -t proc proc '{root}/proc'", f"mount -o remount,ro,bind '{root}'"]
        steps.append(f"exec setpriv --no-new-privs chroot --userspec={USER}:{USER} --groups={USER} '{root}' \"$@\"")
        env = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            cpu = source.get("resourceFieldRef") and container.get("resources", {}).get("requests", {}).get("cpu", "1")
            env[variable["name"]] = pod if "fieldRef" in source else "1" if cpu else variable["value"]
        command = container.get("command", ["/usr/local/bin/tidemill"]) + container.get("args", [])
        words = self.place / f"{pod}.{container['name']}.log"
        with words.open("w") as out:
            process = subprocess.Popen(["unshare", "--mount", "sh", "-ec", "\n".join(steps), "sh", *command], env=env, stdout=out,
                                       stderr=out, stdin=subprocess.DEVNULL, start_new_session=True)
        return process, words

    def finish(self, pod, spec, container, expected=0):
        """Runs a container to its end: its words. What it needed at most must be what it may have."""
        process, words = self.start(pod, spec, container)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        said = words.read_text()
        assert process.returncode == expected, f"{pod}, container {container['name']}, ended with {process.returncode}: {said}"
        limit = container.get("resources", {}).get("limits", {}).get("memory", "1Gi")
        bytes_ = int(limit[:-2]) << {"Mi": 20, "Gi": 30}[limit[-2:]]
        assert usage.ru_maxrss << 10 < bytes_, f"{pod}, container {container['name']}, needs {usage.ru_maxrss} KiB of {limit}"
        return said

    def pod(self, name, spec):
        """Runs a pod whose containers end."""
        return [self.finish(name, spec, container) for container in spec.get("initContainers", []) + spec["containers"]]


def until(what, words=None):
    end = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < end, f"not within {PATIENCE} s: {words.read_text() if words else ''}"
        time.sleep(0.1)
    return found


def render(values, *more):
    done = run(CACHE / "bin/helm", "template", "reviews", TOP / "helm/tidemill", "-n", "predictions", "-f", "-", *more,
               input=json.dumps(values))
    return [item for item in yaml.safe_load_all(done) if item]


def one(objects, kind):
    return next(item for item in objects if item["kind"] == kind)


@contextlib.contextmanager
def broker(place):
    port = 20000 + os.getpid() % 10000
    script = TOP / "tests/kafka/broker.sh"
    run(script, "up", place, port, env={**os.environ, "KAFKA_SASL": "1"})
    try:
        yield f"127.0.0.1:{port + 2}", (place / "tls/ca.crt").read_text()
    finally:
        run(script, "down", place)


def ready(port):
    try:
        return urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=2).status == 200
    except OSError:
        return False


def walk(place):
    models = place / "models"
    run(PROGRAM, "models", "import", MODEL, "sentiment", "--root", models, "--alias", "champion")
    place.chmod(0o755)
    records = [line for line in (TOP / "config/demo/records.jsonl").read_text().splitlines()[:20] if json.loads(line).get("mean radius")]
    with broker(place / "broker") as (servers, ca):
        secrets = {"reviews": {"username": "alice", "password": "alice-secret"}, "ca": {"ca.crt": ca}}
        port = 30000 + os.getpid() % 10000
        values = yaml.safe_load((TOP / "helm/tidemill/README.md").read_text().split("```yaml\n")[1].split("```")[0])
        values["config"]["kafka"]["common"] = {
            "bootstrap.servers": servers, "security.protocol": "SASL_SSL", "sasl.mechanisms": "SCRAM-SHA-512", "sasl.username": "alice",
            "sasl.password": "${file:/etc/tidemill/secrets/user/password}", "ssl.ca.location": "/etc/tidemill/secrets/ca/ca.crt"}
        values["config"]["http"] = {"listen": f"127.0.0.1:{port}"}
        values["secrets"] = [{"name": "user", "existingSecret": "reviews"}, {"name": "ca", "existingSecret": "ca"}]
        values["tests"] = {"records": records[:5], "timeoutSeconds": PATIENCE}
        objects = render(values)
        node = Node(place, objects, models, secrets)
        spec = one(objects, "StatefulSet")["spec"]["template"]["spec"]
        tests = sorted((item for item in objects if item["kind"] == "Pod"),
                       key=lambda item: int(item["metadata"]["annotations"].get("helm.sh/hook-weight", 0)))
        look = tests[0]["spec"]
        # The test says what is missing, and how it is made.
        for container in look["initContainers"]:
            node.finish("before", look, container)
        said = node.finish("before", look, look["containers"][0], expected=78)
        assert "kafka-topics.sh" in said and "reviews-predictions-manifest" in said, f"topics are missing, and helm test says {said}"
        node.finish("before", look, {**look["containers"][0], "args": [*look["containers"][0]["args"], "--create-topics"]})
        for container in spec["initContainers"]:
            node.finish("reviews-tidemill-0", spec, container)
        process, words = node.start("reviews-tidemill-0", spec, spec["containers"][0])
        try:
            until(lambda: process.poll() is not None or ready(port), words)
            assert process.poll() is None, f"the service ended: {words.read_text()}"
            for test in tests:
                said = node.pod(test["metadata"]["name"], test["spec"])
            assert f"{len(records[:5])} predictions read, each once" in said[-1], said
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(PATIENCE) == 0, f"the service ends with {process.returncode}: {words.read_text()}"
        # The same as a job: it goes on where the service ended.
        job = render(values, "-f", TOP / "helm/tidemill/examples/with-job.yaml")
        node.learn(job)
        said = node.pod("reviews-tidemill-job", one(job, "CronJob")["spec"]["jobTemplate"]["spec"]["template"]["spec"])
        assert "committed 0 predictions and no dead letters" in said[-1], f"the job answers again: {said[-1]}"


why = possible()
if why:
    print(f"skipped: {why}, so the chart's pods do not run", file=sys.stderr)
    sys.exit()
with tempfile.TemporaryDirectory() as folder:
    walk(pathlib.Path(folder))
print("pods: from nothing to predictions over TLS and SCRAM, a service and a job, as a node runs them")
