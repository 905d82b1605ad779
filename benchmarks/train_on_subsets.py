r"""Train the same small CLIP on what each rule keeps of one captioned, skewed set of faces, and measure its bias.

    python benchmarks/train_on_subsets.py --encoder fairdedup-small:face-encoder.safetensors --work study \
        --faces 'fairface/train96-{00010..00014}.tar' --held-out fairface/val

docs/model-study.md has the hypotheses. Each seed draws a set, prunes it by every rule and trains a model on every
subset; differences are paired over seeds. What is finished lies in --work, so the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from captioned_faces import OCCUPATIONS, Setting, describe_set
from evaluate_faces import evaluate_vectors
from face_comparison import ATTRIBUTION
from face_subsets import (
    FURTHER,
    LABELS,
    SUBSETS,
    Study,
    choose_subset,
    describe_subset,
    prepare_faces,
    prepare_set,
    read_decoded,
)
from faces import VALUES
from results_file import RESULTS, write_results
from small_clip import Recipe, encode_captions, encode_faces, read_captions, train_clip
from study_estimate import GPU_TFLOPS, estimate
from study_results import sum_up
from subset_jobs import STOPPED, Job, run_jobs

import fairdedup
from fairdedup.errors import UserError
from fairdedup.storage.run_files import atomic_write

WHAT = (
    "a small CLIP trained from scratch on what each rule keeps of a captioned, skewed, duplicated set of faces: "
    "zero-shot accuracy (shares), skew, NDKL (nats) and association gaps (shares) of rankings, on held-out faces, by "
    "seed, and paired differences with 95 % t intervals"
)


def model_file(study: Study, seed: int, name: str) -> Path:
    """Return where a finished model's figures are written."""
    plain = "".join(letter if letter.isalnum() else "-" for letter in name)
    return study.work / "models" / str(seed) / f"{plain}.json"


def count_steps(study: Study, rows: int, of_set: int) -> int:
    """Return the steps of a model: the same for all, or for the same number of epochs as that many of a pruned set."""
    if not study.epochs_equal:
        return study.recipe.steps
    return max(1, round(study.recipe.steps * rows / (study.keep * of_set)))


def train_model(study: Study, seed: int, name: str) -> None:
    """Choose a subset, train a model on it, evaluate it, and write its figures."""
    started = time.perf_counter()
    recipe = study.recipe
    rows, mask = choose_subset(study, seed, name)
    images = np.load(study.set_folder(seed) / "images.npy", mmap_mode="c")
    data, codes = read_captions(rows, recipe, images)
    chosen = np.flatnonzero(mask).astype(np.int64)
    steps = count_steps(study, len(chosen), len(rows))
    model, loss = train_clip(data, codes, chosen, recipe, steps, seed, f"seed {seed}, {name}")
    trained = time.perf_counter()
    pixels, labels, _ = read_decoded(study.work / "held-out")
    evaluation = evaluate_vectors(
        encode_faces(model, pixels, recipe.device),
        lambda captions: encode_captions(model, recipe, captions),
        {a: labels[a].astype(str).to_numpy() for a in VALUES},
        occupations=OCCUPATIONS,
    )
    figures = {
        "seed": seed,
        "name": name,
        "steps": steps,
        "loss": loss,
        "subset": describe_subset(rows, mask),
        "set": describe_set(rows, study.setting),
        "evaluation": evaluation,
        "seconds": {"training": trained - started, "evaluation": time.perf_counter() - trained},
    }
    file = model_file(study, seed, name)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as path:
        path.write_text(json.dumps(figures, indent=1), encoding="utf-8")


def list_jobs(study: Study, seeds: Iterable[int], subsets: Iterable[str]) -> list[Job]:
    """Return what is left to do, seed by seed; a set is drawn ahead of its models."""
    jobs: list[Job] = []
    for seed in seeds:
        missing = [name for name in subsets if not model_file(study, seed, name).is_file()]
        if missing:
            drawn = f"seed {seed}, set"
            jobs.append(Job(drawn, "", prepare_set, (study, seed), counts=False))
            jobs += [Job(f"seed {seed}, {name}", drawn, train_model, (study, seed, name)) for name in missing]
    return jobs


def check_settings(study: Study) -> None:
    """Write the options that models depend on into the work folder, or compare them with those that it has.

    Raises
    ------
    UserError
        If the folder holds a study with other options.
    """
    known = asdict(study)
    del known["work"]
    known["encoder"] = study.spec().identity()
    known["version"] = fairdedup.__version__
    text = json.dumps(known, indent=1)
    file = study.work / "settings.json"
    if file.is_file():
        found = json.loads(file.read_text(encoding="utf-8"))
        for key, value in json.loads(text).items():
            if found.get(key) != value:
                raise UserError(f"{file} has {key} {found.get(key)!r}, not {value!r}: name another folder by --work")
        return
    study.work.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as path:
        path.write_text(text, encoding="utf-8")


