# SPDX-License-Identifier: Apache-2.0
"""The examples in configs/service and configs/batch: they parse, their commands and options are those of the programs, and
what the compose file starts answers. (engines_test.py and shards_test.py run those for Slurm and Open MPI.)

examples_test.py --bin DIRECTORY
"""
import argparse
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from service_test import ROOT, free_ports

try:
    import yaml
except ImportError:
    print("skipped: python3-yaml is missing")
    sys.exit(77)

EXAMPLES = ROOT / "configs/service"
COMMAND = re.compile(r"(?<![\w./-])(?:/usr/local/bin/)?(tercet(?:-party)?) (serve|token|keygen|publish) ((?:[^\n']|\\\n)*)")


def read(name):
    return (EXAMPLES / name).read_text()


def check(command, **more):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, **more)
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout + done.stderr


class Programs:
    def __init__(self, binaries):
        self.binaries = binaries
        self.helps = {}

    def known(self, program, command, arguments):
        """All options among the arguments are the command's."""
        key = (program, command)
        if key not in self.helps:
            said = check([self.binaries / program, *([command] if command else []), "--help"])
            self.helps[key] = set(re.findall(r"--[a-z][a-z-]*", said))
        options = set(re.findall(r"(?<!\S)--[a-z][a-z-]*", arguments))
        assert options and options <= self.helps[key], (program, command, options - self.helps[key])
        if command in ("serve", ""):
            self.understood(program, command, arguments)

    def understood(self, program, command, arguments):
        """The values of the options are such: the program goes on, and misses the first file that they name."""
        words = [re.sub(r"\$\{?TERCET_ID\}?", "0", word) for word in shlex.split(arguments)]
        words = [word for word in words if word not in ("$@", "$TERCET_OPTIONS")]
        at = next(k for k, word in enumerate(words) if word in ("--deployment", "--testbed")) + 1
        words[at] = "/nowhere/" + words[at].rsplit("/", 1)[-1]
        done = subprocess.run([self.binaries / program, *([command] if command else []), *words], capture_output=True,
                              text=True, timeout=60, env={**os.environ, "JOB_COMPLETION_INDEX": "0"})
        assert done.returncode == 2 and "No such file or directory" in done.stderr, (words, done.stderr)

    def commands(self, name, count):
        """Those in a file, comments included."""
        found = COMMAND.findall(re.sub(r"\\\n\s*(#\s*)?", " ", read(name)))
        assert len(found) == count, (name, found)
        for program, command, arguments in found:
            self.known(program, command, arguments)


def kubernetes(programs):
    documents = list(yaml.safe_load_all(read("kubernetes.yaml")))
    services = [each for each in documents if each["kind"] == "Service"]
    stateful, = [each for each in documents if each["kind"] == "StatefulSet"]
    pod = stateful["spec"]["template"]["spec"]
    server, = pod["containers"]
    assert server["args"][0] == "serve"
    programs.known("tercet-party", "serve", " ".join(server["args"][1:]))
    programs.commands("kubernetes.yaml", 1)
    named = {port["name"]: port["containerPort"] for port in server["ports"]}
    paths = json.loads((ROOT / "configs/openapi.json").read_text())["paths"]
    for probe in ("livenessProbe", "readinessProbe"):
        assert server[probe]["httpGet"]["path"] in paths and server[probe]["httpGet"]["scheme"] == "HTTPS"
        assert server[probe]["httpGet"]["port"] in named
    assert server["args"][server["args"].index("--metrics") + 1] == f"0.0.0.0:{named['metrics']}"
    # The workers of the example deployment, each with its address, below the name that the pods get.
    workers = json.loads(read("workers.json"))["servers"][0]["workers"]
    assert stateful["spec"]["replicas"] == len(workers)
    pods = [f"{stateful['metadata']['name']}-{w}" for w in range(len(workers))]
    selected = [service["spec"]["selector"].get("statefulset.kubernetes.io/pod-name") for service in services]
    assert selected == [None, *pods]
    headless = services[0]
    assert headless["metadata"]["name"] == stateful["spec"]["serviceName"] and headless["spec"]["clusterIP"] == "None"
    assert headless["spec"]["publishNotReadyAddresses"]
    for service in services:
        assert [port["port"] for port in service["spec"]["ports"]] == [named["https"]]
    labels = stateful["spec"]["template"]["metadata"]["labels"]
    assert headless["spec"]["selector"] == labels == stateful["spec"]["selector"]["matchLabels"]
    variable, = [each["name"] for each in server["env"]]
    assert variable in check([programs.binaries / "tercet-party", "serve", "--help"])
    volumes = {each["name"] for each in pod["volumes"]}
    volumes |= {each["metadata"]["name"] for each in stateful["spec"]["volumeClaimTemplates"]}
    for container in [*pod["initContainers"], server]:
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["securityContext"]["readOnlyRootFilesystem"]
    with tempfile.TemporaryDirectory() as name:
        check([programs.binaries / "tercet", "keygen", "--servers", Path(name) / "demo"])
        files = {each.name for each in (Path(name) / "demo/server0").iterdir()}
    assert files == set(re.findall(r"--from-file=(\S+)", read("kubernetes.yaml"))) - {"deployment.json"}, files


