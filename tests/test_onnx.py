"""ONNX: any generator scored by `fact-eval run`; our snapshots exported."""

import dataclasses

import numpy as np
import pytest
import torch
from eval_toys import COUNT, SIDE, make_data, make_run, register_toys
from foreign_checkpoints import stylegan2_ada, toy_networks, write_pickle

import fact_metrics.registry
from fact_eval import cli
from fact_eval.images.onnx_graph import GraphOptions, OnnxGenerator, OnnxSource, with_channels
from fact_eval.images.sources import GeneratorSource
from fact_leaderboard import columns
from fact_leaderboard.records import RESULTS, read_records
from fact_metrics.base.errors import UsageError, UserError
from fact_metrics.base.extras import need
from fact_metrics.base.pixels import to_uint8
from fact_metrics.features import get_detector
from fact_train import onnx_export
from fact_train.data import open_dataset
from fact_train.onnx_export import export_onnx
from fact_train.run_folder import list_snapshots
from fact_train.snapshot import load_snapshot

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

Z, PIXELS = 6, SIDE * SIDE
FLOAT, INT64, UINT8 = TensorProto.FLOAT, TensorProto.INT64, TensorProto.UINT8
WEIGHT = np.random.default_rng(0).normal(size=(Z, PIXELS)).astype(np.float32)
OF_CLASS = np.random.default_rng(1).normal(size=(3, PIXELS)).astype(np.float32)


def graph_of(path, nodes, inputs, *, out=FLOAT, shape=("n", 1, SIDE, SIDE), tensors=()):
    """An ONNX file of nodes that end in `images`."""
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, kind, size) for name, kind, size in inputs],
        [helper.make_tensor_value_info("images", out, shape)],
        [numpy_helper.from_array(value, name) for name, value in tensors],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


def linear_graph(path, *, label=None, batch="n", layout=(1, SIDE, SIDE), latent=(Z,), end="Tanh"):
    """tanh(z W + W_c) as images; `label` index or vector adds a row of OF_CLASS."""
    tensors = [("W", WEIGHT), ("flat", np.array([-1, Z])), ("shape", np.array([-1, *layout]))]
    nodes = [helper.make_node("Reshape", ["z", "flat"], ["rows"])]
    nodes += [helper.make_node("MatMul", ["rows", "W"], ["x"])]
    inputs, last = [("z", FLOAT, (batch, *latent))], "x"
    if label is not None:
        tensors.append(("C", OF_CLASS))
        inputs.append(("c", INT64, (batch,)) if label == "index" else ("c", FLOAT, (batch, 3)))
        nodes.append(
            helper.make_node("Gather", ["C", "c"], ["y"])
            if label == "index"
            else helper.make_node("MatMul", ["c", "C"], ["y"])
        )
        nodes.append(helper.make_node("Add", ["x", "y"], ["sum"]))
        last = "sum"
    nodes += [helper.make_node(end, [last], ["v"]), helper.make_node("Reshape", ["v", "shape"], ["images"])]
    return graph_of(path, nodes, inputs, shape=(batch, *layout), tensors=tensors)


def latents(indices, seed=0):
    return np.stack(
        [
            torch.randn(Z, generator=torch.Generator().manual_seed(seed * 10_000_000 + i)).numpy()
            for i in indices
        ]
    )


def expected(indices, *, classes=None, seed=0):
    x = latents(indices, seed) @ WEIGHT
    x = x if classes is None else x + OF_CLASS[classes]
    return to_uint8(torch.from_numpy(np.tanh(x)).reshape(-1, 1, SIDE, SIDE))


def source_of(path, *, seed=0, labels_of=None, **options):
    generator = OnnxGenerator(path, GraphOptions(**options))
    return OnnxSource(generator, seed=seed, channels=1, labels_of=labels_of)


def close(a, b):
    """uint8 images of two libraries' products: one grey level."""
    return a.shape == b.shape and (a.int() - b.int()).abs().max() <= 1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data") / "toy", labelled=True)


