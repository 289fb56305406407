"""A small server on the loopback device that speaks vLLM's completions protocol, and misbehaves where it is told to.

It computes every token by a forward pass of its own, draws by torch's generators, and shares no code with the client.
Called in a process of its own by ``started``.
"""

from __future__ import annotations

import gzip
import json
import os
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import torch
from forked import Forked

KEY = "open sesame"
HUGE = 10**6
DOORS = ("/collective_rpc", "/v1/load_lora_adapter")
NO_OBJECTS = {"no JSON": b"<html>Welcome</html>", "a list": b"[]", "packed": gzip.compress(b"{}")}
ODD = {"nan": float("nan"), "huge": -(10**400), "above 0": 0.5, "true": True}  # log-probabilities that are none


class Served:
    """A model, the adapters on it, and what goes wrong."""

    def __init__(self, folder: str) -> None:
        self.folder, self.fault, self.processed, self.asked = folder, "", False, []
        self.adapters, self.known, self.lock = {}, {}, threading.Lock()
        self.model = self.read(folder)

    @staticmethod
    def read(folder: str):
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def load_adapter(self, name: str, folder: str) -> None:
        from peft import PeftModel

        self.adapters[name] = PeftModel.from_pretrained(self.read(self.folder), folder).eval()

    @torch.no_grad()
    def write(self, told: dict, model) -> list[dict]:
        generators = [torch.Generator().manual_seed(told["seed"] + index) for index in range(told["n"])]
        rows = torch.tensor([told["prompt"]] * told["n"])
        logps = []
        for _ in range(told["max_tokens"]):
            raw = model(input_ids=rows).logits[:, -1].double()
            hot = (raw / told["temperature"]).log_softmax(-1)
            kept = hot.exp()
            if told["top_p"] < 1:
                masses, order = kept.sort(descending=True, stable=True)
                kept = kept.scatter(1, order, masses.where(masses.cumsum(1) - masses < told["top_p"], 0.0))
            token = torch.stack([row.multinomial(1, generator=g) for row, g in zip(kept, generators, strict=True)])
            seen = (kept / kept.sum(1, keepdim=True)).log() if self.processed else raw.log_softmax(-1)
            logps.append(seen.gather(1, token)[:, 0])
            rows = torch.cat([rows, token], dim=1)
        written = rows[:, len(told["prompt"]) :].tolist()
        return [
            self.choice(index, ids, row, told)
            for index, (ids, row) in enumerate(zip(written, torch.stack(logps, 1).tolist(), strict=True))
        ]

    def choice(self, index: int, ids: list[int], logps: list[float], told: dict) -> dict:
        ends = [place for place, token in enumerate(ids) if token in told["stop_token_ids"]]
        reason, length = ("stop", ends[0] + 1) if ends else ("length", len(ids))
        ids, logps, prompt = ids[:length], logps[:length], list(told["prompt"])
        if self.fault == "out of vocabulary":
            ids[-1] = HUGE
        elif self.fault == "no ids":
            ids = None
        elif self.fault == "another prompt":
            prompt = prompt[1:]
        elif self.fault == "another model":
            logps = [logp - 0.05 for logp in logps]
        elif self.fault in ODD:
            logps[-1] = ODD[self.fault]
        elif self.fault == "no log-probabilities":
            logps = None
        elif self.fault == "cut short":
            ids, logps = [token for token in ids[:1] if token not in told["stop_token_ids"]] or [5], logps[:1]
        elif self.fault == "behind the end":
            ids, logps = [told["stop_token_ids"][0], 5], [-1.0, -1.0]
        return {
            "index": index, "text": "", "finish_reason": reason, "stop_reason": None, "token_ids": ids,
            "prompt_token_ids": prompt, "logprobs": None if logps is None else {"token_logprobs": logps},
        }  # fmt: skip


