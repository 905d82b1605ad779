"""Every mistake of a user ends with exit code 2 and one line that names the value, the place and a remedy."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from runs import Finished, command, files, picture, raw_vectors, sample, write_tar

from fairdedup import workers

# A case without --scheduler must be refused before workers start: the fixture `no_workers` checks that.
TABLE: dict[str, tuple[str, tuple[str, ...]]] = {
    # The command itself
    "unknown command": ("fly", ("there is no command 'fly'. See fairdedup --help.",)),
    "unknown option": ("run x.npy --kep 0.5", ("No such option '--kep'", "'--keep'", "run --help")),
    "an option without its value": ("sweep images --keep", ("'--keep' requires an argument",)),
    "INPUT twice": ("run x.npy y.npy --keep 0.5", ("INPUT is one; got 2, the second is 'y.npy'.",
                                                  "quote a pattern: 'photos/*.jpg'", "run --help")),
    "RUN twice": ("audit images texts", ("RUN is one; got 2, the second is 'texts'. Name one RUN.",)),
    "an option of several values without one": ("export images", ("Missing option '--to'. Choose from: webdataset,",)),
    "a run as input": ("run $RUN --keep 0.5", ("is a run: `fairdedup prune", "embeddings' are its vectors")),
    "a picture in place of SVG": ("compare $RUN --svg rules.png", ("--svg 'rules.png' must end in .svg", "rules.svg")),
    "a page in place of CSV": ("compare $RUN --csv rules.html", ("--csv 'rules.html' must end in .csv", "rules.csv")),
    "a picture in place of a page": ("explain $RUN --id k0 --html one.png", ("--html 'one.png' must end in .html",)),
    "an unknown rule to compare": ("compare $RUN --rules foo", ("--rules foo is unknown: choose one of",)),
    "no amount": ("run x.npy", ("Give one of --keep, --at-most or --eps, such as --keep 0.5.",)),
    "no amount to prune": ("prune no-run", ("Give one of --keep, --at-most or --eps",)),
    "against nothing": ("run x.npy --against nowhere", ("--against 'nowhere' holds no finished run", "finish it")),
    "keep against a run": ("run x.npy --against $RUN --keep 0.5", ("--keep 0.5 cannot be combined with --against",
                                                                  "--at-most 0.5")),
    "refit nothing": ("refit nowhere --keep 0.5 --out new", ("--against 'nowhere' holds no finished run",)),
    "near what, how near": ("run x.npy --keep 0.5 --rule semdedup --exclude-near x.npy", ("add --exclude-near-eps",)),
    "too near out of range": ("run x.npy --keep 0.5 --rule semdedup --exclude-near x.npy --exclude-near-eps 3",
                              ("--exclude-near-eps must be 0 (removes nothing) to 2; got 3.",
                               "Try --exclude-near-eps 0.05")),
    "too near too precisely": ("run x.npy --keep 0.5 --rule semdedup --exclude-near x.npy --exclude-near-eps 0.05001",
                               ("--exclude-near-eps 0.05001 is not a whole number",
                                "give --exclude-near-eps 0.05")),
    # How much
    "keep 0": ("run x.npy --keep 0", ("--keep must be in (0, 1]; got 0.", "Write a fraction, such as 0.5.")),
    "keep 1.5": ("run x.npy --keep 1.5", ("--keep must be in (0, 1]; got 1.5.", "For 1.5 %, write 0.015.")),
    "keep 50, meant as per cent": ("run x.npy --keep 50",
                                   ("--keep must be in (0, 1]; got 50.", "For 50 %, write 0.5.")),
    "keep a negative share": ("run x.npy --keep -0.5", ("--keep must be in (0, 1]; got -0.5.",)),
    "keep nan": ("run x.npy --keep nan", ("--keep must be in (0, 1]; got nan.",)),
    "keep inf": ("run x.npy --keep inf", ("--keep must be in (0, 1]; got inf. Write a fraction, such as 0.5.",)),
    "keep a word": ("run x.npy --keep half", ("--keep must be a number; got half.", "run --help")),
    "at most 0": ("run x.npy --at-most 0", ("--at-most must be in (0, 1]; got 0.",)),
    "keep with eps": ("run x.npy --keep 0.5 --eps 0.1",
                      ("--keep and --eps exclude each other", "Give one of --keep, --at-most or --eps.")),
    "keep with at-most": ("run x.npy --keep 0.5 --at-most 1", ("--keep and --at-most exclude each other",)),
    "a negative eps": ("run x.npy --eps -1", ("--eps must be between 0 (removes nothing) and 2", "got -1.")),
    "eps 3": ("run x.npy --eps 3", ("--eps must be between 0", "such as 0.05; got 3.")),
    "eps nan": ("run x.npy --eps nan", ("--eps must be between 0", "got nan.")),
    "eps beyond all numbers": ("run x.npy --eps 1e308", ("--eps must be between 0", "got 1e+308.")),
    "eps between two": ("run x.npy --eps 0.00015",
                        ("--eps 0.00015 is not a whole number of ten-thousandths", "give --eps 0.000")),
    "fewer than one per cluster": ("run x.npy --keep 0.01 --clusters 9 --rule semdedup $DASK",
                                   ("--keep 0.01 of 60 rows is 1, fewer than one for each of 9 clusters",
                                    "give at least --keep 0.14",
                                    "fewer clusters")),
    "none at all": ("run x.npy --keep 0.001 --rule random $DASK",
                    ("--keep 0.001 of 60 rows is none: give at least --keep 0.00",)),
    # The rule and its options
    "unknown rule": ("run x.npy --keep 0.5 --rule fairdedupe", ("'--rule'", "'fairdedupe' is not one of 'fairdedup'")),
    "cover with random": ("run x.npy --keep 0.5 --rule random --cover",
                          ("--cover cannot be combined with --rule random", "choose one of fairdedup")),
    "cover with the chain": ("run x.npy --keep 0.5 --rule semdedup-chain --cover",
                             ("--cover cannot be combined with --rule semdedup-chain",)),
    "random with eps": ("run x.npy --eps 0.1 --rule random", ("--rule random has no eps", "--keep or --at-most")),
    "temperature 0": ("run x.npy --keep 0.5 --rule balanced --temperature 0",
                      ("--temperature must be a number above 0, or auto; got 0",)),
    "temperature nan": ("run x.npy --keep 0.5 --temperature nan",
                        ("--temperature must be a number above 0, or auto; got nan",)),
    "temperature abc": ("run x.npy --keep 0.5 --temperature abc",
                        ("--temperature must be a number or auto; got 'abc'.",)),
    "reserve 0.5": ("run x.npy --keep 0.5 --reserve 0.5", ("--reserve must be at most 0.3; got 0.5.",)),
    "reserve nan": ("run x.npy --keep 0.5 --reserve nan", ("--reserve must be", "got nan.")),
    "unknown target": ("run x.npy --keep 0.5 --target equal",
                       ("'--target'", "'equal' is not one of 'uniform', 'data'")),
    "unknown start": ("run x.npy --keep 0.5 --start one", ("'--start'", "'cluster', 'zero'")),
    "unknown calibration": ("run x.npy --keep 0.5 --calibrate z", ("'--calibrate'", "'none', 'zscore'")),
    # Curation
    "prefer without a column": ("run x.npy --keep 0.5 --rule prefer",
                                ("--rule prefer needs --prefer COLUMN.", "such as --prefer width.")),
    "prefer with another rule": ("run x.npy --keep 0.5 --rule semdedup --prefer width",
                                 ("--prefer works only with --rule prefer; got --rule semdedup.",
                                  "Leave one of them out.")),
    "prefer a column of nobody": ("prune $RUN --keep 0.5 --prefer aesthetic $DASK",
                                  ("--prefer 'aesthetic': the metadata has no such column; give one of its columns of "
                                   "numbers: width",)),
    "prefer a column of no table": ("run table.parquet --keep 0.5 --rule prefer --prefer scor",
                                    ("--prefer 'scor': the metadata has no such column", "id, score")),
    "a condition on a column of no table": ("run table.parquet --keep 0.5 --rule semdedup --where 'scor>1'",
                                            ("scor", "id, score")),
    "within a column of no table": ("run table.parquet --keep 0.5 --rule semdedup --within album",
                                    ("--within 'album': the metadata has no such column", "id, score")),
    "prefer words": ("prune $RUN --keep 0.5 --prefer caption $DASK",
                     ("--prefer 'caption' must be a column of numbers, and is string", "width, only here")),
    "a condition that is none": ("run x.npy --keep 0.5 --where width>=",
                                 ("--where 'width>=' is not a condition", "write one as in --where")),
    "no condition": ("run x.npy --keep 0.5 --where ''", ("--where is empty",)),
    "a condition on a column of nobody": ("prune $RUN --keep 0.5 --rule semdedup --where widht>1 $DASK",
                                          ("names column 'widht': the metadata has id, key, caption, width",)),
    "a statement for a condition": ("run x.npy --keep 0.5 --where true;DROP",
                                    ("--where 'true;DROP' is not a condition",)),
    "a condition that reads a file": ("run x.npy --keep 0.5 --where exists(from'texts/a.txt')",
                                      ("uses more than its own row (subquery)",)),
    "a condition that nothing meets": ("prune $RUN --keep 0.5 --rule semdedup --where width<0 $DASK",
                                       ("--where and --drop leave none of 237 rows", "exclude fewer")),
    "no such takedowns": ("run x.npy --keep 0.5 --drop gone.txt", ("--drop 'gone.txt': no such file", ".txt")),
    "takedowns of another kind": ("run x.npy --keep 0.5 --drop bad.pt", ("'bad.pt' is of unknown kind", ".parquet")),
    "ids without a column": ("prune $RUN --keep 0.5 --rule semdedup --drop columns.parquet $DASK",
                             ("'columns.parquet' has columns a", "one named id, uid or key")),
    "ids that are no text": ("prune $RUN --keep 0.5 --rule semdedup --drop bytes.txt $DASK",
                             ("'bytes.txt' cannot be read", "write the file again")),
    "a Parquet file that is none": ("prune $RUN --keep 0.5 --rule semdedup --drop broken.parquet $DASK",
                                    ("'broken.parquet' cannot be read",)),
    "always keep nobody": ("prune $RUN --keep 0.5 --rule semdedup --always-keep texts/a.txt $DASK",
                           ("1 of 1 id is not in the run; the first is 'text'", "give another file")),
    "always keep in a chain": ("run x.npy --keep 0.5 --rule semdedup-chain --always-keep texts/a.txt",
                               ("--always-keep cannot be combined with --rule semdedup-chain",)),
    "replace without a file": ("replace images", ("Missing option '--gone'", "fairdedup replace --help")),
    "replace in no run": ("replace images --gone texts/a.txt", ("images holds no finished run", "fairdedup prune")),
    "replace what no file names": ("replace $RUN --gone gone.txt", ("--gone 'gone.txt': no such file",)),
    "replace by a file of another kind": ("replace $RUN --gone x.npy", ("--gone 'x.npy' is of unknown kind",)),
    "replace by a table without ids": ("replace $RUN --gone columns.parquet",
                                       ("--gone 'columns.parquet' has columns a", "one named id")),
    # Audit
    "audit no run": ("audit images", ("images holds no finished run", "run `fairdedup prune")),
    "audit by no file": ("audit $RUN --labels gone.csv", ("--labels 'gone.csv': no such file", "a column id")),
    "audit by a file of another kind": ("audit $RUN --labels x.npy", ("--labels 'x.npy' is of unknown kind",)),
    "audit by a table without ids": ("audit $RUN --labels columns.parquet",
                                     ("--labels 'columns.parquet' has columns a", "one named id, uid or key")),
    "labels that are no table": ("audit $RUN --labels broken.parquet", ("'broken.parquet' cannot be read",)),
    "labels that are no text": ("audit $RUN --labels bytes.csv", ("'bytes.csv' cannot be read", "the file again")),
    "labels of nothing": ("audit $RUN --labels ids.csv", ("has no column but 'id'", "add one for each attribute")),
    "labels without a line": ("audit $RUN --labels header.csv", ("'header.csv' has no lines",)),
    "labels in an empty file": ("audit $RUN --labels none.csv", ("'none.csv' is empty",)),
    "a label twice": ("audit $RUN --labels twice.csv",
                      ("duplicate id 'k1\\x1b[31m' in line 3", "one line for each")),
    "a label of nobody": ("audit $RUN --labels noid.csv", ("line 3 has no id", "remove the line")),
    "a column twice": ("audit $RUN --labels columns.csv", ("duplicate column 'age'",)),
    "a line that is too long": ("audit $RUN --labels long.csv", ("line 2 has 3 values for 2 columns",)),
    "labels of other people": ("audit $RUN --labels others.csv",
                               ("its only id is not in the run; the first is 'nobody'", "check the column id")),
    "a column of captions": ("audit $RUN --labels wide.csv",
                             ("column 'age' has more than 50 different values", "--attributes a,b")),
    "an attribute that is none": ("audit $RUN --labels one.csv --attributes age,size",
                                  ("no attribute 'size'", "its columns of labels are age")),
    "attributes of nothing": ("audit $RUN --labels one.csv --attributes age,",
                              ("--attributes must be names separated by commas", "such as gender,age; got 'age,'.")),
    "an intersection of one": ("audit $RUN --labels one.csv --intersections age",
                               ("--intersections 'age' crosses nothing", "give two attributes")),
    "an intersection with itself": ("audit $RUN --labels one.csv --intersections age,age", ("crosses nothing",)),
    "an intersection of nobody": ("audit $RUN --labels one.csv --intersections age,size",
                                  ("no attribute 'size': there are age",)),
    "a minimum of none": ("audit $RUN --labels one.csv --min-count 0", ("'--min-count'", "0 is not in the range")),
    "no suggestions": ("audit $RUN --suggest-labels 0", ("'--suggest-labels'", "0 is not in the range")),
    "suggestions into a folder": ("audit $RUN --suggest-labels 3 --out empty",
                                  ("--out 'empty' is a folder", "name a file")),
    "an audit with captions and no model": ("audit $RUN --prototypes blank2.yaml",
                                            ("ready-made embeddings whose model is not known", "give --labels FILE")),
    # Clusters, seed, workers
    "no clusters": ("run x.npy --keep 0.5 --clusters 0", ("--clusters must be at least 1; got 0.",)),
    "a negative number of clusters": ("run x.npy --keep 0.5 --clusters -1",
                                      ("--clusters must be at least 1; got -1.",)),
    "half a cluster": ("run x.npy --keep 0.5 --clusters 1.5",
                       ("--clusters must be a whole number or auto; got '1.5'.",)),
    "clusters as a word": ("run x.npy --keep 0.5 --clusters many",
                           ("--clusters must be a whole number or auto; got 'many'.",)),
    "more clusters than rows": ("run x.npy --keep 0.5 --clusters 1000000000 --rule semdedup $DASK",
                                ("clusters 1000000000 is more than the 60 valid rows",
                                 "at most 30 (one for each of the 30 rows to keep), or auto")),
    "a negative seed": ("run x.npy --keep 0.5 --seed -1", ("--seed must be at least 0; got -1.",)),
    "no workers": ("run x.npy --keep 0.5 --workers 0", ("--workers must be at least 1; got 0.",)),
    "workers of a scheduler": ("run x.npy --keep 0.5 --workers 2 --scheduler tcp://127.0.0.1:1",
                               ("--scheduler and --workers exclude each other", "own workers")),
    "a scheduler that does not answer": ("run x.npy --keep 0.5 --rule semdedup --scheduler tcp://127.0.0.1:1",
                                         ("scheduler 'tcp://127.0.0.1:1' does not answer", "Start `dask scheduler`")),
    "a scheduler that is no address": ("run x.npy --keep 0.5 --rule semdedup --scheduler http://127.0.0.1:1",
                                       ("scheduler 'http://127.0.0.1:1' does not answer", "leave --scheduler out")),
    # INPUT
    "no such input": ("run nowhere --keep 0.5", ("no such file or folder: 'nowhere'", "check the path")),
    "no name": ("run '' --keep 0.5", ("the input is ''", "give a folder")),
    "an empty folder": ("run empty --keep 0.5",
                        ("folder 'empty' holds no files", "with images, img_emb/, tar shards, Parquet files,")),
    "a folder of text": ("run texts --keep 0.5",
                         ("folder 'texts' holds no images, but 1 '.txt'", "give a folder with")),
    "one image": ("run images/a.png --keep 0.5", ("'images/a.png' is a single image", "the folder that contains it")),
    "a file of text": ("run texts/a.txt --keep 0.5", ("'texts/a.txt' is a file of unknown kind", "give a .tar")),
    "shards that are missing": ("run s-{0..2}.tar --keep 0.5",
                                ("s-1.tar' of 's-{0..2}.tar' is missing (1 of 3", "add the shard")),
    "a glob of nothing": ("run q-*.tar --keep 0.5", ("no shard matches 'q-*.tar'", "check")),
    "braces that do not match": ("run s-{0..2.tar --keep 0.5", ("braces in 's-{0..2.tar' do not match",)),
    "a protocol of nobody": ("run s4://x/y --keep 0.5", ("'s4://x/y'", "check the part before '://'")),
    "an npy that needs pickle": ("run objects.npy --keep 0.5",
                                 ("objects.npy' holds Python objects", "pickle", "float")),
    "an npy of one dimension": ("run flat.npy --keep 0.5", ("flat.npy' has shape (16,)", "(rows, dimensions)")),
    "an npy of integers": ("run whole.npy --keep 0.5", ("whole.npy' holds int64", "float16, float32 or float64")),
    "an npy of no rows": ("run none.npy --keep 0.5", ("'none.npy' has no rows",)),
    "an npy that is text": ("run text.npy --keep 0.5", ("text.npy' is not an .npy file", "numpy.save")),
    "ids of another length": ("run short.npy --keep 0.5", ("short.npy' has 60 rows but", "short.ids.txt' has 2")),
    "an img_emb without files": ("run hollow --keep 0.5", ("img_emb of 'hollow' holds no img_emb_0.npy",)),
    "vectors of zeros": ("run zeros.npy --keep 0.5 --rule semdedup $DASK",
                         ("all 5 samples are rejected (5 x vector is zero)", "fix the input")),
    "too much that is bad": ("run nans.npy --keep 0.5 --rule semdedup $DASK",
                             ("30 of 60 samples are rejected", "--max-rejected 0.05", "not finite",
                              "raise --max-rejected")),
    "duplicate ids": ("run twice.npy --keep 0.5 --rule semdedup $DASK",
                             ("duplicate id 'evil\\x1b[31m\\x07' in ", "twice.npy-00000", "make ids unique")),
    "max-rejected 2": ("run x.npy --keep 0.5 --max-rejected 2", ("--max-rejected must be at most 1; got 2.0.",)),
    "a typo in --id": ("run x.npy --keep 0.5 --id shard-key",
                       ("'--id'", "'shard-key' is not one of 'key', 'shard/key'")),
    # The encoder
    "unknown model": ("run images --keep 0.5 --model ViT-B-17 --pretrained openai",
                      ("model 'ViT-B-17' is unknown to open_clip", "did you mean ViT-B-16")),
    "a model without weights": ("run images --keep 0.5 --model ViT-B-16",
                                ("model 'ViT-B-16' has no weights", "--pretrained")),
    "weights without a model": ("run images --keep 0.5 --pretrained openai",
                                ("--pretrained 'openai' needs --model",)),
    "no such weights": ("run images --keep 0.5 --model ViT-B-16 --pretrained w.pt",
                        ("pretrained 'w.pt': no such file",)),
    "an unknown tag": ("run images --keep 0.5 --model RN50 --pretrained oponai $DASK",
                       ("'oponai' is not a tag of RN50", "choose one of openai")),
    "weights that are none": ("run images --keep 0.5 --model fairdedup-small --pretrained bad.pt $DASK",
                              ("bad.pt' does not load into 'fairdedup-small'", "nor a plain state dict", "own file")),
    "safetensors that are none": ("run images --keep 0.5 --model fairdedup-small --pretrained bad.safetensors $DASK",
                                  ("bad.safetensors' does not load into 'fairdedup-small'",)),
    "weights of another model": ("run images --keep 0.5 --model fairdedup-small --pretrained other.safetensors $DASK",
                                 ("other.safetensors' does not load", "its tensors are those of another model")),
    "a local folder without a model": ("run images --keep 0.5 --model local-dir:empty",
                                       ("model 'local-dir:empty': no open_clip_config.json",
                                        "give a folder that has one")),
    "weights beside a folder": ("run images --keep 0.5 --model hf-hub:a/b --pretrained openai",
                                ("omit --pretrained openai",)),
    "no batch": ("run images --keep 0.5 --batch-size 0", ("--batch-size must be at least 1; got 0.",)),
    "no threads": ("run images --keep 0.5 --threads 0", ("--threads must be at least 1; got 0.",)),
    "unknown device": ("run images --keep 0.5 --device tpu",
                       ("'--device'", "'tpu' is not one of 'auto', 'cpu', 'cuda'")),
    "unknown dtype": ("run images --keep 0.5 --dtype float8", ("'--dtype'", "'float8' is not one of")),
    # Prototypes
    "none for embeddings of nobody": ("run x.npy --keep 0.5 --rule fairdedup",
                                      ("--rule fairdedup needs prototypes, and the model of these embeddings is "
                                       "not known",
                                       "--model",
                                       "--prototypes FILE", "--rule semdedup")),
    "no such prototypes": ("run x.npy --keep 0.5 --prototypes p.yaml", ("--prototypes 'p.yaml': no such file", ".npz")),
    "captions without a model": ("run x.npy --keep 0.5 --prototypes blank.yaml",
                                 ("--prototypes 'blank.yaml' has captions, and the model of these embeddings is "
                                  "not known",
                                  "--model")),
    "captions that are no YAML": ("run images --keep 0.5 --prototypes bad.yaml",
                                  ("prototypes 'bad.yaml' is not valid YAML", "correct it")),
    "a template without a blank": ("run images --keep 0.5 --prototypes blank.yaml",
                                   ("prototypes 'blank.yaml': template 'a photo' of 'a' has no blank", "add {}")),
    "prototypes of another dimension": ("run x.npy --keep 0.5 --prototypes wide.npy $DASK",
                                        ("prototypes 'wide.npy' have 5 dimensions and the embeddings 16", "one model")),
    "one prototype alone": ("run x.npy --keep 0.5 --prototypes flat.npy",
                            ("prototypes have shape (16,)", "(concepts, d)")),
    "prototypes with other columns": ("run x.npy --keep 0.5 --prototypes columns.parquet",
                                      ("'columns.parquet' has columns a", "give attribute, concept and vector")),
    "prototypes that need pickle": ("run x.npy --keep 0.5 --prototypes objects.npy",
                                    ("cannot be read (not a plain array)",)),
    "prototypes of another kind": ("run x.npy --keep 0.5 --prototypes texts/a.txt", ("unknown kind", ".parquet")),
    "exemplars of nobody": ("run x.npy --keep 0.5 --prototypes exemplars.parquet $DASK",
                            ("'exemplars.parquet' names id 'nobody'", "which is not in the run", "remove these rows")),
    "a target of nobody": ("run x.npy --config target.yaml $DASK",
                           ("target names attribute 'size'", "the prototypes have a")),
    # Folders to write to
    "--out is a file": ("run x.npy --keep 0.5 --out x.npy", ("x.npy' is a file", "choose a folder")),
    "--out lies in a file": ("run x.npy --keep 0.5 --out x.npy/run", ("x.npy' is a file",)),
    "--out with other files": ("run x.npy --keep 0.5 --out images",
                               ("images' holds other files ('a.png')", "new or empty")),
    "embed into other files": ("embed x.npy --out images", ("images' holds other files",)),
    "cluster no run": ("cluster images", ("images holds no finished embeddings", "run `fairdedup embed INPUT --out")),
    "prune no run": ("prune images --keep 0.5 --rule semdedup", ("images holds no finished embeddings",)),
    "sweep no run": ("sweep nowhere --keep 0.5", ("there is no run at", "nowhere", "create it with `fairdedup run")),
    "sweep without fractions": ("sweep images", ("images holds no finished embeddings",)),
    "sweep over words": ("sweep images --keep a,b", ("--keep must be fractions", "such as 0.3,0.5,0.8; got 'a,b'.")),
    "sweep over nothing": ("sweep images --keep ''", ("--keep must be fractions", "got ''.")),
    "sweep to 0": ("sweep $RUN --keep 0.5,0 --rule semdedup $DASK",
                   ("--keep must be in (0, 1]; got 0",)),
    "sweep to 1.5": ("sweep $RUN --keep 1.5 --rule semdedup $DASK", ("--keep must be in (0, 1]; got 1.5",)),
    "sweep to less than the clusters": ("sweep $RUN --keep 0.001 --rule semdedup $DASK",
                                        ("--keep 0.001 of 237 rows is 0, fewer than one for each of 5 clusters",
                                         "give at least --keep 0.0")),
    "sweep at random": ("sweep $RUN --keep 0.5 --rule random $DASK", ("--rule random has no eps to sweep",)),
    "a gate before no run": ("gate images --max-rejected 0.1",
                             ("images holds no finished run", "fairdedup prune images")),
    "a gate without a bound": ("gate $RUN", ("nothing to check", "--max-rejected, --max-drift or --min-retention")),
    "a gate before no audit": ("gate $RUN --min-retention 0.8", ("has not been audited", "fairdedup audit")),
    "a gate that nan would open": ("gate $RUN --max-drift nan", ("--max-drift nan is out of range", "such as 0.25")),
    "a gate of 5 per cent": ("gate $RUN --max-rejected 5",
                             ("--max-rejected 5 is out of range", "0 to 1, such as 0.05")),
    "sample into a full folder": ("sample images", ("DIR 'images' is not empty", "Choose a new folder.")),
    "sample into a file": ("sample x.npy", ("DIR 'x.npy' is not empty",)),
    "sample below a file": ("sample x.npy/faces", ("DIR 'x.npy/faces' cannot be written", "Choose another folder.")),
    "sample of nothing": ("sample new --rows 5", ("'--rows'", "5 is not in the range x>=200")),
    "sample with a negative seed": ("sample new --seed -1", ("seed", "must be 0 or more; got -1")),
    "sample without a folder": ("sample", ("Missing argument 'DIR'",)),
    # Names that do not exist
    "an empty --out": ("run x.npy --keep 0.5 --rule semdedup --out ''",
                       ("--out is empty. Give a name or leave it out.",)),
    "an empty RUN": ("prune '' --keep 0.5", ("[RUN] is empty",)),
    "an empty file": ("replace $RUN --gone ''", ("--gone is empty",)),
    "a link to nowhere": ("run x.npy --keep 0.5 --rule semdedup --out nowhere.link",
                          ("--out '$HERE/nowhere.link' is a broken link", "fix it, or choose another")),
    "a folder behind a link to nowhere": ("embed x.npy --out nowhere.link/run",
                                          ("--out '$HERE/nowhere.link' is a broken link",)),
    # Names that are not valid text
    "takedowns whose name is no text": ("prune $RUN --eps 0.05 --rule semdedup --drop d\udcff.txt",
                                        ("the argument 'd\\udcff.txt' has bytes that are not UTF-8", "Rename it.")),
    "vanished ones in a file whose name is no text": ("replace $RUN --gone=d\udcff.txt",
                                                      ("the argument '--gone=d\\udcff.txt' has bytes",)),
    "an input whose name is no text": ("run e\udcff.parquet --keep 0.5", ("'e\\udcff.parquet' has bytes",)),
    "a run whose name is no text": ("run x.npy --keep 0.5 --out b\udcff", ("'b\\udcff' has bytes",)),
    "a condition that is no text": ("prune $RUN --keep 0.5 --where caption=\udcff", ("has bytes that are not UTF-8",)),
    # YAML
    "a file whose name is no text": ("prune $RUN --config surrogate.yaml",
                                     ("drop in surrogate.yaml 'd\\udcff.txt' has bytes that are not UTF-8",)),
    "no such config": ("run x.npy --config none.yaml", ("--config none.yaml: No such file", "Give a YAML file.")),
    "a folder as config": ("run x.npy --config images", ("--config images: Is a directory",)),
    "a config of a list": ("run x.npy --config list.yaml", ("--config list.yaml has no keys", "`keep: 0.5`")),
    "a config with a tab": ("run x.npy --config tab.yaml",
                            ("--config tab.yaml is not valid YAML at line 2", "Fix it.")),
    "a config that ends too early": ("run x.npy --config bad.yaml", ("--config bad.yaml is not valid YAML at line",)),
    "a thirteenth month": ("run x.npy --config month.yaml",
                           ("--config month.yaml is not valid YAML (month must be in 1..12)",)),
    "a config of bytes": ("run x.npy --config bytes.yaml", ("--config bytes.yaml is not valid YAML",)),
    "an unknown key": ("run x.npy --config key.yaml", ("kepe in key.yaml is not an option", "Did you mean keep?")),
    "a value of another kind": ("run x.npy --config value.yaml",
                                ("keep in value.yaml must be a valid number", "got 'half'.")),
    "two amounts in the file": ("run x.npy --config two.yaml", ("--keep and --eps exclude each other",)),
    "clusters: true": ("run x.npy --config clusters.yaml",
                       ("clusters in clusters.yaml must be a valid integer; got True.",)),
    "keep: true": ("run x.npy --config truth.yaml", ("keep in truth.yaml must be a number; got True.",)),
    "threads: true": ("run x.npy --keep 0.5 --config threads.yaml",
                      ("threads in threads.yaml must be a number; got True.",)),
    "temperature: false": ("run x.npy --keep 0.5 --config cold.yaml",
                           ("temperature in cold.yaml must be a number; got False.",)),
    "a share of true": ("run x.npy --keep 0.5 --config share.yaml",
                        ("target in share.yaml must be", "got {'size': {'big': True}}.")),
    "an empty key": ("run x.npy --keep 0.5 --config nameless.yaml",
                     ("drop in nameless.yaml '' is empty. Give a name",)),
    "a key in two spellings": ("run x.npy --config spelt.yaml",
                               ("--config spelt.yaml has at_most in two spellings", "Remove one of them.")),
    "an input of two": ("run --config input.yaml", ("input in input.yaml must be a valid string; got ['a', 'b'].",)),
}  # fmt: skip

YAML = {
    "bad": "keep: [0.5", "blank": "{templates: [a photo], attributes: {a: {concepts: {x: [cat]}}}}",
    "blank2": "{templates: ['a {}'], attributes: {a: {concepts: {x: [cat], y: [dog]}}}}",
    "target": "{keep: 0.5, rule: balanced, prototypes: square.npz, target: {size: {big: 1}}}", "list": "- a\n- b",
    "tab": "keep:\n\t- 1", "month": "keep: 2024-13-45", "key": "kepe: 0.5", "value": "keep: half",
    "two": "{keep: 0.5, eps: 0.1}", "clusters": "{keep: 0.5, clusters: true}", "input": "{keep: 0.5, input: [a, b]}",
    "truth": "{keep: true}", "threads": "{threads: true}", "cold": "{temperature: false}", "nameless": "{drop: ''}",
    "share": "{rule: balanced, target: {size: {big: true}}}", "spelt": "{at-most: 0.5, at_most: 0.6}",
    "surrogate": '{keep: 0.5, drop: "d\\udcff.txt"}',
}  # fmt: skip

LABELS = {
    "ids": "id\nk1\n", "header": "id,age\n", "none": "", "twice": "id,age\nk1\x1b[31m,x\nk1\x1b[31m,y\n",
    "noid": "id,age\nk1,x\n,y\n", "columns": "id,age,age\nk1,x,y\n", "long": "id,age\nk1,x,y\n",
    "others": "id,age\nnobody,x\n", "wide": "id,age\n" + "".join(f"k{n},{n}\n" for n in range(51)),
    "one": "id,age\nk1,x\n",
}  # fmt: skip


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the files for all cases."""
    here = tmp_path_factory.mktemp("workplace")
    for folder in ("empty", "texts", "images", "hollow/img_emb"):
        (here / folder).mkdir(parents=True)
    (here / "nowhere.link").symlink_to("gone")
    (here / "texts" / "a.txt").write_text("text")
    (here / "images" / "a.png").write_bytes(picture(0))
    write_tar(here / "s-0.tar", sample("a", 0))
    x = raw_vectors(60)
    arrays = {
        "x": x, "objects": np.array([{}], object), "flat": x[0], "whole": np.ones((3, 3), int), "none": x[:0],
        "zeros": x[:5] * 0, "nans": np.where(np.arange(60)[:, None] < 30, np.nan, x), "twice": x, "short": x,
        "wide": np.eye(5),
    }  # fmt: skip
    for name, array in arrays.items():
        np.save(here / f"{name}.npy", array)
    np.savez(here / "square.npz", **{"a/x": x[0], "a/y": x[1]})
    (here / "text.npy").write_text("no array")
    (here / "short.ids.txt").write_text("a\nb\n")
    (here / "twice.ids.txt").write_text("evil\x1b[31m\x07\n" * 2 + "".join(f"{k}\n" for k in range(58)))
    (here / "bad.pt").write_text("no weights")
    (here / "bad.safetensors").write_text("no weights")
    from safetensors.numpy import save_file

    save_file({"a": x}, here / "other.safetensors")
    pq.write_table(pa.table({"a": [1]}), here / "columns.parquet")
    pq.write_table(pa.table({"id": ["a", "b"], "score": [1, 2], "vector": x[:2].tolist()}), here / "table.parquet")
    exemplars = {"attribute": ["a", "a"], "concept": ["x", "y"], "id": ["0", "nobody"]}
    pq.write_table(pa.table(exemplars), here / "exemplars.parquet")
    for name, text in YAML.items():
        (here / f"{name}.yaml").write_text(text)
    for name, text in LABELS.items():
        (here / f"{name}.csv").write_text(text)
    for name in ("bytes.yaml", "bytes.txt", "bytes.csv"):
        (here / name).write_bytes(b"\xff\xfe\x00\x01")
    (here / "broken.parquet").write_text("no table")
    return here


