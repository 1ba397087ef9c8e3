"""Chebyshev expansions of expected purchases in scaled time, summed over many horizons at the price of one.

What a customer who is alive is expected to buy until a horizon t depends on T only through w = t / (alpha + T). A
smooth function of log(1 + w) is expanded once for each frequency; for a given T, the weighted sum over all horizons is
then one dot product with the expansion, and over all frequencies and all T one product of two matrices.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from app.analytics.fit import FloatArray, IntArray
from app.analytics.grouping import DENSE_CELLS, distinct

TABLE_AGES = 20_000
ROWS = 8192
FIGURES_AT_ONCE = 2**20


def evaluate_expansions(
    expansion: FloatArray,
    row: IntArray,
    T: FloatArray,
    alpha: float,
    span: float,
    horizons: FloatArray,
    coefficients: FloatArray,
) -> FloatArray:
    """Return for each customer sum_j coefficients_j w_j f(log(1 + w_j)), w_j = horizons_j / (alpha + T), shape (n, m).

    Parameters
    ----------
    expansion : array, shape (u, k)
        Chebyshev coefficients of functions f over [0, span].
    row : array of int, shape (n,)
        The function of each customer.
    T : array, shape (n,)
    alpha, span : float
        span >= log(1 + max(horizons) / alpha).
    horizons : array, shape (h,)
    coefficients : array, shape (h, m)
    """
    T_values, T_index = distinct(T)
    if len(T_values) <= TABLE_AGES and len(expansion) * len(T_values) <= DENSE_CELLS:
        basis = _basis(T_values, alpha, span, horizons, coefficients, expansion.shape[1])
        table = np.matmul(expansion, basis.transpose(1, 2, 0))
        cell = row * np.int64(len(T_values)) + T_index
        return np.stack([figures.ravel()[cell] for figures in table], axis=1)
    # Fractional days: hardly any two customers share a T, so there is no table to gain from.
    result = np.empty((T.size, coefficients.shape[1]))
    for start in range(0, T.size, ROWS):
        part = slice(start, start + ROWS)
        basis = _basis(T[part], alpha, span, horizons, coefficients, expansion.shape[1])
        np.einsum("nk,nmk->nm", expansion[row[part]], basis, out=result[part])
    return result


@lru_cache(maxsize=16)
def chebyshev(terms: int) -> tuple[FloatArray, FloatArray]:
    """Return the Chebyshev points on [-1, 1] and the matrix from values at them to coefficients."""
    angles = (np.arange(terms) + 0.5) * (np.pi / terms)
    transform = np.cos(np.outer(angles, np.arange(terms))) * (2 / terms)
    transform[:, 0] /= 2
    return np.cos(angles), transform


def _basis(
    T_values: FloatArray,
    alpha: float,
    span: float,
    horizons: FloatArray,
    coefficients: FloatArray,
    terms: int,
) -> FloatArray:
    """Return what to multiply an expansion with for each T, shape (v, m, k)."""
    basis = np.empty((len(T_values), coefficients.shape[1], terms))
    step = max(1, FIGURES_AT_ONCE // (len(horizons) * terms))
    for start in range(0, len(T_values), step):
        part = slice(start, start + step)
        reach = horizons / (alpha + T_values[part, None])
        # At T = 0 the longest horizon is the end of the interval, which rounding may pass by one unit.
        angle = np.arccos(np.minimum(2 / span * np.log1p(reach) - 1, 1.0))
        polynomials = np.cos(angle[:, :, None] * np.arange(terms))
        basis[part] = np.matmul((coefficients.T * reach[:, None, :]), polynomials)
    return basis