def batch(programs):
    script = ROOT / "configs/batch/shards.sbatch"
    check(["bash", "-n", script])
    assert os.access(script, os.X_OK)
    service, shards, join = yaml.safe_load_all((ROOT / "configs/batch/kubernetes.yaml").read_text())
    job, pod = shards["spec"], shards["spec"]["template"]
    party, = pod["spec"]["containers"]
    programs.known("tercet-party", "", " ".join(party["args"]))
    # Each pod has a shard, and the name by which the others find it.
    assert job["completionMode"] == "Indexed" and job["parallelism"] == job["completions"]
    assert party["args"][party["args"].index("--shard") + 1] == f"auto/{job['completions']}"
    assert service["metadata"]["name"] == pod["spec"]["subdomain"] and service["spec"]["clusterIP"] == "None"
    assert service["spec"]["selector"] == pod["metadata"]["labels"]
    report = party["args"][party["args"].index("--json") + 1]
    joined, = join["spec"]["template"]["spec"]["containers"]
    assert joined["command"][:2] == ["tercet", "join"] and join["spec"]["suspend"]
    assert joined["command"][3:] == [report.replace("{shard}", str(i)) for i in range(job["completions"])]
    for spec in (pod["spec"], join["spec"]["template"]["spec"]):
        volumes = {each["name"] for each in spec["volumes"]}
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
            assert container["securityContext"]["readOnlyRootFilesystem"]


def dockerfile(programs):
    lines = [line for line in re.sub(r"\\\n\s*", "", read("Dockerfile")).splitlines() if line and line[0] != "#"]
    stages = [line.split(" AS ")[1] for line in lines if " AS " in line]
    for line in lines:
        if line.startswith("COPY --from="):
            stage, *files = line.removeprefix("COPY --from=").split()
            assert stage in stages, line
            for file in files[:-1]:
                path = file.removeprefix("/tercet/")
                assert path.startswith("build/release/bin/") or path == "web/dist" or (ROOT / path).exists(), file
    options = set(re.findall(r"-D(\w+)=", "\n".join(lines)))
    assert options <= set(re.findall(r"^option\((\w+)", (ROOT / "CMakeLists.txt").read_text(), re.M)), options
    wanted = set(re.findall(r"install-dependencies (--[\w-]+)", "\n".join(lines)))
    assert wanted and all(each in (ROOT / "scripts/install-dependencies").read_text() for each in wanted)
    assert [line for line in lines if line.startswith("USER")] == ["USER 10001:10001"]
    # The image has the libraries that the programs are linked with.
    listed = next(line for line in lines if "libsodium23" in line).split()
    present = {"libc6", "libgcc-s1", "libstdc++6", "zlib1g", "liblzma5"}  # in every Debian
    if not shutil.which("dpkg-query") or not shutil.which("readelf"):
        return
    files = [programs.binaries / "tercet", programs.binaries / "tercet-party"]
    needed = set(re.findall(r"NEEDED.*\[(.*)\]", check(["readelf", "-d", *files])))
    where = dict(re.findall(r"(\S+) => (\S+)", check(["ldd", *files])))
    for library in needed:
        if library not in where:
            continue  # the loader
        file = os.path.realpath(where[library])
        owner = subprocess.run(["dpkg-query", "-S", file, file.removeprefix("/usr")], capture_output=True, text=True,
                               timeout=60)
        packages = {line.split(":")[0] for line in owner.stdout.splitlines()}
        # Sanitizers' libraries, those of no package, and those of `tercet import` and `tercet train` are not in an image.
        if packages and not re.search("san|onnx|protobuf|torch|c10", library):
            assert packages & (present | set(listed)), (library, packages)


