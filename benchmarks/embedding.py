"""Measure embedding: workers on one shard, decoding ahead of the model, and JPEGs decoded at a reduced size.

    python benchmarks/embedding.py --data FOLDER --parts folder tar table ahead reduced

FOLDER has FairFace: train96-00000.tar (2,000 faces of 96 pixels) and val/ (faces of 224 pixels). The model is ViT-B/32
with random weights, loaded as any file of weights. Each part is one run in which the variants take turns. Parts that
are not named keep their figures in the results.

- folder, tar, table: seconds to embed one folder of 300, one tar of 2,000 and one Parquet file of 2,000 pictures, by
  one worker and by two. Workers have started and loaded the model. Their files must be the same. Where other programs
  use the machine, the seconds of the processor count: those of the busier worker bound how fast two can be.
- ahead: pictures per second of one worker without and with a thread that decodes, and the rate that the bare forward
  pass and the bare decoding allow one after the other, at 96, 224 and 4,000 pixels.
- reduced: seconds to decode and prepare JPEGs of 12 megapixels at their full and at a reduced size, and the cosines
  between the vectors of both: of faces that were scaled up, and of the photographs in --photographs (scikit-image's).
- dtype: seconds of a batch in float32 and bfloat16; of faces by the built-in encoder, the cosines between their vectors
  in both, and the share of rows whose decision changes (semdedup, half is kept), beside that of another seed.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from embedding_quality import BATCH, LARGE, MODEL, enlarge, load, measure_dtype, measure_reduced, rate
from results_file import RESULTS, command_line, describe_hardware, write_results

WHAT = (
    "Embedding by ViT-B/32 with random weights: seconds and pictures per second, medians of repeats in turn; cosines "
    "of vectors of JPEGs at a reduced size to those at their full size"
)
PARTS = ("folder", "tar", "table", "ahead", "reduced", "dtype")


def read_faces(tar: Path, most: int) -> dict[str, bytes]:
    """Return the first JPEG files of a tar, by their names."""
    found: dict[str, bytes] = {}
    with tarfile.open(tar) as archive:
        for member in archive:
            if member.name.endswith(".jpg") and len(found) < most:
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
    return found


def write_input(kind: str, folder: Path, faces: dict[str, bytes]) -> Path:
    """Write faces as one folder, one tar or one Parquet file, and return its path."""
    folder.mkdir()
    if kind == "folder":
        for name, data in list(faces.items())[:300]:
            (folder / name).write_bytes(data)
        return folder
    if kind == "tar":
        with tarfile.open(folder / "faces.tar", "w") as archive:
            for name, data in faces.items():
                header = tarfile.TarInfo(name)
                header.size = len(data)
                archive.addfile(header, io.BytesIO(data))
        return folder / "faces.tar"
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"key": list(faces), "image": list(faces.values())})
    pq.write_table(table, folder / "faces.parquet", row_group_size=len(faces))
    return folder / "faces.parquet"


def write_weights(file: Path) -> None:
    """Write random weights of the model."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    save_file(open_clip.create_model(MODEL).state_dict(), file)


def warm_up(weights: Path, dtype: str) -> None:
    """Load the model on a worker, and keep the worker for a moment, so that each worker gets one of these tasks."""
    from PIL import Image

    from fairdedup.encoders import load_encoder

    load_encoder(load(weights, dtype)).encode_images([Image.new("RGB", (96, 96))] * BATCH)
    time.sleep(2)


def processor_seconds(workers: Any) -> dict[str, float]:
    """Return the seconds that the processor has worked for each worker, by its address."""
    return workers._client.run(time.process_time)


