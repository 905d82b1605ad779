"""The configurations of `deduplicate` that are recorded. Only those that train clusters depend on the machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from golden_parts import Parts, parts_of_result
from golden_problems import problem

SHARES = {"age": {"young": 0.2, "middle": 0.2, "old": 0.6}}
TEMPERATURES = {"age": 0.03}


@dataclass(frozen=True)
class Call:
    """A call of `deduplicate`.

    Attributes
    ----------
    problem : str
        Name of the problem.
    options : dict
        Its keyword arguments. `always_keep` of "mask" or "ids" means the problem's protected rows,
        `prototypes="array"` one attribute as an array, and `form` the type of the embeddings.
    """

    problem: str
    options: dict[str, Any]

    @property
    def name(self) -> str:
        words = [self.problem, self.options["rule"]]
        for name, value in self.options.items():
            if name != "rule":
                words.append(name if value is True else f"{name}={'given' if isinstance(value, dict) else value}")
        return "python/" + " ".join(words)

    @property
    def anywhere(self) -> bool:
        """Whether the result is the same on every machine, since no clusters are trained."""
        return "clusters" not in self.options

    def parts(self) -> Parts:
        """Return the parts of the result; an error of the user is a result as well."""
        from fairdedup import UserError, deduplicate

        own, options = problem(self.problem), dict(self.options)
        form = options.pop("form", "numpy")
        x = pa.FixedSizeListArray.from_arrays(own.x.ravel(), own.x.shape[1]) if form == "arrow" else own.x
        x = pd.Series(list(own.x)) if form == "pandas" else x
        if options["rule"] in ("fairdedup", "balanced"):
            array = options.pop("prototypes", None) == "array"
            options["prototypes"] = np.stack(list(own.prototypes["age"].values())[:3]) if array else own.prototypes
        if options["rule"] == "prefer":
            options["prefer"] = own.numbers
        if options.get("always_keep") == "mask":
            options["always_keep"] = own.protected
        elif options.get("always_keep") == "ids":
            names = np.arange(len(own.x)) if own.ids is None else own.ids
            options["always_keep"] = names[own.protected]
        options.setdefault("clusters", own.labels)
        options |= {"reach": 0} if "cover" in options else {"published": True}  # the defaults when it was recorded
        try:
            return parts_of_result(deduplicate(x, ids=own.ids, **options))
        except UserError:
            return {"refused": True}


def calls() -> dict[str, Call]:
    """Return all configurations by name."""
    found: dict[str, Call] = {}

    def add(where: str, rules: str, **options: Any) -> None:
        for words in rules.split():
            rule, _, cover = words.partition("+")
            given = {"rule": rule, **({"cover": True} if cover else {}), **options}
            made = Call(where, given)
            assert made.name not in found, made.name
            found[made.name] = made

    plain = "semdedup fairdedup balanced prefer random-neighbour"
    covered = " ".join(f"{rule}+cover" for rule in plain.split())
    add("plain", f"{plain} {covered} semdedup-chain random", keep=0.5)
    add("plain", "semdedup fairdedup+cover balanced balanced+cover prefer semdedup-chain random", at_most=0.4)
    add("plain", f"{plain} fairdedup+cover semdedup-chain", eps=0.1)
    add("plain", "random random-neighbour+cover", keep=0.3, seed=5)
    add("plain", "fairdedup", keep=1.0)
    add("plain", "fairdedup balanced+cover semdedup-chain", eps=0.0)
    add("plain", "semdedup prefer+cover", eps=2.0001)
    add("offset", f"{plain} balanced+cover fairdedup+cover semdedup-chain", keep=0.4)
    add("ties", f"{plain} {covered} semdedup-chain", keep=0.55)
    add("copies", "semdedup fairdedup+cover balanced semdedup-chain", keep=0.9)
    add("copies", "semdedup random-neighbour+cover balanced", at_most=0.6)
    add("many", "semdedup fairdedup balanced+cover prefer", keep=0.6)
    add("one", "semdedup+cover fairdedup balanced+cover random-neighbour", keep=0.35)
    add("wild", "semdedup fairdedup+cover balanced", keep=0.5)
    for form in ("arrow", "pandas"):
        add("plain", "semdedup", keep=0.6, form=form)
    # Rows that are always kept, and rows that cannot be used.
    add("plain", f"{plain} balanced+cover prefer+cover random", keep=0.5, always_keep="mask")
    add("ties", "semdedup+cover fairdedup balanced", at_most=0.5, always_keep="ids")
    add("many", "random-neighbour+cover fairdedup", eps=0.15, always_keep="ids")
    add("bad", f"{plain} semdedup-chain random", keep=0.5)
    add("bad", "semdedup fairdedup+cover balanced random", keep=0.5, always_keep="ids")
    # Options of `fairdedup` and `balanced`.
    add("plain", "fairdedup fairdedup+cover", keep=0.5, start="zero")
    add("plain", "fairdedup fairdedup+cover", keep=0.5, calibrate="zscore")
    add("offset", "fairdedup", keep=0.5, calibrate="zscore", start="zero", always_keep="mask")
    add("plain", "balanced balanced+cover", keep=0.5, target="data")
    add("plain", "balanced", keep=0.5, target=SHARES)
    add("plain", "balanced", keep=0.5, temperature=0.02)
    add("plain", "balanced+cover", keep=0.5, temperature=TEMPERATURES)
    add("plain", "balanced", keep=0.5, reserve=0.0)
    add("offset", "balanced balanced+cover", keep=0.5, reserve=0.3)
    add("bad", "balanced+cover", keep=0.4, reserve=0.25, target=SHARES, temperature=TEMPERATURES, always_keep="mask")
    add("one", "fairdedup balanced", keep=0.5, prototypes="array")
    # Options that are refused.
    add("many", "semdedup", keep=0.1)
    add("plain", "semdedup-chain", keep=0.5, always_keep="mask")
    add("plain", "random", eps=0.1)
    add("plain", "random+cover semdedup-chain+cover", keep=0.5)
    # Clusters that are trained.
    add("trained", "semdedup fairdedup balanced+cover random", keep=0.5, clusters="auto", device="cpu")
    add("trained", "semdedup+cover fairdedup", at_most=0.5, clusters=7, seed=3, device="cpu")
    return found


def pinned() -> dict[str, Call]:
    """Return the configurations whose results are the same on every machine."""
    return {name: own for name, own in calls().items() if own.anywhere}