@pytest.fixture
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.Workers, "submit", lambda *_: pytest.fail("a task was submitted"))


@pytest.fixture
def wrong(request, workplace, tmp_path, monkeypatch, scheduler, finished):
    """Run a case of the table in the workplace, which must stay unchanged."""

    def run(words: str) -> Finished:
        monkeypatch.chdir(workplace)
        monkeypatch.setattr(workers, "ANSWER_WITHIN", 0.5)
        if "--scheduler" not in words and "$DASK" not in words:
            request.getfixturevalue("no_workers")
        arguments = [
            part
            for word in words.split(" ")
            for part in (["--scheduler", scheduler] if word == "$DASK" else [word.strip("'")])
        ]
        arguments = [str(finished) if word == "$RUN" else word for word in arguments]
        if arguments[0] in ("run", "embed") and "--out" not in arguments:
            arguments += ["--out", str(tmp_path / "run")]
        if arguments[0] in ("run", "embed", "sweep", "cluster", "prune", "replace", "audit", "refit"):
            arguments.append("--quiet")
        if arguments[-2:] == ["--keep", "--quiet"]:
            arguments.pop()
        return command(*arguments)

    return run


@pytest.mark.parametrize("case", TABLE)
def test_a_mistake_is_one_line_and_exit_code_2(case, wrong, workplace, finished):
    words, fragments = TABLE[case]
    before, run_before = files(workplace), files(finished) if "$RUN" in words else {}
    shown = wrong(words)
    assert shown.code == 2, shown
    assert shown.out == ""
    assert shown.err.startswith("fairdedup: error: ") and shown.err.count("\n") == 1 and shown.err.endswith("\n")
    assert "Traceback" not in shown.err and "FAIRDEDUP_DEBUG" not in shown.err
    assert shown.err[:-1].isprintable()
    for fragment in fragments:
        fragment = fragment.replace("$HERE", str(workplace))
        assert fragment in shown.err, f"{fragment!r} is not in {shown.err!r}"
    assert files(workplace) == before, "a mistake has written something"
    assert not run_before or files(finished) == run_before


