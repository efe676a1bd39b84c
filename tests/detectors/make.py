"""Writes crates/detect/tests/known: what detectors say, decoded by NumPy, and small graphs that find red squares.

    python3 -m pip install numpy onnx
    python3 tests/detectors/make.py

`decoded.json` holds for each family the faces that outputs of known values mean. The values follow from a formula
(SplitMix64 from the FNV-1a hash of a name) that the Rust tests compute as well, so that only answers are stored. The
arithmetic here was written from the papers and from what the authors' programs do, in float64 and without loops over
rows where NumPy allows, and shares nothing with the code under test.

`red_*.onnx` are networks of each family's inputs and outputs that see a face of 64 pixels about every red square:
they undo the family's normalisation, so that a wrong order of colours or a wrong scale finds nothing.
"""

import json
import pathlib

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OUT = pathlib.Path(__file__).resolve().parents[2] / "crates/detect/tests/known"
MASK = (1 << 64) - 1
TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
# Columns, rows.
WIDTH, HEIGHT = 192, 128


def formula(key: str, n: int, low: float, high: float) -> np.ndarray:
    """The values that the Rust tests give the tensor `key` too."""
    seed = 0xCBF29CE484222325
    for byte in f"0/{key}".encode():
        seed = (seed ^ byte) * 0x100000001B3 & MASK
    values = []
    for i in range(1, n + 1):
        z = (seed + i * 0x9E3779B97F4A7C15) & MASK
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & MASK
        z = (z ^ z >> 27) * 0x94D049BB133111EB & MASK
        z ^= z >> 31
        values.append(low + (high - low) * ((z >> 40) * 2.0**-24))
    return np.array(values, np.float32)


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two boxes."""
    low, high = np.maximum(a[:2], b[:2]), np.minimum(a[2:], b[2:])
    common = np.prod(np.maximum(high - low, 0))
    return common / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - common)


def kept(scores, boxes, points, score_min: float, overlap_max: float) -> list:
    """Non-maximum suppression; refuses values that rounding could decide."""
    assert np.abs(scores - score_min).min() > 1e-6
    chosen = []
    order = [i for i in np.argsort(-scores, kind="stable") if scores[i] >= score_min]
    for i in order:
        shared = [overlap(boxes[i], boxes[j]) for j in chosen]
        assert all(abs(value - overlap_max) > 1e-5 for value in shared)
        if all(value <= overlap_max for value in shared):
            chosen.append(i)
    return [
        {"score": float(scores[i]), "bounds": boxes[i].tolist(), "landmarks": points[i].ravel().tolist()}
        for i in chosen
    ]


def grid(stride: int) -> np.ndarray:
    """(x, y) of each place, row by row, in places."""
    rows, columns = -(-HEIGHT // stride), -(-WIDTH // stride)
    return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), -1).reshape(-1, 2).astype(float)


class Case:
    """The outputs of a network, and what they mean."""

    def __init__(self, family: str):
        self.family, self.outputs = family, []

    def tensor(self, name: str, shape: list, low: float, high: float) -> np.ndarray:
        self.outputs.append({"name": name, "shape": shape, "low": low, "high": high})
        count = int(np.prod(shape))
        return formula(f"{self.family}/{name}", count, low, high).astype(float).reshape(shape)

    def done(self, faces: list, score_min: float) -> dict:
        assert 5 < len(faces) < 60, (self.family, len(faces))
        return {
            "family": self.family,
            "size": [HEIGHT, WIDTH],
            "score_min": score_min,
            "outputs": self.outputs,
            "faces": faces,
        }


def scrfd(strides: list, anchors: int, name: str) -> dict:
    case, found = Case(name), [[], [], []]
    of_stride = {}
    for kind, columns, low, high in [("score", 1, 0, 1), ("bbox", 4, 0.5, 3), ("kps", 10, -2, 2)]:
        for stride in strides:
            n = len(grid(stride)) * anchors
            of_stride[kind, stride] = case.tensor(f"{kind}_{stride}", [n, columns], low, high)
    for stride in strides:
        middle = np.repeat(grid(stride) * stride, anchors, 0)
        box, kps = of_stride["bbox", stride] * stride, of_stride["kps", stride] * stride
        found[0].append(of_stride["score", stride][:, 0])
        found[1].append(np.concatenate([middle - box[:, :2], middle + box[:, 2:]], 1))
        found[2].append(middle[:, None] + kps.reshape(-1, 5, 2))
    score_min = 0.97
    return case.done(kept(*(np.concatenate(part) for part in found), score_min, 0.4), score_min)


def yunet() -> dict:
    case, found, of_stride = Case("yunet"), [[], [], []], {}
    kinds = [("cls", 1, -0.2, 1.2), ("obj", 1, -0.2, 1.2), ("bbox", 4, -0.5, 1.5), ("kps", 10, -2, 2)]
    for kind, columns, low, high in kinds:
        for stride in [8, 16, 32]:
            shape = [1, len(grid(stride)), columns]
            of_stride[kind, stride] = case.tensor(f"{kind}_{stride}", shape, low, high)[0]
    for stride in [8, 16, 32]:
        cls, obj, box, kps = (of_stride[kind, stride] for kind in ["cls", "obj", "bbox", "kps"])
        found[0].append(np.sqrt(np.clip(cls, 0, 1) * np.clip(obj, 0, 1))[:, 0])
        middle, half = (grid(stride) + box[:, :2]) * stride, np.exp(box[:, 2:]) * stride / 2
        found[1].append(np.concatenate([middle - half, middle + half], 1))
        found[2].append((grid(stride)[:, None] + kps.reshape(-1, 5, 2)) * stride)
    score_min = 0.9
    scores, boxes, points = (np.concatenate(part) for part in found)
    # Equal scores of 1 keep their order.
    return case.done(kept(scores, boxes, points, score_min, 0.3), score_min)


def retinaface(sides: dict, name: str, are_logits: bool) -> dict:
    case = Case(name)
    middles, widths = [], []
    for stride, of_place in sides.items():
        places = np.repeat((grid(stride) + 0.5) * stride, len(of_place), 0)
        middles.append(places)
        widths.append(np.tile(of_place, len(grid(stride))))
    middle, side = np.concatenate(middles), np.concatenate(widths)[:, None].astype(float)
    n = len(middle)
    loc = case.tensor("loc", [1, n, 4], -2, 2)[0]
    landms = case.tensor("landms", [1, n, 10], -4, 4)[0]
    conf = case.tensor("conf", [1, n, 2], -4, 4)[0]
    scores = 1 / (1 + np.exp(conf[:, 0] - conf[:, 1]))
    if not are_logits:
        # The Rust tests make a row of probabilities of its second number.
        case.outputs[-1]["low"], case.outputs[-1]["high"] = 0, 1
        scores = formula(f"{name}/conf", 2 * n, 0, 1).astype(float).reshape(n, 2)[:, 1]
    middles, half = middle + loc[:, :2] * 0.1 * side, side * np.exp(loc[:, 2:] * 0.2) / 2
    boxes = np.concatenate([middles - half, middles + half], 1)
    points = middle[:, None] + landms.reshape(-1, 5, 2) * 0.1 * side[:, None]
    score_min = 0.998 if are_logits else 0.98
    return case.done(kept(scores, boxes, points, score_min, 0.4), score_min)


def centerface() -> dict:
    case = Case("centerface")
    shape = [HEIGHT // 4, WIDTH // 4]
    heat = case.tensor("537", [1, 1, *shape], 0, 1)[0, 0]
    scale = case.tensor("538", [1, 2, *shape], 0.5, 3)[0]
    offset = case.tensor("539", [1, 2, *shape], 0, 1)[0]
    lms = case.tensor("540", [1, 10, *shape], 0, 1)[0]
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    high, wide = np.exp(scale) * 4
    left = (columns + offset[1] + 0.5) * 4 - wide / 2
    top = (rows + offset[0] + 0.5) * 4 - high / 2
    boxes = np.stack([left, top, left + wide, top + high], -1).reshape(-1, 4)
    points = np.stack([[lms[2 * i + 1] * wide + left, lms[2 * i] * high + top] for i in range(5)])
    points = points.transpose(2, 3, 0, 1).reshape(-1, 5, 2)
    score_min = 0.98
    return case.done(kept(heat.ravel(), boxes, points, score_min, 0.3), score_min)


class Graph:
    """An ONNX graph under way."""

    def __init__(self):
        self.nodes, self.weights, self.outputs, self.count = [], [], [], 0

    def constant(self, array, dtype=np.float32) -> str:
        self.count += 1
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype), f"w{self.count}"))
        return f"w{self.count}"

    def node(self, op: str, inputs: list, output: str | None = None, **attributes) -> str:
        self.count += 1
        output = output or f"v{self.count}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def pool(self, value: str, side: int) -> str:
        return self.node("AveragePool", [value], kernel_shape=[side, side], strides=[side, side])

    def conv(self, value: str, weights: list, biases: list) -> str:
        """One by one; `weights` has a row of three for each channel."""
        shaped = np.asarray(weights, float).reshape(len(biases), 3, 1, 1)
        return self.node("Conv", [value, self.constant(shaped), self.constant(biases)], kernel_shape=[1, 1])

    def table(self, value: str, shape: list, output: str | None = None) -> str:
        """[1, C, H, W] as rows of a place."""
        turned = self.node("Transpose", [value], perm=[0, 2, 3, 1])
        return self.node("Reshape", [turned, self.constant(shape, np.int64)], output)

    def save(self, name: str, outputs: list, sizes: list) -> None:
        graph = helper.make_graph(
            self.nodes,
            "red",
            [helper.make_tensor_value_info("input", TensorProto.FLOAT, sizes)],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, None) for output in outputs],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        (OUT / name).write_bytes(model.SerializeToString())


OPEN = [1, 3, "height", "width"]
NONE = [[0.0] * 3]
# Sides of 64 pixels, of which the template has 112.
POINTS = TEMPLATE * 64 / 112


def red_scrfd(name="red_scrfd.onnx", sizes=OPEN, cut=False, bad=False) -> None:
    """RGB, (x - 127.5) / 128; two anchors, of which the first sees. If `bad`, its scores are no numbers."""
    g, outputs = Graph(), []
    scale = 128 / 255

    def score(pooled: str) -> str:
        value = g.conv(pooled, [[scale, 0, -scale], *NONE], [0.0, 0.0])
        if not bad:
            return value
        # Infinity less infinity: no weight is NaN, which would be refused before.
        far = g.constant([[[np.inf]], [[0.0]]])
        return g.node("Sub", [g.node("Add", [value, far]), far])

    parts = {
        "score": score,
        "bbox": lambda p: g.conv(p, NONE * 8, [4.0] * 8),
        "kps": lambda p: g.conv(p, NONE * 20, [*((POINTS - 32) / 8).ravel()] * 2),
    }
    for kind, columns in [("score", 1), ("bbox", 4), ("kps", 10)]:
        for stride in [8, 16, 32]:
            output = f"{kind}_{stride}"
            value = g.table(parts[kind](g.pool("input", stride)), [-1, columns], None if cut else output)
            if cut:
                g.node("Slice", [value, g.constant([0], np.int64), g.constant([1024], np.int64)], output)
            outputs.append(output)
    g.save(name, outputs, sizes)


def red_yunet() -> None:
    """BGR of 0 to 255, with the size of the author's example."""
    g, outputs = Graph(), []
    parts = {
        "cls": (1, lambda p: g.conv(p, [[-1 / 255, 0, 1 / 255]], [0.0])),
        "obj": (1, lambda p: g.conv(p, [[-1 / 255, 0, 1 / 255]], [0.0])),
        "bbox": (4, lambda p: g.conv(p, NONE * 4, [0, 0, np.log(8), np.log(8)])),
        "kps": (10, lambda p: g.conv(p, NONE * 10, ((POINTS - 32) / 8).ravel())),
    }
    for kind, (columns, part) in parts.items():
        for stride in [8, 16, 32]:
            outputs.append(g.table(part(g.pool("input", stride)), [1, -1, columns], f"{kind}_{stride}"))
    g.save("red_yunet.onnx", outputs, [1, 3, 640, 640])


