"""A load client of its own process: keep-alive connections that ask one request after another.

Reads a plan of one line of JSON from standard input and answers one line, until standard input ends. It does as little
as it can, so that on a machine of few cores the service is what is measured.
"""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import uvloop


class _Connection(asyncio.Protocol):
    def __init__(self, load: "_Load") -> None:
        self.load = load
        self.buffer = b""
        self.asked = 0.0

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.ask()

    def ask(self) -> None:
        request = self.load.next_request()
        if request is None:
            self.transport.close()
            return
        self.asked = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, separator, body = self.buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        self.buffer = b""
        self.load.answered(head[9:12], time.perf_counter() - self.asked)
        if self.load.pause:
            asyncio.get_running_loop().call_later(self.load.pause, self.ask)
        else:
            self.ask()

    def connection_lost(self, error: Exception | None) -> None:
        self.load.ended(error)


def _request(head: str, path: str, body: str | None) -> bytes:
    if body is None:
        return f"GET {path} HTTP/1.1\r\nHost: load\r\n{head}\r\n".encode()
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST {path} HTTP/1.1\r\nHost: load\r\n{head}\r\n{body}".encode()


class _Load:
    def __init__(self, plan: dict[str, Any]) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in plan["headers"].items())
        self.requests = [_request(head, path, body) for path, body in plan["requests"]]
        self.plan = plan
        self.position = plan.get("start", 0)
        self.pause = plan.get("pause", 0.0)
        self.seconds: list[float] = []
        self.wrong = 0
        self.open = plan["connections"]
        self.done = asyncio.get_running_loop().create_future()

    def next_request(self) -> bytes | None:
        if time.perf_counter() >= self.until:
            return None
        self.position += 1
        return self.requests[self.position % len(self.requests)]

    def answered(self, status: bytes, seconds: float) -> None:
        self.seconds.append(seconds)
        self.wrong += status != b"200"

    def ended(self, error: Exception | None) -> None:
        self.wrong += error is not None
        self.open -= 1
        if not self.open:
            self.done.set_result(None)

    async def run(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        begun = time.perf_counter()
        self.until = begun + self.plan["seconds"]
        for _ in range(self.plan["connections"]):
            await loop.create_connection(lambda: _Connection(self), self.plan["host"], self.plan["port"])
        await self.done
        passed = time.perf_counter() - begun
        sorted_seconds = sorted(self.seconds)
        return {
            "requests": len(self.seconds),
            "a_second": (len(self.seconds) - self.wrong) / passed,
            "p50": sorted_seconds[len(sorted_seconds) // 2],
            "p99": sorted_seconds[len(sorted_seconds) * 99 // 100],
            "wrong": self.wrong,
            "position": self.position,
        } | ({"seconds": self.seconds} if self.plan.get("every") else {})


def main() -> None:
    for line in sys.stdin:
        plan = json.loads(line)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            print(json.dumps(runner.run(_answer(plan))), flush=True)


async def _answer(plan: dict[str, Any]) -> dict[str, Any]:
    return await _Load(plan).run()


class LoadClient:
    """The client's process, from outside."""

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness

    def __enter__(self) -> "LoadClient":
        command = ["nice", "-n", str(self._niceness), sys.executable, __file__]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(10)

    def run(
        self,
        url: str,
        requests: list[tuple[str, str | None]],
        *,
        seconds: float,
        key: str,
        connections: int,
        start: int = 0,
        may_fail: bool = False,
        pause: float = 0.0,
        every: bool = False,
    ) -> Any:
        """Ask for paths, with a body or without, one after another over so many connections at once, with a pause after
        each answer. ``every`` asks for the time of each."""
        host, port = url.removeprefix("http://").rsplit(":", 1)
        plan = {"host": host, "port": int(port), "requests": requests, "seconds": seconds, "connections": connections}
        plan |= {"headers": {"Authorization": f"Bearer {key}"}, "start": start, "pause": pause}
        plan |= {"every": every}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(plan) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if answer["wrong"] and not may_fail:
            raise AssertionError(f"{answer['wrong']} of {answer['requests']} requests to {requests[0][0]} went wrong")
        return answer


if __name__ == "__main__":
    main()
