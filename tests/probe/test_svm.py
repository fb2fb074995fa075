"""The L2-SVM is liblinear's, whatever the memory it may use."""

import numpy as np
import pytest
import torch
from sklearn.svm import LinearSVC

from dcgan_dist.probe import svm
from dcgan_dist.probe.kmeans import C_OF_MEAN
from shards.sources.published.digits import Digits


def digits(samples: int) -> tuple[np.ndarray, np.ndarray]:
    items = [Digits().item(position) for position in range(samples)]
    rows = np.stack([np.asarray(item.image)[..., 0].ravel() for item in items]).astype(np.float32) / 255
    return rows, np.array([item.label for item in items], np.int64)


@pytest.mark.parametrize(
    ("samples", "c"), [(300, 0.01), pytest.param(300, 1.0, marks=pytest.mark.slow), (40, 0.1)]
)
def test_weights_are_those_of_scikit_learn(samples: int, c: float) -> None:
    # 40 rows are fewer than the 64 columns: then the rows are turned first
    rows, labels = digits(samples)
    known = LinearSVC(C=c, tol=1e-8, max_iter=100_000).fit(rows, labels)
    w = svm.fit(svm.Rows(rows), labels, classes=10, c=c).numpy()
    np.testing.assert_allclose(w[:, :-1], known.coef_, atol=1e-3)
    np.testing.assert_allclose(w[:, -1], known.intercept_, atol=1e-3)
    assert (svm.predict(svm.Rows(rows), torch.from_numpy(w)) == known.predict(rows)).all()


def test_rows_in_chunks_and_from_a_file_give_the_same(
    tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, labels = digits(200)
    whole = svm.fit(svm.Rows(rows), labels, classes=10, c=0.1)
    monkeypatch.setattr(svm, "CHUNK_BYTES", 30 * 4 * 65)  # 30 rows at a time
    mapped = np.memmap(f"{tmp_path}/rows", np.float32, "w+", shape=rows.shape)
    mapped[:] = rows
    chunked = svm.Rows(mapped)
    assert len(list(chunked._chunks())) == 7
    torch.testing.assert_close(svm.fit(chunked, labels, classes=10, c=0.1), whole, atol=1e-4, rtol=1e-3)


def test_a_start_changes_the_way_and_not_the_end() -> None:
    rows, labels = digits(200)
    first = svm.fit(svm.Rows(rows), labels, classes=10, c=0.01)
    again = svm.fit(svm.Rows(rows), labels, classes=10, c=0.1, start=first)
    torch.testing.assert_close(
        again, svm.fit(svm.Rows(rows), labels, classes=10, c=0.1), atol=1e-4, rtol=1e-3
    )


def test_c_of_a_mean_is_c_over_n_of_a_sum() -> None:
    # Coates: 0.5 |w|^2 + 100 mean(...): its gradient vanishes at our solution for C = 100 / n
    rows, labels = digits(200)
    w = svm.fit(svm.Rows(rows), labels, classes=10, c=C_OF_MEAN / 200).double().requires_grad_()
    x = torch.cat([torch.from_numpy(rows), torch.ones(200, 1)], dim=1).double()
    signs = 2 * torch.nn.functional.one_hot(torch.from_numpy(labels), 10) - 1
    loss = 0.5 * w.square().sum() + C_OF_MEAN * (1 - signs * (x @ w.T)).clamp(min=0).square().mean(0).sum()
    (gradient,) = torch.autograd.grad(loss, w)
    assert gradient.norm() < 1e-3 * w.norm()