def test_a_graph_of_numpy_gives_the_images_of_its_formula(tmp_path) -> None:
    source = source_of(linear_graph(tmp_path / "g.onnx"), seed=2)
    assert close(source.images([3, 0, 7]), expected([3, 0, 7], seed=2))
    assert source.generator.z_dim == Z and source.generator.shape == (1, SIDE, SIDE)
    assert torch.equal(source.images([7]), source.images([3, 0, 7])[2:])


@pytest.mark.parametrize(("batch", "latent"), [(4, (Z,)), (1, (Z,)), ("n", (Z, 1, 1)), (2, ("dim",))])
def test_fixed_batches_and_other_ranks_of_latents_give_the_same_images(tmp_path, batch, latent) -> None:
    path = linear_graph(tmp_path / "g.onnx", batch=batch, latent=latent)
    source = source_of(path, z_dim=Z)
    assert close(source.images(range(7)), expected(range(7)))


def test_channels_last_uint8_and_other_ranges_are_read_as_they_are(tmp_path) -> None:
    last = linear_graph(tmp_path / "last.onnx", layout=(SIDE, SIDE, 1))
    assert close(source_of(last).images(range(3)), expected(range(3)))
    unit = source_of(linear_graph(tmp_path / "unit.onnx", end="Sigmoid"), pixel_range="unit")
    values = 1 / (1 + np.exp(-(latents(range(3)) @ WEIGHT)))
    wanted = to_uint8(torch.from_numpy(values * 2 - 1).reshape(-1, 1, SIDE, SIDE))
    assert close(unit.images(range(3)), wanted)
    cast = [
        helper.make_node("Mul", ["z", "hundred"], ["m"]),
        helper.make_node("Abs", ["m"], ["a"]),
        helper.make_node("Cast", ["a"], ["b"], to=UINT8),
        helper.make_node("Reshape", ["b", "shape"], ["images"]),
    ]
    tensors = [("hundred", np.array(20, np.float32)), ("shape", np.array([-1, 1, 2, 3]))]
    path = graph_of(
        tmp_path / "u.onnx", cast, [("z", FLOAT, ("n", Z))], out=UINT8, shape=("n", 1, 2, 3), tensors=tensors
    )
    made = source_of(path).images([4])
    assert made.flatten().tolist() == np.abs(latents([4]) * 20).astype(np.uint8).flatten().tolist()
    with pytest.raises(UsageError, match=r"--pixel-range unit: u\.onnx makes uint8"):
        source_of(path, pixel_range="unit")


@pytest.mark.parametrize("label", ["index", "vector"])
def test_labels_are_those_of_scoring_uniform_or_one_class(tmp_path, data, label: str) -> None:
    path = linear_graph(tmp_path / "g.onnx", label=label)
    train = open_dataset(data)
    snapshot = load_snapshot(list_snapshots(make_run(tmp_path, data, cond=True))[-1])
    scored = GeneratorSource(snapshot, seed=0, labels_of=train).labels(range(20)).argmax(dim=1).numpy()
    assert close(source_of(path, labels_of=train).images(range(20)), expected(range(20), classes=scored))
    assert close(source_of(path, labels="2").images([0, 1]), expected([0, 1], classes=[2, 2]))
    if label == "index":
        with pytest.raises(UsageError, match=r"--labels uniform: g\.onnx does not state its classes"):
            source_of(path, labels="uniform")
        return
    uniform = source_of(path, labels="uniform")._labels(range(900))
    assert (uniform.bincount() - 300).abs().max() < 5 * 15  # five standard deviations of a third of 900


