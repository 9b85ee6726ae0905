"""Pickles and TorchScript of strangers: nothing in them runs, crashes or takes more memory than they hold."""

import _codecs
import os
import pickle
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks.hostile.files import Call, ObjectDtype, pointers
from benchmarks.hostile.script import Writes
from fact_metrics.base.errors import UserError
from fact_metrics.base.limits import Limit
from fact_metrics.base.pickles import PlainArray, read_pickle
from fact_metrics.base.storages import rebuild_tensor
from fact_metrics.features.torchscript import read_torchscript


def good(protocol: int = 4) -> bytes:
    content = {
        "mu": np.arange(3.0),
        "sigma": np.eye(3, dtype=">f4"),
        "n": np.int64(7),
        "name": "x",
        "yes": np.True_,
    }
    return pickle.dumps(content, protocol=protocol)


@pytest.mark.parametrize("protocol", range(6))
def test_plain_arrays_come_back_whatever_the_protocol(protocol: int) -> None:
    found = read_pickle(good(protocol), source="x.pkl")
    assert isinstance(found["mu"], PlainArray) and found["n"] == 7 and found["name"] == "x"
    assert found["yes"] is True
    assert np.array_equal(found["mu"].numpy(), np.arange(3.0))
    assert np.array_equal(found["sigma"].numpy(), np.eye(3)) and found["sigma"].numpy().dtype == ">f4"
    order = pickle.loads(pickle.dumps(np.arange(6.0).reshape(2, 3, order="F"), protocol=protocol))
    kept = read_pickle(pickle.dumps(order, protocol=protocol), source="x.pkl").numpy()
    assert np.array_equal(kept, order)


def test_addresses_in_place_of_objects_are_refused_and_do_not_crash(tmp_path: Path) -> None:
    """In a process of its own: numpy would dereference 0x4141414141414141."""
    (tmp_path / "x.pkl").write_bytes(pointers())
    code = "import sys; from fact_eval.features.reference_stats import read_statistics as r; r(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "x.pkl"], capture_output=True, text=True)
    assert done.returncode == 1  # not -11
    assert "Refused" in done.stderr and "holds an array of dtype 'O'" in done.stderr


class ChangedState:
    def __init__(self, name: str, state: tuple) -> None:
        self.name, self.state = name, state

    def __reduce__(self):
        return np.dtype, (self.name, False, True), self.state


PLAIN = (3, "<", None, None, None, -1, -1, 0)
_frombuffer = np._core.numeric._frombuffer
REFUSED = {
    "a function": Call(os.mkdir, "harm"),
    "eval": Call(eval, "1"),
    "numpy's loader": Call(np.load, "x"),
    "object dtype": Call(_frombuffer, b"A" * 8, np.dtype("O"), (1,), "C"),
    "object flags cleared": Call(_frombuffer, b"A" * 8, ObjectDtype(), (1,), "C"),
    "dtype with fields": np.zeros(2, dtype=[("a", "O")]),
    "dtype of records": np.zeros(2, dtype=[("a", "f8")]),
    "dtype that became objects": Call(
        _frombuffer, b"A" * 8, ChangedState("f8", (*PLAIN[:-1], 63)), (1,), "C"
    ),
    "dtype with a subarray": Call(
        _frombuffer, b"A" * 8, ChangedState("f8", (3, "<", ("f8", (2,)), None, None, -1, -1, 0)), (1,), "C"
    ),
    "booleans for numbers": Call(
        _frombuffer, b"A" * 8, ChangedState("f8", (3, "<", None, None, None, -1, -1, False)), (1,), "C"
    ),
    "strings": np.array(["a"]),
    "an array of objects": np.array([{}], dtype=object),
    "a lying shape": Call(_frombuffer, b"A" * 8, np.dtype("f8"), (10**6, 10**6), "C"),
    "a negative shape": Call(_frombuffer, b"A" * 8, np.dtype("f8"), (-1, -1), "C"),
    "another encoding": Call(_codecs.encode, "abc", "rot13"),
}


@pytest.mark.parametrize("kind", REFUSED)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_but_plain_arrays_is_refused_in_one_line(tmp_path, monkeypatch, kind, protocol) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps({"mu": REFUSED[kind]}, protocol=protocol)
    with pytest.raises(UserError) as error:
        value = read_pickle(data, source="x.pkl")["mu"]
        if isinstance(value, PlainArray):
            value.numpy()
        raise AssertionError(f"read as {value!r}"[:200])
    assert "\n" not in str(error.value) and not (tmp_path / "harm").exists()


def test_what_encodings_make_together_is_bounded(monkeypatch) -> None:
    """A text that is remembered once and encoded a thousand times takes little room in a file."""
    text = "a" * 2**16
    data = pickle.dumps([Call(_codecs.encode, text, "latin1") for _ in range(4)], protocol=2)
    assert len(data) < 2 * 2**16
    assert len(read_pickle(data, source="x.pkl")) == 4
    monkeypatch.setattr("fact_metrics.base.pickles.PICKLE", Limit(3 * 2**16, "bytes", "a pickle"))
    with pytest.raises(UserError, match="its arrays"):
        read_pickle(data, source="x.pkl")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02}r\xff\xff\xff\xff.", "remembers more values"),  # a table of 64 GB
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x00.", "not a readable pickle"),  # bytes of 2^56
        (b"\x80\x04\x8a\xff" + b"\x11" * 255 + b".", "thousands of digits"),
        (b"cos\nsystem\n(S'true'\ntR.", "names os.system"),
        (b"(S'true'\nios\nsystem\n.", "pickle step INST"),
        (b"\x80\x02\x82\x01.", "pickle step EXT1"),
        (b"\x80\x02Ppersistent\n.", "pickle step PERSID"),
        (b"\x80\x02]Q.", "outside itself"),
        (b"", "not a readable pickle"),
        (b"\x80\x05", "not a readable pickle"),
    ],
)
def test_steps_that_take_memory_or_name_things_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        read_pickle(data, source="x.pkl")
    assert str(error.value).startswith("x.pkl") and "\n" not in str(error.value)


