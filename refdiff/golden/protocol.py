"""The line-JSON protocol: an implementation in any language, as a program that reads questions and writes answers.

    refdiff audit --command './my_program'

The program is started once. refdiff writes one JSON object per line to its standard input; the program writes one per
line to its standard output and flushes it. What it writes to standard error is shown if it fails.

    ->  {"id": 1, "operation": "schedule", "inputs": {"name": "linear", "T": 1000}}
    <-  {"id": 1, "answer": {"alpha_bar": [1.0, 0.9999, ...]}}            numbers, nested lists, or an object of them
    ->  {"id": 2, "operation": "frechet", "inputs": {...}}
    <-  {"id": 2, "error": "not-implemented"}                                  no such operation: never a failure
    <-  {"id": 3, "error": "T must be positive"}                               inputs that are refused

A reply has the request's id, and either "answer" or "error" (a text; "not-implemented", alone or before a colon, means
what it says). Operations are the methods of an adapter, their inputs its arguments; numbers are JSON numbers in full
double precision, arrays are nested lists (x is a list of rows), and inf, -inf and nan are the strings "Infinity",
"-Infinity", "NaN", in answers too; null is no number. A program may ignore inputs it has no use for.

The network and the noise of a trajectory cannot be written down, so the program asks for them while it answers:

    ->  {"id": 7, "operation": "trajectory", "inputs": {"sampler": "ddim", ..., "x": [[0.3], [1.2]]}}
    <-  {"id": 7, "call": "denoiser", "x": [[0.3], [1.2]], "t": 1000}          "sigma" is another name for "t"
    ->  {"id": 7, "value": [[0.29], [1.1]]}
    <-  {"id": 7, "call": "noise", "i": 0}
    ->  {"id": 7, "value": [[-0.5], [0.7]]}
    <-  {"id": 7, "answer": {"x": [[0.4], [0.9]]}}

The operation "hello" comes first, with no inputs; its answer may be {"name": ..., "version": ..., "prediction": "eps",
"operations": [...], "configurations": [{"sampler": "ddim", ...}]}, and "not-implemented" is as good. Standard input is
closed at the end, on which the program exits. A reply that does not come in time, is no JSON, or has another id ends
the program with an error that quotes it; for the next question it is started anew. An answer may call the network and
the noise CALLS times.
"""
import inspect
import json
import math
import queue
import shlex
import subprocess
import threading

import numpy as np

from .adapter import OPERATIONS, PREFIXES, call, name_of

SPECIAL = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
LONGEST = 10 ** 8                   # characters of a line
LONGEST_WAIT = 10 ** 6              # seconds, which every clock can hold
CALLS = 10 ** 4                     # of the network and the noise for one answer: a loop without end is stopped
GONE = object()                     # in the queue: standard output was closed


class ProtocolError(RuntimeError):
    """The program broke the protocol: no answer in time, not JSON, another id, or it ended."""