def compose(programs, directory):
    """The compose file's keys and servers, without containers: they answer."""
    document = yaml.safe_load(read("compose.yaml"))
    services = document["services"]
    for service in services.values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            assert (EXAMPLES / source).is_file() if source.startswith("./") else source in document["volumes"], volume
        if "build" in service:
            context = (EXAMPLES / service["build"]["context"]).resolve()
            assert context == ROOT and (ROOT / service["build"]["dockerfile"]).is_file()
    targets, = [job["static_configs"][0]["targets"] for job in yaml.safe_load(read("prometheus.yml"))["scrape_configs"]]

    program, *_ = services["keys"]["entrypoint"]
    demo, trainer = directory / "demo", directory / "trainer"
    trainer.mkdir(mode=0o700)
    environment = {**os.environ, "TERCET_NETS": str(ROOT / "nets"), "PATH": f"{programs.binaries}:{os.environ['PATH']}"}
    check([EXAMPLES / program, demo, trainer], env=environment)
    deployment = demo / "deployment.json"
    before = deployment.read_text()
    check([EXAMPLES / program, demo, trainer], env=environment)  # once is enough
    assert deployment.read_text() == before
    described = json.loads(before)
    base = free_ports(12)
    running = []
    try:
        for i, server in enumerate(described["servers"]):
            name = f"server{i}"
            port = server["url"].rsplit(":", 1)[1]
            assert (server["host"], server["listen"]) == (name, "0.0.0.0")
            assert services[name]["ports"] == [f"127.0.0.1:{port}:{port}"]
            server.update({"host": "127.0.0.1", "url": f"https://localhost:{base + i}", "port": base + 3 + 3 * i})
        deployment.write_text(json.dumps(described))
        for i in range(3):
            command = services[f"server{i}"]["command"]
            programs.known("tercet-party", command[0], " ".join(command[1:]))
            options = dict(zip(command[1::2], command[2::2]))
            assert options["--id"] == str(i)
            assert f"server{i}:{options.pop('--metrics').rsplit(':', 1)[1]}" == targets[i]
            del options["--web"]
            options["--deployment"] = options["--deployment"].replace("/demo", str(demo))
            assert options["--store"] == "/store" and f"store{i}:/store" in services[f"server{i}"]["volumes"]
            options["--store"] = demo / f"server{i}"
            with open(directory / f"log{i}", "w") as log:
                running.append(subprocess.Popen([programs.binaries / "tercet-party", command[0],
                                                 *[str(part) for pair in options.items() for part in pair]], stderr=log))
        check([programs.binaries / "tercet", "draw-digits", directory / "images", directory / "labels", "--count", "10"])
        end = time.monotonic() + 60
        while any((directory / f"log{i}").read_text().count("is up with 1 models") < 3 for i in range(3)):
            assert time.monotonic() < end and all(server.poll() is None for server in running), \
                [(directory / f"log{i}").read_text() for i in range(3)]
            time.sleep(0.1)
        said = check([programs.binaries / "tercet", "predict", "--deployment", deployment, "--model", "MnistNet3",
                      "--token-file", trainer / "client.token", "--images", directory / "images", "--labels",
                      directory / "labels"])
        assert "of 10 images" in said, said
    finally:
        for server in running:
            server.kill()
            server.wait(timeout=60)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", type=Path, required=True)
    programs = Programs(parser.parse_args().bin.resolve())
    for script in ("server.sbatch", "server.mpirun", "demo-keys"):
        check(["bash", "-n", EXAMPLES / script])
        assert os.access(EXAMPLES / script, os.X_OK), script
    programs.commands("server.sbatch", 1)
    programs.commands("server.mpirun", 1)
    programs.commands("demo-keys", 4)
    programs.commands("tercet-server.service", 1)
    kubernetes(programs)
    batch(programs)
    dockerfile(programs)
    with tempfile.TemporaryDirectory() as name:
        compose(programs, Path(name))
        if shutil.which("systemd-analyze"):
            unit = Path(name) / "tercet-server.service"
            unit.write_text(read(unit.name).replace("/usr/local/bin", str(programs.binaries)))
            said = check(["systemd-analyze", "verify", unit])
            assert unit.name not in said, said
        # The example of a deployment with workers is one.
        refused = subprocess.run([programs.binaries / "tercet-party", "serve", "--id", "0", "--lanes", "0", "--deployment",
                                  EXAMPLES / "workers.json", "--store", name], capture_output=True, text=True,
                                 timeout=60)
        assert "the deployment has workers with 0-2 and 3-5" in refused.stderr, refused.stderr


if __name__ == "__main__":
    main()