def measure_workers(kind: str, faces: dict[str, bytes], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Return the seconds in which one and two workers embed an input that is one shard, and check that files agree."""
    from fairdedup.commands.embed import embed_run
    from fairdedup.config import RunConfig
    from fairdedup.progress import StageProgress
    from fairdedup.tasks import Task
    from fairdedup.workers import Workers

    source, weights = write_input(kind, folder / kind, faces), folder / "w.safetensors"
    seconds: dict[int, list[float]] = {1: [], 2: []}
    processor: dict[int, list[float]] = {1: [], 2: []}
    files: set[tuple[bytes, ...]] = set()
    progress = StageProgress(quiet=True)
    with Workers(progress, workers=1) as one, Workers(progress, workers=2) as two:
        for number, workers in ((1, one), (2, two)):
            workers.submit("warm up", warm_up, [Task((weights, args.dtype))] * number)
        for repeat in range(args.repeats):
            for number, workers in ((1, one), (2, two)):
                out = folder / f"{kind}-{repeat}-{number}"
                options = {"model": MODEL, "pretrained": str(weights), "batch_size": BATCH, "dtype": args.dtype}
                config = RunConfig(input=str(source), out=out, device="cpu", decoders=0, **options)
                before, started = processor_seconds(workers), time.perf_counter()
                embedded = embed_run(config, workers)
                seconds[number].append(time.perf_counter() - started)
                after = processor_seconds(workers)
                processor[number].append(max(after[name] - before[name] for name in after))
                files.add(tuple(file.read_bytes() for file in sorted((out / "embeddings" / "img_emb").iterdir())))
                shutil.rmtree(out)
                print(kind, number, round(seconds[number][-1], 2), round(processor[number][-1], 2), flush=True)
    pairs = [a / b for a, b in zip(seconds[1], seconds[2], strict=True)]
    by_processor = [a / b for a, b in zip(processor[1], processor[2], strict=True)]
    return {
        "pictures": embedded.input,
        "dtype": args.dtype,
        "repeats": args.repeats,
        "seconds by one worker": round(float(np.median(seconds[1])), 3),
        "seconds by two workers": round(float(np.median(seconds[2])), 3),
        "seconds of the processor by one worker": round(float(np.median(processor[1])), 3),
        "seconds of the processor by the busier of two workers": round(float(np.median(processor[2])), 3),
        "times as fast by seconds of the processor": round(float(np.median(by_processor)), 3),
        "times as fast by seconds of the processor, each repeat": [round(pair, 3) for pair in by_processor],
        "times as fast": round(float(np.median(pairs)), 3),
        "times as fast, each repeat": [round(pair, 3) for pair in pairs],
        "same bytes": len(files) == 1,
    }


def measure_ahead(side: int, files: list[bytes], spec: Any, repeats: int) -> dict[str, Any]:
    """Return the rates of the embedding task without and with a thread that decodes, and what bounds them."""
    from fairdedup.datasets import Sample
    from fairdedup.datasets.decoders import open_decoder
    from fairdedup.encoders.batch_encoder import BatchEncoder
    from fairdedup.stages.embedding.image_rows import embed_rows
    from fairdedup.storage.shared_vectors import Copies

    forward = BatchEncoder(spec)
    decoder = open_decoder(forward.prepare, 65535, forward.detail, isolated=False)
    prepared = [decoder.load(data).value for data in files[:BATCH]]

    def encode() -> None:
        bare = BatchEncoder(spec)
        for _ in range(len(files) // BATCH):
            for each in prepared:
                bare.add(each)

    def embed(threads: int) -> None:
        samples = (Sample(k, str(k), data) for k, data in enumerate(files))
        own = BatchEncoder(spec)
        embed_rows(samples, own, decoder, Copies(), {}, start=0, threads=threads, report=lambda rows: None)

    rates: dict[str, list[float]] = {"forward": [], "decode": [], "no thread": [], "one thread": []}
    encode()
    for _ in range(repeats):
        rates["forward"].append(rate(encode, len(files) // BATCH * BATCH))
        rates["decode"].append(rate(lambda: [decoder.load(data) for data in files], len(files)))
        rates["no thread"].append(rate(lambda: embed(0), len(files)))
        rates["one thread"].append(rate(lambda: embed(1), len(files)))
    own = {name: np.array(values) for name, values in rates.items()}
    bound = 1 / (1 / own["forward"] + 1 / own["decode"])
    return {
        "side": side,
        "pictures": len(files),
        "pictures per second": {name: round(float(np.median(values)), 2) for name, values in own.items()},
        "one after the other": round(float(np.median(bound)), 2),
        "no thread, share of it": round(float(np.median(own["no thread"] / bound)), 3),
        "one thread, share of it": round(float(np.median(own["one thread"] / bound)), 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of FairFace")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="for folder, tar and table")
    parser.add_argument("--large", type=int, default=200, help="faces that are scaled up")
    parser.add_argument("--photographs", type=Path, help="folder of photographs to compare at both sizes as well")
    parser.add_argument("--note", default="", help="what a reader should know about the machine")
    parser.add_argument("--out", type=Path, default=RESULTS / "embedding.json")
    args = parser.parse_args()
    from fairdedup.encoders import builtin_spec

    known = json.loads(args.out.read_text()) if args.out.exists() else {}
    figures = {part: {"hardware": known["hardware"], **known[part]} for part in PARTS if part in known}
    val = [file.read_bytes() for file in sorted((args.data / "val").glob("*.jpg"))]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        faces = read_faces(args.data / "train96-00000.tar", 2000)
        write_weights(folder / "w.safetensors")
        for part in ("folder", "tar", "table"):
            if part in args.parts:
                figures[part] = measure_workers(part, faces, folder, args)
        if "ahead" in args.parts or "reduced" in args.parts:
            spec = load(folder / "w.safetensors", "float32")
        if "ahead" in args.parts:
            inputs = {96: list(faces.values())[:64], 224: val[:64]}
            inputs[4000] = [enlarge(data, LARGE) for data in val[:BATCH]]
            measured = [measure_ahead(side, own, spec, args.repeats) for side, own in inputs.items()]
            figures["ahead"] = {"repeats": args.repeats, "by side": measured}
        if "reduced" in args.parts:
            found = sorted(args.photographs.iterdir()) if args.photographs else []
            photographs = [file.read_bytes() for file in found if file.suffix in (".jpg", ".jpeg", ".png")]
            small = builtin_spec(batch_size=BATCH, device="cpu", dtype="float32", threads=1)
            specs = {MODEL: spec, small.model: small}
            figures["reduced"] = measure_reduced(val[: args.large], photographs, specs, args.repeats)
        if "dtype" in args.parts:
            figures["dtype"] = measure_dtype(val, folder / "w.safetensors", args.repeats)
    for part in args.parts:
        figures[part] |= {"command": command_line(), "hardware": describe_hardware(threads=1)}
        figures[part] |= {"note": args.note} if args.note else {}
    write_results(
        args.out, figures, what=WHAT, seed=0, threads=1, packages=("numpy", "torch", "open_clip_torch", "pillow")
    )
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