def to_json(value):
    """A value as the protocol writes it: arrays as nested lists, what is not finite as a string."""
    if isinstance(value, dict):
        return {str(name): to_json(part) for name, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(part) for part in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return to_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def from_json(value):
    """Numbers for the three strings, all else as it came."""
    if isinstance(value, dict):
        return {name: from_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [from_json(part) for part in value]
    return SPECIAL.get(value, value) if isinstance(value, str) else value


class Program:
    """An adapter that asks a program. command: a list, or a line split as a shell does. timeout: seconds per reply."""

    dtypes = ("float64",)                       # JSON has no other

    def __init__(self, command, timeout=20.0):
        self.command = _split(command) if isinstance(command, str) else list(command)
        if not self.command:
            raise ValueError("audit: --command is empty, wanted a program and its arguments")
        if not 0 < timeout <= LONGEST_WAIT:
            raise ValueError(f"audit: --timeout is {timeout:g}, wanted seconds, > 0 and at most {LONGEST_WAIT}")
        self.timeout, self.process, self.number = timeout, None, 0
        self.lines, self.complaints = queue.Queue(), []
        self._start()
        said = self._hello()
        self.name = str(said.get("name") or self.command[0].rpartition("/")[2])
        self.version, self.prediction = str(said.get("version", "")), said.get("prediction", "eps")
        self._offered = said.get("operations")
        if isinstance(said.get("configurations"), list):
            self.configurations = lambda: [dict(given) for given in said["configurations"]]

    def _hello(self):
        try:
            said = self.ask("hello", {})
        except NotImplementedError:
            return {}
        except ProtocolError as error:
            self.close()
            raise ValueError(f"audit: {error}") from error
        except RuntimeError:
            return {}                                            # an error of its own: it does not know hello
        return said if isinstance(said, dict) else {}

    def __getattr__(self, operation):
        if operation not in OPERATIONS and not operation.startswith(PREFIXES):
            raise AttributeError(operation)
        offered = self.__dict__.get("_offered")
        if isinstance(offered, list) and operation not in offered:
            raise AttributeError(operation)
        return lambda **inputs: self.ask(operation, inputs)

    def __dir__(self):
        return [*super().__dir__(), *(name for name in OPERATIONS if hasattr(self, name))]

    # ---- the process

    def _start(self):
        self.close()
        try:
            self.process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
                                            bufsize=1)
        except OSError as error:
            raise ValueError(f"audit: --command {shlex.join(self.command)}: cannot be started: {error.strerror}") \
                from error
        self.lines, self.complaints = queue.Queue(), []
        for stream, take in ((self.process.stdout, self.lines.put), (self.process.stderr, self.complaints.append)):
            threading.Thread(target=_pump, args=(stream, take, self.lines if take == self.lines.put else None),
                             daemon=True).start()

    def close(self):
        """End the program: its input is closed, and after two seconds it is killed."""
        process, self.process = self.process, None
        if process is None:
            return
        try:
            process.stdin.close()
        except OSError:
            pass
        _ended(process, 2)

    def _broken(self, why):
        complaint = "".join(self.complaints[-3:]).strip()
        self.process.kill()
        self.close()
        return ProtocolError(f"{self.command[0]}: {why}" + (f"; it said: {complaint[-300:]}" if complaint else ""))

    def _gone(self, stream, when):
        """The error of a program whose stream is closed, ended or not."""
        own = _ended(self.process, 2)
        return self._broken(f"ended {when} (exit status {self.process.poll()})" if own
                            else f"closed its standard {stream} {when}, and ran on")

    # ---- one question

    def ask(self, operation, inputs):
        """The answer. Raises NotImplementedError, RuntimeError with the program's own error, or ProtocolError."""
        if self.process is None:
            self._start()
        self.number += 1
        functions = {name: value for name, value in inputs.items() if callable(value)}
        plain = {name: to_json(value) for name, value in inputs.items() if name not in functions}
        self._write({"id": self.number, "operation": operation, "inputs": plain})
        calls = 0
        while True:
            reply = self._read(operation)
            if "call" in reply:
                calls += 1
                if calls > CALLS:
                    raise self._broken(f"called {reply['call']!r} once more after {CALLS} calls for one {operation}; "
                                       "does its loop end?")
                self._write({"id": self.number, "value": self._called(reply, functions)})
            elif "error" in reply:
                said = str(reply["error"])
                missing = said.partition(":")[0].strip() == "not-implemented"
                raise (NotImplementedError if missing else RuntimeError)(said)
            else:
                answer = from_json(reply["answer"])
                return answer if operation == "hello" else _arrays(answer)

    def _write(self, message):
        process, late = self.process, threading.Event()

        def stop():
            late.set()
            process.kill()                       # which ends a write that waits for a program that does not read
        timer = threading.Timer(self.timeout, stop)
        timer.start()
        try:
            process.stdin.write(json.dumps(message, allow_nan=False) + "\n")
            process.stdin.flush()
        except OSError:
            if late.is_set():
                raise self._broken(f"did not read a question in {self.timeout:g} s") from None
            raise self._gone("input", "before it was asked") from None
        finally:
            timer.cancel()

    def _read(self, operation):
        try:
            line = self.lines.get(timeout=self.timeout)
        except queue.Empty:
            raise self._broken(f"no reply to {operation} in {self.timeout:g} s") from None
        if line is GONE:
            raise self._gone("output", f"without a reply to {operation}")
        shown = repr(line.strip()[:80])
        try:
            reply = json.loads(line)
        except (ValueError, RecursionError):
            raise self._broken(f"replied {shown} to {operation}, wanted one line of JSON") from None
        if not isinstance(reply, dict) or reply.get("id") != self.number or len(
                {"answer", "error", "call"} & set(reply)) != 1:
            raise self._broken(f"replied {shown} to {operation}, wanted an object with \"id\": {self.number} and one "
                               "of answer, error, call")
        return reply

    def _called(self, reply, functions):
        name = reply["call"]
        if name not in functions:
            wanted = ", ".join(functions) or "no call: there is nothing to ask"
            raise self._broken(f"called {name!r}, wanted {wanted}")
        try:
            if name == "noise":
                return to_json(np.asarray(functions[name](int(reply["i"]))))
            time = reply["t"] if "t" in reply else reply["sigma"]
            return to_json(np.asarray(functions[name](_numbers(from_json(reply["x"])), float(time))))
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise self._broken(f"called {name} with {sorted(reply)}: {type(error).__name__}: {error}") from error


def _split(command):
    try:
        return shlex.split(command)
    except ValueError as error:
        raise ValueError(f"audit: --command is {command!r}, wanted a line as for a shell: {error}") from error


def _ended(process, seconds):
    """Whether a program ends by itself in this time; it is killed if not."""
    try:
        process.wait(seconds)
        return True
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return False


def _pump(stream, take, ended):
    """Every line of a stream, as it comes; a line without end is cut."""
    while line := stream.readline(LONGEST):
        take(line)
    if ended is not None:
        ended.put(GONE)


def _arrays(answer):
    """Lists as float64 arrays, in an object too. Raises TypeError for what is not numbers."""
    if isinstance(answer, dict):
        return {name: _arrays(part) for name, part in answer.items() if part is not None}
    try:
        return _numbers(answer)
    except (TypeError, ValueError) as error:
        raise TypeError(f"the answer {json.dumps(answer)[:60]} is not numbers: {error}") from error


def _numbers(value):
    """Nested lists as a float64 array. Raises TypeError for null, which NumPy would take for nan."""
    loose = np.array(value)
    if loose.dtype == object and any(part is None for part in loose.flat):
        raise TypeError('null where a number is due; write nan as "NaN", and answer {"error": "not-implemented"} '
                        "where there is none")
    return loose.astype(np.float64)


def serve(adapter, source, target):
    """Answer the protocol with a Python adapter: the program's side, for tests and as a pattern.

    source and target are text files; ends when source does.
    """
    def send(message):
        target.write(json.dumps(to_json(message), allow_nan=False) + "\n")
        target.flush()

    for line in source:
        request = json.loads(line)
        number, operation = request["id"], request["operation"]

        def asked(**message):
            send({"id": number, **message})
            return np.array(from_json(json.loads(source.readline())["value"]), dtype=np.float64)

        inputs = _with_calls(getattr(adapter, operation, None), from_json(request["inputs"]), asked)
        if operation == "hello":
            send({"id": number, "answer": {"name": name_of(adapter), "version": getattr(adapter, "version", "")}})
            continue
        got = call(adapter, operation, inputs)
        if got.fields is None:
            send({"id": number, "error": f"not-implemented: {got.missing}" if got.missing else got.error})
        else:
            send({"id": number, "answer": got.fields.get("", got.fields)})


def _with_calls(method, inputs, asked):
    """A trajectory's inputs with arrays for lists, and functions that ask the other side."""
    inputs = {name: np.array(value, dtype=np.float64) if isinstance(value, list) else value
              for name, value in inputs.items()}
    wanted = inspect.signature(method).parameters if callable(method) else {}
    if "denoiser" in wanted:
        inputs["denoiser"] = lambda x, t: asked(call="denoiser", x=x, t=float(t))
    if "noise" in wanted and "denoiser" in wanted:
        inputs["noise"] = lambda i: asked(call="noise", i=int(i))
    return inputs
