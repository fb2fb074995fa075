"""Loading, drawing, importing: what a user does with a finished run."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import dcgan_dist
from dcgan_dist import convert, pictures, sample, train
from dcgan_dist.checkpoints.checkpoint import CheckpointError
from dcgan_dist.config.settings import Config, Model
from dcgan_dist.convert import fill_discriminator, fill_generator, read_arrays
from dcgan_dist.gan.calibrate import calibrate
from dcgan_dist.gan.description import parse_net
from dcgan_dist.gan.model import Discriminator, Generator, build
from dcgan_dist.run_folder import networks
from shards.storage import store
from tests.test_promises import words

AUTHORS = Path(__file__).parent.parent.parent / "shared" / "data" / "dcgan_code_svhn"


@pytest.fixture(scope="module")
def run(rooms16: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert train.main(words(rooms16, out, "--run.checkpoint_steps=10", "--train.ema_decay=0.9")) == 0
    return out


def test_three_lines_load_and_sample(run: Path) -> None:
    g = dcgan_dist.load(str(run))
    drawn = g.sample(5, seed=1)
    assert drawn.shape == (5, 3, 16, 16)
    assert drawn.abs().max() <= 1
    assert torch.equal(drawn, dcgan_dist.load(str(run)).sample(5, seed=1))
    assert not torch.equal(drawn, g.sample(5, seed=2))


def test_a_picture_depends_on_its_noise_alone(run: Path) -> None:
    g = dcgan_dist.load(str(run))
    z = g.noise(10)
    torch.testing.assert_close(g(z)[3:5], g(z[3:5]))
    torch.testing.assert_close(g(z, batch_images=3), g(z))


def test_an_earlier_checkpoint_can_be_asked_for(run: Path) -> None:
    assert dcgan_dist.load(str(run)).step == 20
    assert dcgan_dist.load(str(run), step=10).step == 10
    with pytest.raises(CheckpointError, match="no checkpoint at step 11; there are: 10, 20"):
        dcgan_dist.load(str(run), step=11)


def test_the_command_writes_a_grid(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid.png"
    assert sample.main([str(run), "--images", "6", "--out", str(out)]) == 0
    with Image.open(out) as grid:
        assert grid.size == ((3 * 17 - 1) * 2, (2 * 17 - 1) * 2)
    assert sample.main([str(run), "--images", "6", "--out", str(tmp_path / "x.npy")]) == 0
    assert np.load(tmp_path / "x.npy").shape == (6, 16, 16, 3)
    assert "6 pictures of step 20" in capsys.readouterr().out


def test_the_ending_says_what_is_written(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """An array, and a folder or URL of one file each, of the same pictures; nothing is overwritten."""
    array, folder = tmp_path / "x.npy", tmp_path / "v1.0" / "many"
    assert sample.main([str(run), "--images", "3", "--out", str(array)]) == 0
    drawn = np.load(array, allow_pickle=False)
    assert drawn.shape == (3, 16, 16, 3)
    url = "memory://sampled/many"
    for out in (str(folder), url):
        assert sample.main([str(run), "--images", "3", "--out", out]) == 0
        assert sorted(store.sizes(out)) == ["000000.png", "000001.png", "000002.png"]
        for number, picture in enumerate(drawn):
            read = store.read_bytes(store.join(out, f"{number:06d}.png"))
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(read))), picture)
        capsys.readouterr()
        assert sample.main([str(run), "--out", out]) == 2
        assert capsys.readouterr().err == f"error: {out} is not empty; give a new folder for the pictures\n"
    for out in ("x.gif", "s3://bucket/x.jpeg"):
        with pytest.raises(SystemExit):
            sample.main([str(run), "--out", out])
        assert f"{out} has an unknown ending; there are a grid as .png" in capsys.readouterr().err


def test_a_grid_lays_pictures_row_by_row_with_a_line_between() -> None:
    images = np.stack([np.full((4, 4, 3), value, np.uint8) for value in (10, 20, 30)])
    sheet = pictures.grid(images)
    assert sheet.shape == (9, 9, 3)
    assert [int(sheet[y, x, 0]) for y, x in ((0, 0), (0, 5), (5, 0), (0, 4))] == [10, 20, 30, pictures.LINE]
    assert pictures.grid(images, columns=3).shape == (4, 14, 3)


@pytest.mark.parametrize("where", ["nowhere", ""])
def test_a_folder_that_is_no_run_is_refused_in_one_line(
    tmp_path: Path, where: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sample.main([str(tmp_path / where)]) == 2
    told = capsys.readouterr().err
    assert "is not a run folder" in told
    assert told.count("\n") == 1


def test_calibration_is_the_plain_mean_over_batches_also_with_a_short_last_one() -> None:
    g, d = build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2))
    batches = [torch.randn(n, 3, 16, 16) * n for n in (8, 8, 3)]
    seen: list[torch.Tensor] = []
    d.norms[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach()))
    calibrate(d, batches)
    means = torch.stack([h.mean((0, 2, 3)) for h in seen])
    variances = torch.stack([h.var((0, 2, 3), unbiased=False) for h in seen])
    torch.testing.assert_close(d.norms[0].running_mean, means.mean(0))
    torch.testing.assert_close(d.norms[0].running_var, variances.mean(0))
    assert not d.training
    # Frozen: the neighbours in a batch no longer matter.
    torch.testing.assert_close(d(batches[0])[:2], d(batches[0][:2]), rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="at least one batch"):
        calibrate(g, [])


def theano_arrays(folder: Path, g: Generator, d: Discriminator) -> None:
    """The same weights as the authors' code would have saved them."""
    lists = {
        "gen": [g.project.weight.T, g.project_norm.weight, g.project_norm.bias],
        "discrim": [d.convs[0].weight.flip(2, 3)],
    }
    for conv, norm in zip(g.convs, [*g.norms, None], strict=True):
        lists["gen"] += [conv.weight.flip(2, 3)] + ([norm.weight, norm.bias] if norm else [])
    for conv, norm in zip(d.convs[1:], d.norms, strict=True):
        lists["discrim"] += [conv.weight.flip(2, 3), norm.weight, norm.bias]
    lists["discrim"].append(d.logit.weight.T)
    for part, arrays in lists.items():
        for number, array in enumerate(arrays, start=1):
            np.save(folder / f"9_{part}_params.jl_{number:02}.npy", array.detach().numpy())