def test_latents_have_the_distribution_that_is_named(tmp_path) -> None:
    path = linear_graph(tmp_path / "g.onnx")
    z = {name: source_of(path, z=name) for name in ("normal", "uniform", "sphere")}
    gen = torch.Generator().manual_seed(5)
    wanted = torch.rand(Z, generator=gen) * 2 - 1
    images = to_uint8(torch.tanh(wanted @ torch.from_numpy(WEIGHT))).reshape(1, 1, SIDE, SIDE)
    assert close(z["uniform"].images([5]), images)
    sphere = torch.from_numpy(latents([5]))
    sphere = sphere / sphere.norm() * Z**0.5
    images = to_uint8(torch.tanh(sphere @ torch.from_numpy(WEIGHT))).reshape(1, 1, SIDE, SIDE)
    assert close(z["sphere"].images([5]), images)
    assert len({str(source.describe()) for source in z.values()}) == 3


def test_warnings_name_a_wrong_range_and_random_graphs(tmp_path) -> None:
    assert OnnxGenerator(linear_graph(tmp_path / "g.onnx"), GraphOptions()).warnings == []
    unit = linear_graph(tmp_path / "u.onnx", end="Sigmoid")
    assert "try --pixel-range unit" in OnnxGenerator(unit, GraphOptions()).warnings[0]
    assert OnnxGenerator(unit, GraphOptions(pixel_range="unit")).warnings == []
    nodes = [
        helper.make_node("RandomNormal", [], ["x"], shape=[1, 1, SIDE, SIDE]),
        helper.make_node("ReduceMean", ["z"], ["m"], keepdims=0),
        helper.make_node("Add", ["x", "m"], ["one"]),
        helper.make_node("Concat", ["one", "one"], ["images"], axis=0),
    ]
    path = graph_of(tmp_path / "r.onnx", nodes, [("z", FLOAT, (2, Z))], shape=(2, 1, SIDE, SIDE))
    assert "draws random numbers of its own" in OnnxGenerator(path, GraphOptions()).warnings[-1]


