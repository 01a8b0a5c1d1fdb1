"""Short texts and a few numbers, for the adaptive coder."""

from functools import cache

from .coder import Coder

_TEXT, _LENGTH, _DATA = 7, 8, 9
# What descriptions look like; the coder has seen it before it meets one.
_TYPICAL = (
    '{"batch":1024,"classes":10,"inputs":[[null,"float32",[784]]],"kind":"classifier",'
    '"operations":[["linear",["x0","p0","p1"]],["relu",["."]],["linear",[".","p2","p3"]],["tanh",'
    '["."]],["linear",[".","p4","p5"]]],"rule":"softmax","tensors":[["0.weight",[300,784],'
    '["q",5,"symmetric","tensor",1]],["0.bias",[300]],["2.weight",[100,300],["q",5,"symmetric",'
    '"channel",1]],["2.bias",[100]],["4.weight",[10,100],["q",8,"symmetric","tensor",0]],'
    '["4.bias",[10]]]}'
    '["conv2d",["x0","p0","p1"]],["max_pool2d",[".",[2,2],[2,2]]],["flatten.using_ints",[".",1]],'
    '["unflatten.int",["x0",1,[1,28,28]]],["conv2d",[".","p2",null,[1,1],[1,1]]],'
    '["batch_norm",[".","p6","p7","p8","p9",false,0.1,1e-05,false]],["add.Tensor",["v1","."]],'
    '["lstm.input",["x0",["v0","v1"],["p0","p1","p2","p3"],true,1,0.0,false,false,true]],'
    '["zeros",[[1,{"n":[1,0]},128]],{"dtype":":float32"}],["getitem",["v2",0]],'
    '["select.int",[".",1,-1]],["transpose.int",[".",0,1]],["view",[".",[5,{"n":[2,0]},4]]],'
    '["layer_norm",[".",[8],"p2","p3",1e-05,false]],["dropout",[".",0.1,false]],'
    '["embedding",["p0","x0"]],["mean.dim",[".",[1]]],'
    '"features":["a"],"names":["age"],"activations":"dynamic","threshold":0.5,"kind":"regressor",'
    '"rule":"identity","columns":2,"steps":[["StandardScaler",{},{"mean_":["float64",[4]],"scale_":'
    '["float64",[4]]}]],"masked":["int64",[]],'
    '["norm.running_mean",[8]],["norm.running_var",[8]],["norm.num_batches_tracked",[],["d",'
    '"int64"]],["layer.weight_ih_l0",[512,16]],["layer.weight_hh_l0",[512,128]],["layer.bias_ih_l0"'
    ',[512]],["head.weight",[3,8],["m"]],["conv.bias",[8]],"layers.0.weight","self_attn.in_proj_'
    'weight","self_attn.out_proj.weight","linear1.weight","norm1.weight"'
)


def primed_coder(data: bytes | None = None) -> Coder:
    """Return a coder that knows what a description looks like; see :class:`Coder` for `data`."""
    coder = Coder(data)
    states, weights = _typical_states()
    coder.states, coder.weights = states.copy(), weights.copy()
    return coder


@cache
def _typical_states() -> tuple[dict[int, int], dict[int, list[int]]]:
    coder = Coder()
    code_text(coder, _TYPICAL.encode())
    return coder.states, coder.weights


def code_text(coder: Coder, text: bytes, length: int | None = None) -> bytes:
    """Code bytes that are alike, in the contexts of up to five bytes before.

    Parameters
    ----------
    coder : Coder
    text : bytes
        Ignored when decoding.
    length : int, default=None
        How many bytes there are; None means ``len(text)``.
    """
    result, history = bytearray(), 0
    for i in range(len(text) if length is None else length):
        # The slot keeps the orders apart, whatever bytes they hold.
        contexts = [
            (history & (1 << 8 * order) - 1) << 8 | order << 4 | _TEXT for order in range(6)
        ]
        byte = coder.byte(0 if coder.decoding else text[i], contexts, _TEXT)
        history = (history << 8 | byte) & (1 << 40) - 1
        result.append(byte)
    return bytes(result)


def code_length(coder: Coder, value: int) -> int:
    """Code an integer of at least 0 and less than 2 ** 28, seven bits a byte."""
    result, place = 0, 0
    while place < 28:
        more = value >> place + 7 > 0
        byte = coder.byte((value >> place & 127) | more << 7, [place << 8 | _LENGTH], _LENGTH)
        result |= (byte & 127) << place
        place += 7
        if byte < 128:
            break
    return result


def code_data(coder: Coder, data: bytes, width: int, length: int) -> bytes:
    """Code bytes of numbers, `width` each, the highest byte first; alike in the same places."""
    result = bytearray()
    for i in range(length):
        place = i % width
        last = result[i - width] if i >= width else 0
        before = result[i - 1] if place else 0
        contexts = [
            place << 8 | _DATA,
            (last << 4 | place) << 8 | 1 << 4 | _DATA,
            (before << 4 | place) << 8 | 2 << 4 | _DATA,
        ]
        result.append(coder.byte(0 if coder.decoding else data[i], contexts, place << 4 | _DATA))
    return bytes(result)
