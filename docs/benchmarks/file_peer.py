"""The weights of saved files against NNCodec, the reference coder of ISO/IEC 15938-17.

    python docs/benchmarks/file_peer.py ours FOLDER     # *.skc -> FOLDER/integers.npz, ours.csv
    PEER/bin/python docs/benchmarks/file_peer.py peer FOLDER            # FOLDER/peer.csv
    python docs/benchmarks/file_peer.py report FOLDER   # writes file_peer.md

FOLDER is what `file.py --keep FOLDER` left. Both code the same integers, those of the quantized
weights. The file sorts hidden units, which is free; NNCodec gets them once in the net's own order
and once in the file's, where it has the gain of our sorting. Of NNCodec the arithmetic coder
counts, without headers and entry points, and for each tensor the best of all its settings that keep
the integers: profile, with or without the skipping of rows, adaptation of contexts, order of
scanning, length of unary codes. What either coded is decoded and compared.

Scales and biases are kept out of both, and then added to both as our file codes them, without loss.
NNCodec wants numpy below 2 and a compiler, and so an environment of its own, PEER; its Python
layer asks for more packages, and is not used:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 "numpy<2" pybind11
    PEER/bin/pip install --no-deps nncodec==2.1.3
"""

import argparse
import itertools
from pathlib import Path

import numpy as np

UNARY = (1, 2, 3, 4, 6, 10)


def code_ours(arrays):
    """Return the bytes that arrays take in one stream of our coder, and in a file's order."""
    from skcompress.deployment.file.coder import Coder
    from skcompress.deployment.file.tensors import Streams, code_integers, compress

    streams = Streams(Coder())
    for array in arrays:
        code_integers(streams, array, list(array.shape))
    data, bulk = streams.coder.finish(), compress(bytes(streams.bulk)) if streams.bulk else b""
    decoder = Streams(Coder(data), bulk)
    for array in arrays:
        assert (code_integers(decoder, None, list(array.shape)) == array).all()
    return len(data) + len(bulk)


def code_floats(parts):
    """Return the bytes that what is no integer takes by itself: scales, biases, norms."""
    from skcompress.deployment.file.coder import Coder
    from skcompress.deployment.file.integers import describe, to_numbers
    from skcompress.deployment.file.tensors import Streams, code_dense, dtype_name

    streams = Streams(Coder())
    for name, tensor in parts.tensors.items():
        if name in parts.quantized:
            quantized = parts.quantized[name]
            extra = to_numbers(quantized, describe(quantized)).extra
            code_dense(streams, tensor.new_tensor(extra), dtype_name(tensor), list(extra.shape))
        else:
            code_dense(streams, tensor, dtype_name(tensor), list(tensor.shape))
    return len(streams.coder.finish())


def ours(folder):
    """Write integers.npz and ours.csv."""
    from skcompress.deployment.file.artifact import read
    from skcompress.deployment.file.integers import describe, to_numbers

    integers, rows = {}, []
    for path in sorted(folder.glob("*.skc")):
        parts = read(path, 1 << 32)
        arrays = {
            f"{path.stem}/file/{name}": to_numbers(tensor, describe(tensor)).integers
            for name, tensor in parts.quantized.items()
        }
        integers |= arrays
        if path.with_suffix(".npz").exists():
            with np.load(path.with_suffix(".npz")) as own:
                integers |= {f"{path.stem}/net/{name}": own[name] for name in own}
        size = path.stat().st_size
        rows.append([path.stem, code_ours(arrays.values()), code_floats(parts), size])
    np.savez(folder / "integers.npz", **integers)
    np.savetxt(folder / "ours.csv", [["net", "ours", "floats", "file"], *rows], "%s", ",")


def code_peer(array):
    """Return the fewest bytes of NNCodec's coder, and the settings that gave them."""
    from nncodec.extensions import deepCABAC

    array = np.ascontiguousarray(array, np.int32)
    hdsp = (deepCABAC.HdspMode.AlwaysOff, np.zeros(2, np.int8))
    empty = np.array([not row.any() for row in array], np.int32)
    results = []
    for settings in itertools.product((0, 1), (0, 1), (0, 1), range(5), UNARY):
        profile, skip, adapt, scan, unary = settings
        if profile or not skip:
            encoder = deepCABAC.Encoder()
            encoder.initCtxModels(unary, adapt)
            encoder.encodeLayer(array, 0, scan, profile, 0, skip, empty, *hdsp, 0, 0)
            results.append((encoder.finish(), settings))
    data, settings = min(results, key=lambda result: len(result[0]))
    assert decodes(deepCABAC, data, settings, array, hdsp)
    return len(data), settings


def decodes(deepCABAC, data, settings, array, hdsp):
    """Tell whether NNCodec gets an array back, row by row or with entry points between blocks."""
    profile, _, _, scan, unary = settings
    for name in ("decodeLayer", "decodeLayerAndCreateEPs"):
        decoder, decoded = deepCABAC.Decoder(), np.zeros_like(array)
        # It reads a little beyond the end.
        decoder.setStream(np.append(data, np.zeros(64, np.uint8)))
        decoder.initCtxModels(unary)
        getattr(decoder, name)(decoded, 0, scan, profile, 0, *hdsp, 0, 0)
        if (decoded == array).all():
            return True
    return False


def peer(folder):
    """Write peer.csv."""
    rows = []
    with np.load(folder / "integers.npz") as integers:
        for key, array in integers.items():
            size, settings = code_peer(array)
            print(key, array.shape, size, settings)
            rows.append([*key.split("/"), size, "/".join(map(str, settings))])
    head = ["net", "order", "tensor", "bytes", "settings"]
    np.savetxt(folder / "peer.csv", [head, *rows], "%s", ",")


def report(folder):
    """Write file_peer.md."""
    import pandas as pd
    from pruning_report import markdown

    ours = pd.read_csv(folder / "ours.csv").drop(columns="file")
    sizes = pd.read_csv(folder / "peer.csv").groupby(["net", "order"])["bytes"].sum()
    table = sizes.rename("NNCodec").reset_index().merge(ours, on="net")
    table["ours / NNCodec"] = (table.ours / table.NNCodec).round(3)
    both = (table.ours + table.floats) / (table.NNCodec + table.floats)
    table["with floats"] = both.round(3)
    table["net"] = table.net.str.replace("_", ", ")
    Path(__file__).with_suffix(".md").write_text("\n".join([
        "# Weights in a file, beside NNCodec\n",
        "Written by `python docs/benchmarks/file_peer.py report FOLDER`, after its steps `ours`"
        " and `peer` have filled the folder. Bytes of the integers of each net, its density and"
        " seed beside its name, in the files of the"
        " [benchmark of files](file.md): by our coder, and by the arithmetic coder of NNCodec"
        " 2.1.3, the reference coder of ISO/IEC 15938-17, with the best of its settings for each"
        " tensor and without its headers. Order: NNCodec had them as the net has them, or with"
        " hidden units sorted, as the file has them. Floats are scales and biases, which our file"
        " codes without loss, added to both in the last column.\n",
        markdown(table, index=False),
    ]), encoding="utf-8")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    steps = {"ours": ours, "peer": peer, "report": report}
    parser.add_argument("step", choices=steps)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    steps[given.step](given.folder)


if __name__ == "__main__":
    main()