class Handler(BaseHTTPRequestHandler):
    served: Served

    def do_GET(self) -> None:
        if self.path == "/v1/models":
            length = 8 if self.served.fault == "reads little" else 512
            self.send({"data": [{"id": "base", "root": self.served.folder, "max_model_len": length}]})
        elif self.path in DOORS and self.served.fault != "closed doors":
            self.refuse(405, {"detail": "Method Not Allowed"})
        else:
            self.refuse(404, {"detail": "Not Found"})

    def do_POST(self) -> None:
        told = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        served, fault, path = self.served, self.served.fault, self.path.partition("?")[0]
        if path == "/told":  # by the tests
            served.fault, served.processed = told.get("fault", ""), told.get("processed", False)
            asked, served.asked = served.asked, []
            return self.send({"asked": asked})
        served.asked.append([self.path, told])
        if fault == "wants a key" and self.headers["Authorization"] != f"Bearer {KEY}":
            return self.refuse(401, {"error": "Unauthorized"})
        with served.lock:
            if path == "/v1/completions":
                return self.complete(told)
            if fault == "closed doors":
                return self.refuse(404, {"detail": "Not Found"})
            if fault == "reload fails":
                return self.refuse(500, {"error": {"message": "CUDA out of memory", "code": 500}})
            return self.control(path, told)

    def complete(self, told: dict) -> None:
        served, fault = self.served, self.served.fault
        model = served.model if told["model"] == "base" else served.adapters.get(told["model"])
        if model is None or fault == "no such path":
            self.refuse(404, {"error": {"message": f"The model `{told['model']}` does not exist.", "code": 404}})
        elif fault == "fails":
            self.refuse(500, {"error": {"message": "EngineCore died", "code": 500}})
        elif fault in NO_OBJECTS:
            self.send(None, NO_OBJECTS[fault])
        elif fault == "sends elsewhere":
            self.head(302, 0, Location="/v1/models")
        else:
            choices = served.write(told, model)
            body = json.dumps({"choices": choices[1:] if fault == "fewer" else choices}).encode()
            time.sleep(1.5 if fault == "late" else 0)
            self.break_off(body) if fault in ("dies", "drips") else self.send(None, body)

    def break_off(self, body: bytes) -> None:
        """After the half: for good, or to go on slowly."""
        half = len(body) // 2
        self.head(200, len(body))
        self.wfile.write(body[:half])
        self.wfile.flush()
        if self.served.fault == "dies":
            os._exit(1)
        for place in range(half, len(body)):
            time.sleep(0.1)
            self.wfile.write(body[place : place + 1])

    def control(self, path: str, told: dict) -> None:
        served = self.served
        if path == "/collective_rpc":
            assert told["method"] == "reload_weights"
            place = told["kwargs"]["weights_path"]
            if served.fault != "stale":  # what it has read it has: as vLLM, of which a folder is best given once
                served.model = served.known[place] = served.known.get(place) or served.read(place)
            self.send({"results": [None]})
        elif path == "/v1/load_lora_adapter":
            served.load_adapter(told["lora_name"], told["lora_path"])
            self.send(None, b"Success: LoRA adapter added successfully.")
        elif path == "/v1/unload_lora_adapter":
            del served.adapters[told["lora_name"]]
            self.send(None, b"Success: LoRA adapter removed successfully.")
        elif path == "/reset_prefix_cache":
            self.send(None, b"")
        else:
            self.refuse(404, {"detail": "Not Found"})

    def send(self, content: object, body: bytes | None = None) -> None:
        data = json.dumps(content).encode() if body is None else body
        self.head(200, len(data))
        self.wfile.write(data)

    def refuse(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.head(status, len(data))
        self.wfile.write(data)

    def head(self, status: int, length: int, **more: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(length), **more}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


def main(folder: str, note: Path, port: int) -> None:
    torch.set_num_threads(1)
    Handler.served = Served(folder)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    note.with_suffix(".partial").write_text(f"http://127.0.0.1:{server.server_port}")
    note.with_suffix(".partial").replace(note)
    server.serve_forever()


class Running:
    """A server in a process of its own.

    Args:
        folder: Of the model that it starts on.
        place: For its notes.
        port: To listen at; 0: any that is free.
    """

    def __init__(self, folder: Path, place: Path, *, port: int = 0) -> None:
        note = place / "server.url"
        note.unlink(missing_ok=True)
        place.mkdir(parents=True, exist_ok=True)
        self.process = Forked(main, str(folder), note, port)
        until = time.monotonic() + 60
        while not note.exists():
            assert self.process.poll() is None, self.process.said()
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.05)
        self.url = note.read_text()

    def tell(self, fault: str = "", *, processed: bool = False) -> list[list]:
        """How to behave from now on; path and body of the requests since this was said last."""
        told = json.dumps({"fault": fault, "processed": processed}).encode()
        with urllib.request.urlopen(urllib.request.Request(f"{self.url}/told", told), timeout=30) as answer:
            return json.load(answer)["asked"]

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate(30)
