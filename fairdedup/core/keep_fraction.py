"""From a fraction to an exact count: how many rows to keep, which fractions work, and which rows to re-admit."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fairdedup.core.similarity import EPS_UNIT, MAX_EPS, quantised
from fairdedup.errors import UserError, format_count


def check_amount(keep: float | None, at_most: float | None, eps: float | None) -> None:
    """Refuse an amount to keep that is not given, or given in several ways.

    Parameters
    ----------
    keep, at_most, eps : float or None
        What is given, whatever its value.

    Raises
    ------
    UserError
        Unless exactly one is given.
    """
    given = sum(value is not None for value in (keep, at_most, eps))
    if given != 1:
        raise UserError(f"{given} of `keep`, `at_most` and `eps` are given: give exactly one, such as `keep=0.5`")


def kept_target(fraction: float, valid: int, parameter: str = "keep") -> int:
    """Return K = floor(F N + 0.5), the number of samples to keep.

    Parameters
    ----------
    fraction : float
        F, in (0, 1].
    valid : int
        N, the number of valid rows.
    parameter : {"keep", "at_most"}
        Name of the fraction, for the message.

    Raises
    ------
    UserError
        If the fraction is not in (0, 1].
    """
    if not 0 < fraction <= 1:
        percent = f" for {fraction:g} %" if 2 <= fraction <= 100 else ""
        remedy = f"`{parameter}={fraction / 100 if percent else 0.5:g}`{percent}"
        raise UserError(f"`{parameter}` must be in (0, 1]; got {fraction:g}: give a fraction, such as {remedy}")
    return math.floor(float(fraction) * valid + 0.5)


def count_kept(fraction: float | None, valid: int) -> int | None:
    """Return how many rows a fraction keeps, for a message; None if there is no fraction, or not one in (0, 1].

    Parameters
    ----------
    fraction : float or None
        Fraction to keep.
    valid : int
        Number of valid rows.
    """
    return None if fraction is None or not 0 < fraction <= 1 else kept_target(fraction, valid)


def swept_target(target: int, valid: int, reserve: float, least: int) -> int:
    """Return how many of K samples the sweep should keep: all but the reserved seats, and at least `least`.

    Parameters
    ----------
    target : int
        K, the number of samples to keep.
    valid : int
        Number of valid rows.
    reserve : float
        Share of K that is reserved; 0 to 0.3.
    least : int
        Number of rows that every eps keeps.
    """
    return target if target >= valid or not reserve else max(least, math.floor(target * (1 - reserve) + 0.5))


def smallest_fraction(least: int, valid: int) -> float:
    """Return the smallest fraction, to 6 decimals, that keeps at least `least` rows.

    Parameters
    ----------
    least : int
        Number of rows that must be kept.
    valid : int
        Number of valid rows, at least 1.
    """
    steps = math.ceil((least - 0.5) / valid * 1e6)
    while kept_target(steps / 1e6, valid) < least:
        steps += 1
    return steps / 1e6


def shortest_fraction(target: int, valid: int) -> str:
    """Return the fraction with the fewest decimals, at least 4 significant ones, that keeps exactly `target` rows.

    Parameters
    ----------
    target : int
        Number of rows to keep, at least 1.
    valid : int
        Number of valid rows.
    """
    texts = (f"{target / valid:.{digits}g}" for digits in range(4, 17))
    return next((text for text in texts if kept_target(float(text), valid) == target), repr(target / valid))


def check_target(
    fraction: float, valid: int, clusters: int, protected: int = 0, parameter: str = "keep", *, within: bool = False
) -> None:
    """Refuse a fraction that is too small: every eps keeps at least one row of each cluster, and the protected rows.

    Parameters
    ----------
    fraction : float
        Fraction of the valid rows to keep, in (0, 1].
    valid : int
        Number of valid rows.
    clusters : int
        Number of clusters without a protected row; 0 for a rule without eps.
    protected : int
        Number of protected rows.
    parameter : {"keep", "at_most"}
        Name of the fraction, for the message.
    within : bool
        Whether `clusters` counts each value of the column `within` in each cluster.

    Raises
    ------
    UserError
        If the fraction is too small; the message names the smallest one that works.
    """
    target, least = kept_target(fraction, valid, parameter), max(1, clusters + protected)
    if target >= least:
        return
    what = f"`{parameter}={fraction:g}` of {format_count(valid, 'row')} is"
    noun = "value of `within` in a cluster" if within else "cluster"
    groups = format_count(clusters, noun, "values of `within` in their clusters" if within else "")
    remedy = f"give at least `{parameter}={smallest_fraction(least, valid):g}`"
    if protected:
        one_each = f" and one for each of the {groups} without any" if clusters else ""
        raise UserError(
            f"{what} {target}, fewer than the {format_count(protected, 'row')} always kept{one_each}: {remedy}"
        )
    if clusters:
        raise UserError(f"{what} {target}, fewer than one for each of {groups}: {remedy} or use fewer clusters")
    raise UserError(f"{what} none: {remedy}")


def parse_eps(eps: float, parameter: str = "eps") -> int:
    """Return eps as an integer number of ten-thousandths.

    Parameters
    ----------
    eps : float
        0 to 2.0001; a whole number of ten-thousandths.
    parameter : {"eps", "exclude_near_eps"}
        Name of the eps, for the message.

    Raises
    ------
    UserError
        If it is out of range, or is not a whole number of ten-thousandths.
    """
    value = float(str(eps) if isinstance(eps, np.floating) else eps)  # float32(0.3) means 0.3
    units = round(value * EPS_UNIT) if math.isfinite(value) else -1
    if value < 0 or not 0 <= units <= MAX_EPS:
        raise UserError(f"`{parameter}` must be 0 (removes nothing) to 2; got {value:g}. Try `{parameter}=0.05`")
    if abs(units / EPS_UNIT - value) > 1e-9:
        other = units + 1 if value * EPS_UNIT > units else units - 1
        near = (units, other) if units else (other, units)  # 0 removes nothing, so it is the last that is meant
        nearest = [f"`{parameter}={k / EPS_UNIT:g}`" + " (removes nothing)" * (k == 0) for k in near]
        raise UserError(
            f"`{parameter}={value!r}` is not a whole number of ten-thousandths: give {nearest[0]} or {nearest[1]}, the "
            "nearest values on the grid of 0.0001"
        )
    return units


def readmit(rows: NDArray[np.int64], similarity: NDArray[np.float64], number: int) -> NDArray[np.int64]:
    """Return the removed rows to re-admit: least similar to their representative first, then lowest row.

    Parameters
    ----------
    rows : ndarray of shape (r,), int64
        The removed rows.
    similarity : ndarray of shape (r,), float64
        Cosine to their representatives.
    number : int
        Number of rows to re-admit.
    """
    return rows[np.lexsort((rows, quantised(similarity)))[:number]]


def check_cap(at_most: float, valid: int, least: int, *, within: bool = False) -> int:
    """Return the number of rows that a cap allows among new rows; refuse a cap below what every eps keeps of them.

    Parameters
    ----------
    at_most : float
        Fraction of the new rows to keep at most, in (0, 1].
    valid : int
        Number of new rows that are valid.
    least : int
        Number of them that every eps keeps.
    within : bool
        Whether rows are compared only where the values of a column are equal.

    Raises
    ------
    UserError
        If the cap is too small; the message names the smallest one that works.
    """
    most = kept_target(at_most, valid, "at_most")
    if most < least:
        each = "cluster, and value of `within` there," if within else "cluster"
        raise UserError(
            f"`at_most={at_most:g}` of {format_count(valid, 'new row')} is {most}, and every eps keeps at least "
            f"{least} (rows always kept, and one for each {each} in which earlier runs kept nothing): "
            f"give at least `at_most={smallest_fraction(least, valid):g}`"
        )
    return most