def collect(study: Study, seeds: list[int], subsets: list[str]) -> dict[str, Any]:
    """Return the results of all finished models, as the result file has them."""
    models = {
        name: [json.loads(model_file(study, seed, name).read_text(encoding="utf-8")) for seed in seeds]
        for name in subsets
    }
    first = next(iter(models.values()))
    seconds = [one["seconds"]["training"] for own in models.values() for one in own]
    return {
        "data": ATTRIBUTION,
        "seeds": seeds,
        "keep": study.keep,
        "labels": LABELS,
        "setting": asdict(study.setting),
        "recipe": asdict(study.recipe) | {"equal": "epochs" if study.epochs_equal else "steps"},
        "sets": [one["set"] for one in first],
        "held out": first[0]["evaluation"]["faces"],
        **sum_up(models, study.setting),
        "seconds": {"training of a model, median": round(float(np.median(seconds)), 1)},
    }


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faces", nargs="+", default=[], help="labelled faces to draw sets from: shards or folders")
    parser.add_argument("--held-out", help="labelled faces to evaluate on")
    parser.add_argument("--encoder", help="MODEL:WEIGHTS that embeds the sets; it must not know the --faces")
    parser.add_argument("--work", type=Path, help="folder of intermediate files, from which a stopped study goes on")
    parser.add_argument(
        "--subsets", default=",".join(SUBSETS), help=f"names, separated by commas; others are {', '.join(FURTHER)}"
    )
    parser.add_argument("--seeds", type=int, default=5, help="number of seeds, each with a set of its own")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--keep", type=float, default=0.5)
    parser.add_argument("--race", default=Setting.race, choices=VALUES["race"], help="the majority")
    parser.add_argument("--gender", default=Setting.gender, choices=VALUES["gender"], help="the majority")
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="steps of every model")
    parser.add_argument(
        "--epochs-equal", action="store_true", help="train all for the epochs that a pruned set has in --steps"
    )
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--rate", type=float, default=Recipe.rate, help="highest learning rate")
    parser.add_argument("--model", default=Recipe.model, help="model to train: subset-clip, or one of open_clip")
    parser.add_argument("--pixels", type=int, default=Recipe.pixels)
    parser.add_argument("--device", default=Recipe.device, choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default=Recipe.dtype, choices=("bfloat16", "float32"), help="of the image tower")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="models that train at a time")
    parser.add_argument("--out", type=Path, default=RESULTS / "train_on_subsets.json")
    parser.add_argument("--estimate", action="store_true", help="print what it would take, and train nothing")
    parser.add_argument("--gpu-tflops", type=float, default=GPU_TFLOPS, help="sustained rate of a GPU, for --estimate")
    return parser


def check_options(args: argparse.Namespace) -> list[str]:
    """Return the names of the subsets, after checking the options.

    Raises
    ------
    UserError
        If a subset is unknown, a number is too small, or an option is missing.
    """
    subsets = list(dict.fromkeys(name.strip() for name in args.subsets.split(",") if name.strip()))
    unknown = [name for name in subsets if name not in (*SUBSETS, *FURTHER)]
    if unknown or not subsets:
        raise UserError(f"--subsets {args.subsets!r} is unknown: choose among {', '.join((*SUBSETS, *FURTHER))}")
    for option in ("seeds", "steps", "batch", "pixels", "processes"):
        if getattr(args, option) < 1:
            raise UserError(f"--{option} {getattr(args, option)} is too small: give 1 or more")
    if not 0 < args.keep <= 1:
        raise UserError(f"--keep {args.keep:g} is not a fraction: give more than 0, at most 1")
    for option in ("faces", "held_out", "encoder", "work"):
        if not getattr(args, option) and not args.estimate:
            raise UserError(f"--{option.replace('_', '-')} is missing: --help has an example")
    return subsets


def main() -> None:
    args = make_parser().parse_args()
    subsets = check_options(args)
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    recipe = Recipe(args.model, args.pixels, args.steps, args.batch, args.rate, args.device, args.dtype)
    if args.estimate:
        print("\n".join(estimate(recipe, len(subsets) * len(seeds), args.processes, args.gpu_tflops)))
        return
    study = Study(
        args.work,
        tuple(args.faces),
        args.held_out,
        args.encoder,
        Setting(race=args.race, gender=args.gender),
        recipe,
        args.keep,
        args.epochs_equal,
    )
    check_settings(study)
    prepare_faces(study)
    run_jobs(list_jobs(study, seeds, subsets), args.processes)
    packages = ("numpy", "torch", "open_clip_torch")
    figures = collect(study, seeds, subsets)
    write_results(args.out, figures, what=WHAT, seed=args.first_seed, threads=1, packages=packages)
    print(args.out)


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        raise SystemExit(str(error)) from None
    except KeyboardInterrupt:
        raise SystemExit(STOPPED) from None
