"""The SROS2 policy is the node's; nothing in the package runs what it reads."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[1]
_SOURCES = sorted((ROOT / "ros2_pose").rglob("*.py"))
_UNPICKLERS = {"safe_pickle.py"}  # which admits no name but those it lists
# They start pip and npm, git, our nodes, and this package itself in processes of its own.
_STARTERS = {"weights/packages.py", "training/trainer.py", "tools/node_process.py",
             "tools/gpu_check.py", "offline/batch/processes.py", "evaluation/benchmarks/batch.py"}
_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
         "pickle.load", "pickle.loads", "marshal.loads", "shelve.open", "yaml.load",
         "yaml.unsafe_load", "yaml.full_load", "joblib.load", "torch.hub.load"}


def _dotted(node: ast.expr) -> str:
    """a.b.c as it is written; empty for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = _dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def _problems(source: str) -> list[str]:
    """Calls that run what they read, or may."""
    found = []
    for call in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)):
        name = _dotted(call.func)
        words = {word.arg: ast.unparse(word.value) for word in call.keywords}
        if name in _CODE or words.get("shell", "False") != "False" \
                or words.get("allow_pickle", "False") != "False" \
                or name == "torch.load" and words.get("weights_only") != "True":
            found.append(f"line {call.lineno}: {ast.unparse(call)}")
    return found


def _imports(source: str) -> set[str]:
    nodes = list(ast.walk(ast.parse(source)))
    return {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names} | \
        {n.module for n in nodes if isinstance(n, ast.ImportFrom) and n.module}


def test_nothing_runs_what_it_reads():
    assert len(_SOURCES) > 80
    assert {str(path): problems for path in _SOURCES
            if (problems := _problems(path.read_text()))} == {}


@pytest.mark.parametrize("line", [
    "eval(text)", "os.system(text)", "subprocess.run(text, shell=True)", "pickle.load(file)",
    "torch.load(path)", "torch.load(path, weights_only=False)", "yaml.load(file, Loader=L)",
    "np.load(path, allow_pickle=True)"])
def test_the_search_finds(line):
    assert _problems(line)


def test_the_search_lets_pass():
    assert not _problems("net.eval(); re.compile(x); torch.load(p, weights_only=True); "
                         "np.load(p, allow_pickle=False); yaml.safe_load(f)")


def test_pickles_and_programs_have_their_few_places():
    def users(module: str) -> set[str]:
        return {str(path.relative_to(ROOT / "ros2_pose")) for path in _SOURCES
                if module in _imports(path.read_text())}
    assert users("pickle") == _UNPICKLERS
    assert users("subprocess") == _STARTERS
    assert not users("cloudpickle") | users("dill") | users("joblib") | users("marshal")


# SROS2 ------------------------------------------------------------------------------------------


def _policy() -> dict[str, set[str]]:
    """Full names by what is allowed: publish, subscribe, reply."""
    profile = ElementTree.parse(ROOT / "config" / "sros2_policy.xml").find(".//profile")
    own = profile.get("ns") + profile.get("node")
    allowed: dict[str, set[str]] = {"publish": set(), "subscribe": set(), "reply": set()}
    for group in profile:
        for what, decision in group.items():
            assert decision == "ALLOW"
            allowed[what] |= {_full(name.text, own, profile.get("ns")) for name in group}
    return allowed


def _full(name: str, own: str, namespace: str) -> str:
    return name.replace("~", own) if name.startswith("~") else \
        name if name.startswith("/") else namespace + name


def test_the_policy_allows_what_the_node_does_and_no_more():
    pytest.importorskip("rclpy", reason="needs ROS 2: run make test")
    pytest.importorskip("ros2_pose.msg", reason="needs the built messages: run make test")
    from ros_helpers import Graph
    used = {"publish": set(), "subscribe": set(), "reply": set()}
    for transport in ("raw", "compressed"):
        graph = Graph()
        try:
            for what, names in _running(graph, transport).items():
                used[what] |= names
        finally:
            graph.close()
    allowed = _policy()
    for what, names in used.items():
        refused = {name for name in names if not any(fnmatch(name, rule) for rule in allowed[what])}
        idle = {rule for rule in allowed[what] if not any(fnmatch(name, rule) for name in names)}
        assert (what, refused, idle) == (what, set(), set())


def _running(graph, transport: str) -> dict[str, set[str]]:
    """What a node with everything switched on publishes, subscribes and serves."""
    from rclpy.parameter import Parameter
    from ros_helpers import FakePipeline

    from ros2_pose.nodes.pose_node import PoseNode
    settings = {"transport": transport, "navigation_frame": "odom", "rep155": True,
                "detections": True, "depth": True, "imu": "/imu/data",
                "floor_frame": "odom", "use_sim_time": True}
    node = graph.add(PoseNode(FakePipeline, context=graph.context, use_global_arguments=False,
                              parameter_overrides=[Parameter(name, value=value)
                                                   for name, value in settings.items()]))
    me = node.get_name(), node.get_namespace()

    def names(kind: str) -> set[str]:
        found = getattr(node, f"get_{kind}_names_and_types_by_node")(*me)
        return {name for name, _ in found}
    try:
        node.autostart()
        graph.until(lambda: "/diagnostics" in names("publisher") and names("subscriber")
                    and "/ros2_pose/set_parameters" in names("service"))
        return {"publish": names("publisher"), "subscribe": names("subscriber"),
                "reply": names("service")}
    finally:
        node.close()