def test_channels_follow_the_reference_as_in_picture_files() -> None:
    from PIL import Image

    images = torch.randint(0, 256, (2, 3, 5, 5), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    gray = np.array(Image.fromarray(images[1].permute(1, 2, 0).numpy()).convert("L"))
    assert np.array_equal(with_channels(images, 1)[1, 0].numpy(), gray)
    assert torch.equal(with_channels(images[:, :1], 3), images[:, :1].expand(-1, 3, -1, -1))
    assert with_channels(images, 3) is images


def test_graphs_that_cannot_be_fed_or_run_are_one_line(tmp_path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(UserError, match=r"x\.onnx is not a graph that onnxruntime can run"):
        OnnxGenerator(tmp_path / "x.onnx", GraphOptions())
    path = linear_graph(tmp_path / "g.onnx")
    with pytest.raises(UsageError, match=r"--z-dim 9: .* g\.onnx are z tensor\(float\) \['n', 6\]"):
        OnnxGenerator(path, GraphOptions(z_dim=9))
    open_width = linear_graph(tmp_path / "open.onnx", latent=("dim",))
    with pytest.raises(UsageError, match="--z-dim is missing"):
        OnnxGenerator(open_width, GraphOptions())
    for options, message in [
        ({"labels": "data"}, "g.onnx takes no labels"),
        ({"labels": "x"}, "takes no labels"),
    ]:
        with pytest.raises(UsageError, match=message):
            OnnxGenerator(path, GraphOptions(**options))
    labelled = linear_graph(tmp_path / "c.onnx", label="vector")
    with pytest.raises(UsageError, match=r"--labels 3: c\.onnx has classes 0 to 2"):
        OnnxGenerator(labelled, GraphOptions(labels="3"))
    with pytest.raises(UsageError, match="--labels x: it must be data, uniform or the number"):
        OnnxGenerator(labelled, GraphOptions(labels="x"))
    nodes = [helper.make_node("Mul", ["z", "psi"], ["images"])]
    extra = graph_of(tmp_path / "p.onnx", nodes, [("z", FLOAT, ("n", Z)), ("psi", FLOAT, ())], shape=("n", Z))
    with pytest.raises(UserError, match="only a latent and a label are given"):
        OnnxGenerator(extra, GraphOptions())
    flat = graph_of(
        tmp_path / "f.onnx", [helper.make_node("Tanh", ["z"], ["images"])], [("z", FLOAT, ("n", Z))],
        shape=("n", Z),
    )  # fmt: skip
    with pytest.raises(UserError, match=r"the output has shape \[2, 6\]"):
        OnnxGenerator(flat, GraphOptions()).shape  # noqa: B018


def test_weights_outside_the_file_are_not_read(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = onnx.load(str(linear_graph(tmp_path / "g.onnx")))
    (weight,) = [tensor for tensor in model.graph.initializer if tensor.name == "W"]
    (tmp_path / "w.bin").write_bytes(weight.raw_data)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    (tmp_path / "g.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(UserError, match=r"g\.onnx is not a graph that onnxruntime can run .*External data"):
        OnnxGenerator(tmp_path / "g.onnx", GraphOptions())


def test_a_graph_that_asks_for_more_memory_than_there_is_fails_in_one_line(tmp_path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["size"], ["big"]),
        helper.make_node("ReduceSum", ["big"], ["sum"], keepdims=0),
        helper.make_node("Add", ["z", "sum"], ["images"]),
    ]
    tensors = [("size", np.array([10**15]))]
    path = graph_of(tmp_path / "g.onnx", nodes, [("z", FLOAT, ("n", Z))], shape=("n", Z), tensors=tensors)
    with pytest.raises(UserError, match=r"g\.onnx failed: .*ConstantOfShape"):
        OnnxGenerator(path, GraphOptions()).shape  # noqa: B018


def test_a_graph_of_torch_gives_the_images_of_torch(tmp_path) -> None:
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.ConvTranspose2d(Z, 8, 4), torch.nn.ReLU(),
        torch.nn.ConvTranspose2d(8, 3, 4, stride=2, padding=1), torch.nn.Tanh(),
    ).eval()  # fmt: skip
    path = tmp_path / "dcgan.onnx"
    axes = {"z": {0: "n"}, "images": {0: "n"}}
    torch.onnx.export(
        net, (torch.zeros(2, Z, 1, 1),), str(path), dynamo=False, input_names=["z"],
        output_names=["images"], dynamic_axes=axes,
    )  # fmt: skip
    source = OnnxSource(OnnxGenerator(path, GraphOptions()), seed=0, channels=3)
    with torch.no_grad():
        wanted = to_uint8(net(torch.from_numpy(latents(range(5)))[:, :, None, None]))
    assert close(source.images(range(5)), wanted)


def test_without_the_package_the_command_that_installs_it_is_named(tmp_path, monkeypatch) -> None:
    path = linear_graph(tmp_path / "g.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(UsageError, match=r"g\.onnx needs onnxruntime: pip install 'fact-stylegan\[onnx\]'"):
        OnnxGenerator(path, GraphOptions())
    with pytest.raises(UsageError, match="fact-stylegan"):
        need("onnxruntime", "onnx", "x")


# The command


@pytest.fixture
def call(capfd, monkeypatch, tmp_path):
    monkeypatch.setattr(fact_metrics.registry, "FAMILIES", {})
    monkeypatch.setenv("FACT_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    register_toys()
    names = ("toy_distance", "toy_sharpness", "toy_path")
    monkeypatch.setattr(columns, "COLUMNS", tuple(columns.Column(name, name) for name in names))

    def run(*argv):
        device = ["--device", "cpu"] if argv[0] == "run" else []
        code = cli._run([*map(str, argv), *device])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def test_a_graph_is_scored_by_every_metric_of_images(tmp_path, data, call) -> None:
    path = linear_graph(tmp_path / "g.onnx")
    code, _, err = call("run", path, "--data", data, "--z-dim", Z, "--seeds", "0,1")
    assert code == 0 and "left out: toy_path needs a generator" in err, err
    records = read_records(tmp_path / "runs" / "imported-g" / RESULTS)
    assert {(r.metric, r.seed, r.status) for r in records} == {
        (name, seed, "ok") for name in ("toy_distance", "toy_sharpness") for seed in (0, 1)
    }
    record = next(r for r in records if (r.metric, r.seed) == ("toy_distance", 1))
    pixels = get_detector("pixels")
    real, made = pixels(open_dataset(data).images(range(40))), pixels(expected(range(COUNT), seed=1))
    value = (made.mean(0) - real.mean(0)).norm().item()
    assert record.value == pytest.approx(value, rel=1e-3)  # a few pixels differ by one grey level of 256
    assert record.source == "imported" and record.label == "g (imported from ONNX)"
    about = record.training["imported"]
    assert about["z"] == "normal" and about["z_dim"] == Z and len(about["graph"]) == 64
    code, _, err = call("run", path, "--data", data, "--z-dim", Z, "--seeds", "0,1")
    assert code == 0 and "nothing left to do" in err
    code, _, err = call("run", path, "--data", data, "--z", "uniform")
    assert code == 0 and "2 records written" in err


def test_the_command_refuses_what_has_no_effect_or_does_not_fit(tmp_path, data, call) -> None:
    path = linear_graph(tmp_path / "g.onnx")
    assert "g.onnx does not say where its training images are; add --data" in call("run", path)[2]
    code, _, err = call("run", tmp_path, "--z-dim", "3")
    assert code == 2 and "--z-dim is for ONNX files" in err
    code, _, err = call("run", "nowhere.onnx", "--data", data)
    assert code == 2 and "nowhere.onnx does not exist" in err
    other = linear_graph(tmp_path / "o.onnx", layout=(1, 16, 4))
    code, _, err = call("run", other, "--data", data)
    assert code == 1 and "makes 16x4 images (height x width), toy is 8x8" in err
    labelled = linear_graph(tmp_path / "c.onnx", label="vector")
    plain = make_data(tmp_path / "plain")
    code, _, err = call("run", labelled, "--data", plain)
    assert code == 1 and "choose --labels uniform or a class" in err
    assert call("run", labelled, "--data", plain, "--labels", "uniform")[0] == 0


# Export

VECTORS = {"injection": "vectors", "style_vectors": 8}
EXPORTED = {
    "skip": {},
    "resnet": {"g_arch": "resnet", "conv_clamp": 256.0},
    "orig": {"g_arch": "orig", "noise": "const", "map_depth": 2},
    "conditional": {"cond": True},
    "adain": {"injection": "adain"},
    "adaconv": {"injection": "adaconv", "adaconv_groups": 2},
    "vectors": {"injection": "vectors", "style_vectors": 2, "latent_norm": "joint", "torgb_style": "first"},
    "z per layer": {**VECTORS, "latent_space": "w_plus", "style_mixing_prob": 0.0},
    "matrix": {"injection": "matrix", "style_vectors": 8, "matrix_centre": True, "fused_modconv": "never"},
    "3x3 matrix": {"injection": "matrix", "style_vectors": 8, "style_kernel": 3, "fused_modconv": "never"},
    "no noise": {"noise": "off", "fused_modconv": "always"},
}


@pytest.mark.parametrize("kind", EXPORTED)
def test_an_exported_generator_computes_what_torch_does(tmp_path, data, kind: str) -> None:
    run = make_run(tmp_path, data, **EXPORTED[kind])
    snapshot = load_snapshot(list_snapshots(run)[-1])
    snapshot.G.mapping.w_avg.copy_(torch.linspace(-1, 1, 8))
    out = tmp_path / "g.onnx"
    assert export_onnx(snapshot, out, psi=0.7) <= 1e-4
    session = onnxruntime.InferenceSession(out.read_bytes(), providers=["CPUExecutionProvider"])
    z = torch.randn(5, *snapshot.G.z_shape, generator=torch.Generator().manual_seed(7))
    c = torch.eye(3)[[0, 1, 2, 2, 1]] if snapshot.G.c_dim else None
    feeds = {"z": z.numpy(), **({} if c is None else {"c": c.numpy()})}
    (made,) = session.run(None, feeds)
    mode = "off" if snapshot.G.synthesis.noise == "off" else "const"
    wanted = snapshot.G(z, c, 0.7, noise_mode=mode)
    # The bound; images are of order one.
    assert (torch.from_numpy(made) - wanted).abs().max() <= 1e-4 * max(1, wanted.abs().max())
    assert (wanted - snapshot.G(z, c, 1.0, noise_mode=mode)).abs().max() > 1e-2
    about = {entry.key: entry.value for entry in onnx.load(str(out)).metadata_props}
    assert about["snapshot_sha256"] == snapshot.sha256 and about["truncation_psi"] == "0.7"


def test_an_exported_generator_is_scored_as_its_snapshot(tmp_path, data) -> None:
    run = make_run(tmp_path, data, noise="const")
    snapshot = load_snapshot(list_snapshots(run)[-1])
    export_onnx(snapshot, tmp_path / "g.onnx")
    made = source_of(tmp_path / "g.onnx", seed=1).images(range(9))
    assert close(made, GeneratorSource(snapshot, seed=1).images(range(9)))


def test_an_imported_generator_is_exported_too(tmp_path) -> None:
    cfg, G, D = toy_networks(classes=3, g_arch="resnet", conv_clamp=256.0)
    path = write_pickle(tmp_path / "ada.pkl", stylegan2_ada(cfg, G, D), protocol=4)
    assert cli._run(["export", str(path), "--out", str(tmp_path / "g.onnx")]) == 0
    session = onnxruntime.InferenceSession((tmp_path / "g.onnx").read_bytes())
    z, c = torch.randn(2, *G.z_shape, generator=torch.Generator().manual_seed(1)), torch.eye(3)[:2]
    (made,) = session.run(None, {"z": z.numpy(), "c": c.numpy()})
    torch.testing.assert_close(torch.from_numpy(made), G(z, c, noise_mode="const"), atol=1e-4, rtol=1e-4)


def test_an_export_that_onnxruntime_computes_otherwise_is_not_written(tmp_path, data, monkeypatch) -> None:
    snapshot = load_snapshot(list_snapshots(make_run(tmp_path, data))[-1])
    monkeypatch.setattr(onnx_export._Graph, "as_scored", lambda self, z: self.G(z, noise_mode="const") + 1)
    with pytest.raises(UserError, match=r"differ from torch by 0\.\d+, more than 0\.0001"):
        export_onnx(snapshot, tmp_path / "g.onnx")
    assert not (tmp_path / "g.onnx").exists()


def test_a_network_without_an_onnx_form_is_refused(tmp_path, data, monkeypatch) -> None:
    def unsupported(*_, **__):
        raise torch.onnx.errors.UnsupportedOperatorError("aten::fold", 17, None)

    monkeypatch.setattr(torch.onnx, "export", unsupported)
    snapshot = load_snapshot(list_snapshots(make_run(tmp_path, data))[-1])
    with pytest.raises(UserError, match=r"\(--injection modconv\) has no ONNX form: .*aten::fold"):
        export_onnx(snapshot, tmp_path / "g.onnx")
    assert not (tmp_path / "g.onnx").exists()


def test_the_export_command_writes_a_graph_of_the_latest_snapshot(tmp_path, data, call) -> None:
    run = make_run(tmp_path, data)
    code, out, err = call("export", run, "--out", tmp_path / "g.onnx")
    assert (code, out.strip()) == (0, str(tmp_path / "g.onnx")) and "input z [N, 8]" in err
    code, _, err = call("export", run, "--out", tmp_path / "g.pt")
    assert code == 2 and "must end in .onnx" in err


def test_options_are_part_of_the_cache_key(tmp_path) -> None:
    path = linear_graph(tmp_path / "g.onnx")
    first = source_of(path).describe()
    for field in dataclasses.fields(GraphOptions):
        value = {"z_dim": Z, "z": "uniform", "labels": None, "pixel_range": "byte"}[field.name]
        if value is not None and field.name != "z_dim":
            assert source_of(path, **{field.name: value}).describe() != first