def test_the_authors_arrays_become_a_run_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    g, d = build(parse_net("tiny16"), norm_eps=1e-8, seeds=(1, 2))
    theano_arrays(tmp_path, g, d)
    out = str(tmp_path / "run")
    assert convert.main(["dcgan-code", str(tmp_path), out, "--net", "tiny16"]) == 0
    loaded = dcgan_dist.load(out)
    for name, value in g.named_parameters():
        assert torch.equal(loaded.generator.get_parameter(name), value), name
    assert loaded.sample(2).shape == (2, 3, 16, 16)
    # Arrays of another network, or with one missing, are refused.
    capsys.readouterr()
    assert convert.main(["dcgan-code", str(tmp_path), str(tmp_path / "x"), "--net", "small32"]) == 2
    assert "check --net" in capsys.readouterr().err
    (tmp_path / "9_gen_params.jl_03.npy").unlink()
    assert convert.main(["dcgan-code", str(tmp_path), str(tmp_path / "x"), "--net", "tiny16"]) == 2
    assert "some are missing" in capsys.readouterr().err
    assert convert.main(["dcgan-code", str(tmp_path / "none"), str(tmp_path / "x")]) == 2
    assert "no files like" in capsys.readouterr().err


@pytest.mark.parametrize("shape", ["(10000000000000,)", "(-1,)", f"({'9' * 300},)", "()", "(", "1" * 9000])
def test_an_array_whose_header_lies_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], shape: str
) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(9100).encode() + b"\n"
    wrong = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    (tmp_path / "gen_params_01.npy").write_bytes(wrong)
    assert convert.main(["dcgan-code", str(tmp_path), str(tmp_path / "x"), "--net", "tiny16"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"error: {tmp_path}: a gen array cannot be read: ")
    assert told.count("\n") == 1, told


@pytest.mark.skipif(not AUTHORS.is_dir(), reason="the authors' released SVHN arrays are not at hand")
def test_the_authors_svhn_model_gives_its_known_values() -> None:
    net = parse_net("svhn32")
    g, d = Generator(net, norm_eps=1e-8), Discriminator(net, norm_eps=1e-8)
    fill_generator(g, read_arrays(AUTHORS, "gen"))
    fill_discriminator(d, read_arrays(AUTHORS, "discrim"))
    z = torch.from_numpy(np.random.RandomState(0).randn(128, 100).astype(np.float32))
    with torch.no_grad():
        drawn = g(z)  # batch statistics, as the authors' code
        judged = d(drawn).sigmoid()
    assert drawn.mean().item() == pytest.approx(-0.061828, abs=1e-4)
    assert drawn.std().item() == pytest.approx(0.251529, abs=1e-4)
    assert drawn[0, 0, 0, :4].tolist() == pytest.approx([0.24494, 0.26610, 0.27032, 0.25438], abs=1e-4)
    assert judged.mean().item() == pytest.approx(0.054042, abs=1e-4)
    assert judged[:4].tolist() == pytest.approx([0.18436, 0.01198, 0.01494, 0.00755], abs=1e-4)


def test_a_run_folder_may_be_a_url(rooms16: str) -> None:
    url = "memory://runs/one"
    assert train.main([*words(rooms16, Path("unused"), "--train.steps=4"), f"--run.dir={url}"]) == 0
    assert {"config.yaml", "metrics.jsonl", "real.png"} <= store.sizes(url).keys()
    assert store.sizes(f"{url}/tensorboard")
    assert "step-00000004.png" in store.sizes(f"{url}/samples")
    assert train.main([*words(rooms16, Path("unused"), "--train.steps=6"), f"--run.dir={url}"]) == 0
    assert len(store.read_bytes(f"{url}/metrics.jsonl").splitlines()) == 6
    assert dcgan_dist.load(url).step == 6
    assert not Path("unused").exists()


def test_the_normal_distribution_is_drawn_from_when_the_run_did() -> None:
    sampler = networks.Sampler(
        Generator(parse_net("tiny16"), norm_eps=1e-8), Config(model=Model(net="tiny16", noise="normal")), 0
    )
    assert sampler.noise(1000).abs().max() > 2