def test_a_changed_constructor_does_not_outlive_its_pickle() -> None:
    """BUILD with a state for a function would set its attributes: __defaults__, __code__."""
    change = b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nN}U\x0c__defaults__)s\x86b."
    with pytest.raises(UserError, match="changes a function"):
        read_pickle(change, source="x.pkl")
    assert read_pickle(good(), source="x.pkl")["n"] == 7


def test_mutated_pickles_are_read_or_refused_and_never_crash(tmp_path: Path) -> None:
    """3,000 seeded mutations of good and hostile pickles, in a process of its own with 2 GB of memory."""
    code = f"""
import sys, random, resource
sys.path[:0] = [{str(Path(__file__).parent)!r}, {str(Path(__file__).parent.parent)!r}]
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
from test_hostile_pickles import mutate_and_read
print(mutate_and_read(3000))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    read, refused = map(int, done.stdout.split())
    assert read > 20 and refused > 1000
    assert list(tmp_path.iterdir()) == []


def mutate_and_read(count: int) -> str:
    """How many mutated pickles were read and refused; anything else raises."""
    rng = random.Random(16)
    seeds = [good(protocol) for protocol in range(6)] * 4 + [pointers()]
    seeds += [pickle.dumps(value, protocol=2) for value in REFUSED.values()]
    read = refused = 0
    for _ in range(count):
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            action = rng.randrange(4)
            if action == 0:
                data[at] = rng.randrange(256)
            elif action == 1:
                del data[at : at + rng.randint(1, 8)]
            elif action == 2:
                other = rng.choice(seeds)
                start = rng.randrange(len(other))
                data[at:at] = other[start : start + rng.randint(1, 40)]
            else:
                data = data[: max(at, 1)]
            if not data:
                data = bytearray(b".")
        try:
            content = read_pickle(bytes(data), source="x.pkl")
            for value in content.values() if isinstance(content, dict) else ():
                if isinstance(value, PlainArray):
                    value.numpy()
            read += 1
        except UserError:
            refused += 1
    return f"{read} {refused}"


class Inner(nn.Module):
    """Everything that a module tree can hold beside parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.register_buffer("counts", torch.arange(3))
        self.register_buffer("unsaved", torch.zeros(1), persistent=False)
        self.attribute = torch.ones(2)
        self.sixteen = nn.Parameter(torch.ones(2).half())
        self.numbers, self.names = [1, 2], {"a": 1.5}

    def forward(self, x):
        return self.conv(x)


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.Sequential(Inner(), nn.BatchNorm2d(4))
        self.turned = nn.Parameter(torch.randn(4, 3).t())
        self.register_buffer("slice", torch.randn(10)[2:5])

    def forward(self, x):
        return self.parts(x) + torch.tensor([7.0, 8.0]).sum()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["script", "trace"])
def test_tensors_of_torchscript_equal_those_of_torch_and_nothing_is_compiled(tmp_path, monkeypatch, kind):
    net = Outer().eval()
    module = torch.jit.script(net) if kind == "script" else torch.jit.trace(net, torch.zeros(1, 3, 8, 8))
    module.save(str(tmp_path / "m.pt"))
    expected = torch.jit.load(str(tmp_path / "m.pt")).state_dict()
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("compiled"))
    found = read_torchscript(tmp_path / "m.pt")
    assert found.keys() == expected.keys() and len(found) > 10
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor) and found[name].dtype == tensor.dtype, name
        assert found[name].stride() == tensor.stride(), name


@pytest.mark.filterwarnings("ignore")
def test_torchscript_whose_state_is_code_is_refused_and_not_run(tmp_path: Path) -> None:
    harm = tmp_path / "harm"
    torch.jit.script(Writes(str(harm))).save(str(tmp_path / "m.pt"))
    with pytest.raises(UserError, match="its own code, which is not run") as error:
        read_torchscript(tmp_path / "m.pt")
    assert "\n" not in str(error.value) and not harm.exists()
    torch.jit.load(str(tmp_path / "m.pt"))  # it would have
    assert harm.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, (10**6, 10**6), (0, 0)), "promises a tensor"),
        ((0, (5,), (1,)), "promises a tensor"),
        ((-1, (2,), (1,)), "unknown form"),
        ((2, (4,), (1,)), "promises a tensor"),
        ((0, (2,), (-1,)), "unknown form"),
        ((0, [2], [1]), "unknown form"),
    ],
)
def test_a_view_stays_inside_its_storage(arguments, message) -> None:
    with pytest.raises(UserError, match=message):
        rebuild_tensor(torch.zeros(4), *arguments)