def test_the_table_is_long_enough():
    assert len({words for words, _ in TABLE.values()}) == len(TABLE) > 100


def test_the_table_never_leaves_a_run_behind_that_refuses_the_right_command(wrong, tmp_path, workplace):
    """After a mistake in a late stage, the corrected command continues in the same folder."""
    assert wrong("run x.npy --keep 0.5 --clusters 1000 --rule semdedup $DASK").code == 2
    assert wrong("run x.npy --keep 0.01 --clusters 9 --rule semdedup $DASK").code == 2
    assert wrong("run x.npy --keep 0.5 --clusters 9 --rule semdedup $DASK").code == 0
    assert (tmp_path / "run" / "run.json").is_file()
    assert os.listdir(workplace / "empty") == []


def test_a_run_directory_must_have_a_path_that_can_be_stored(tmp_path, monkeypatch, finished):
    here = tmp_path / "w\udcff"
    here.mkdir()
    monkeypatch.chdir(here)
    for words, named in ((["--out", "run"], "--out 'run'"), ([], "--out 'fairdedup-run'")):
        shown = command("run", finished / "embeddings", "--keep", 0.5, "--rule", "semdedup", *words)
        assert shown.code == 2 and f"{named} is '{tmp_path}/w\\udcff/" in shown.err and not list(here.iterdir())