def red_retinaface() -> None:
    """BGR less 104, 117, 123; the second prior box of stride 8 sees."""
    g, tables = Graph(), {"loc": [], "conf": [], "landms": []}
    bias = (123 - 104) / 255
    for stride in [8, 16, 32]:
        p = g.pool("input", stride)
        w = [-1 / 255, 0, 1 / 255] if stride == 8 else [0, 0, 0]
        b = bias if stride == 8 else 0
        no = [[-x for x in w]]
        tables["conf"].append(g.table(g.conv(p, [*NONE, *NONE, *no, w], [1, 0, 1 - b, b]), [1, -1, 2]))
        tables["loc"].append(g.table(g.conv(p, NONE * 8, [0, 0, np.log(2) / 0.2, np.log(2) / 0.2] * 2), [1, -1, 4]))
        points = [*((POINTS - 32) / 3.2).ravel()] * 2
        tables["landms"].append(g.table(g.conv(p, NONE * 20, points), [1, -1, 10]))
    outputs = [g.node("Concat", parts, name, axis=1) for name, parts in tables.items()]
    g.save("red_retinaface.onnx", outputs, OPEN)


def red_centerface() -> None:
    """RGB of 0 to 255, with the batch and size of the author's example; green makes a face larger."""
    g = Graph()
    p = g.pool("input", 4)
    g.node("Identity", [g.conv(p, [[1 / 255, 0, -1 / 255]], [0.0])], "537")
    g.node("Identity", [g.conv(p, [[0, 1 / 255, 0]] * 2, [np.log(16)] * 2)], "538")
    g.node("Identity", [g.conv(p, NONE * 2, [0.0] * 2)], "539")
    g.node("Identity", [g.conv(p, NONE * 10, (TEMPLATE / 112)[:, ::-1].ravel())], "540")
    g.save("red_centerface.onnx", ["537", "538", "539", "540"], [10, 3, 32, 32])


def red_none() -> None:
    """As SCRFD, without landmarks."""
    g, outputs = Graph(), []
    for kind, columns in [("score", 1), ("bbox", 4)]:
        for stride in [8, 16, 32]:
            value = g.conv(g.pool("input", stride), NONE * columns, [0.0] * columns)
            outputs.append(g.table(value, [-1, columns], f"{kind}_{stride}"))
    g.save("no_landmarks.onnx", outputs, OPEN)


def brightness() -> None:
    """A made-up embedding: the mean colour of a face, and one number that is always the same."""
    g = Graph()
    mean = g.node("GlobalAveragePool", ["input"])
    flat = g.node("Flatten", [mean])
    weights = np.concatenate([np.eye(3), np.zeros((3, 61))], 1) / 255
    biases = np.concatenate([[-0.5] * 3, [0.05], np.zeros(60)])
    g.node("Gemm", [flat, g.constant(weights), g.constant(biases)], "embedding")
    g.save("colour.onnx", ["embedding"], ["N", 3, 112, 112])


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    slim = {8: [10, 16, 24], 16: [32, 48], 32: [64, 96], 64: [128, 192, 256]}
    usual = {8: [16, 32], 16: [64, 128], 32: [256, 512]}
    cases = [
        scrfd([8, 16, 32], 2, "scrfd"),
        yunet(),
        retinaface(usual, "retinaface", are_logits=False),
        retinaface(slim, "retinaface-slim", are_logits=True),
        centerface(),
    ]
    (OUT / "decoded.json").write_text(json.dumps(cases, indent=1) + "\n")
    red_scrfd()
    red_scrfd("fixed.onnx", [1, 3, 160, 160])
    red_scrfd("cut_short.onnx", cut=True)
    red_scrfd("not_a_number.onnx", bad=True)
    red_yunet()
    red_retinaface()
    red_centerface()
    red_none()
    brightness()


if __name__ == "__main__":
    main()
