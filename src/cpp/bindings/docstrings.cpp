// The public calls are C functions, so their documentation lives here. The first line of each is the signature that
// inspect reads.
#include "calls.hpp"

namespace convkit::bindings {

const char conv2d_doc[] =
    R"(conv2d(x, w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, layout='NCHW', activation=None, residual=None, scale=None, shift=None, residual_after=False, out=None, algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

2-D convolution (cross-correlation) of `x` with the filters `w`.

``accuracy="standard"`` and ``"fast"`` allow Winograd kernels, which compute a
tile of outputs from a tile of inputs at once. A NaN or an infinity in `x` then
reaches every output of its tile, not only those whose window holds it. An output
whose exact value is 0 may come out as a tiny number, as large as a rounding
error. ``accuracy="strict"``, the default for float64, uses direct summation only:
neither happens, and padding multiplies an infinite weight like any other zero
(NaN).

Parameters
----------
x : array
    Input of shape (N, C, H, W), or (N, H, W, C) for ``layout="NHWC"``; the batch
    dimension may be left out. float32 or float64, any strides: dense NCHW, dense
    NHWC and transposed views of them are read in place, others are copied first.
    Objects with ``__dlpack__`` on the CPU are accepted here and below.
w : array
    Filters of shape (O, C / groups, KH, KW) in both layouts, any strides, same
    dtype as `x`.
bias : array, optional
    O values, added to each output channel.
stride : int or (int, int), optional
    Height and width, at least 1.
padding : int, pair or str, optional
    Zeros around the input: one number, ``(height, width)``, or
    ``((top, bottom), (left, right))``. ``"valid"`` is 0. ``"same"`` keeps the size
    (stride 1 only; the odd zero goes to the end, as in PyTorch). ``"same_upper"``
    and ``"same_lower"`` give ceil(size / stride) outputs at any stride, with the
    odd zero at the end or at the beginning, as in ONNX.
dilation : int or (int, int), optional
    Distance of the filters' taps, height and width, at least 1.
groups : int, optional
    Blocks of channels that are convolved apart; C and O are divisible by it.
layout : {"NCHW", "NHWC"}, optional
    Order of the dimensions of `x`, `residual`, `out` and the result.
activation : None, str or tuple, optional
    ``"relu"``, ``"relu6"``, ``("clip", lo, hi)``, ``"silu"``, ``"hardswish"``,
    ``"sigmoid"``, ``"tanh"``, ``"gelu"``, ``"gelu_tanh"`` or
    ``("leaky_relu", slope)``. A `lo` or `hi` of None is no limit. NaN survives all of
    them.
residual : array, optional
    Shaped like the result; added after the bias and before the activation, or last.
scale, shift : float or array, optional
    Applied after the activation: ``scale * activation(...) + shift``. One number for
    all channels of the result, or an array of O values.
residual_after : bool, optional
    True adds the residual last, after the activation, `scale` and `shift`.
out : array, optional
    Where to put the result. May be `residual` itself; any other overlap with an
    input is an error.
algorithm : str or choice, optional
    A family such as ``"im2col"``, a kernel's full name, or a choice that `explain`
    returned. Overrides `accuracy`. By default the tuner's selector chooses.
num_threads : int, optional
    Size of the team, at least 1. By default OpenMP's limit (OMP_NUM_THREADS,
    threadpoolctl), bounded by the affinity mask and the cgroup's quota.
accuracy : {"strict", "standard", "fast"} or float, optional
    Which kernels may be chosen: direct summation only; also those whose RMS error
    is at most four times direct summation's; any. A float bounds the expected RMS
    error relative to the RMS of the result. Default: "standard" for float32,
    "strict" for float64, unless CONVKIT_ACCURACY or `tuning` say otherwise.
workspace_limit : int, optional
    The most bytes of workspace that a kernel may use, 1 GiB by default.

Returns
-------
array
    Shape (N, O, OH, OW), or (N, OH, OW, O) for ``layout="NHWC"``, where OH =
    (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1. Of the dtype of `x`,
    and with the memory order of `x`: an NCHW-shaped view of NHWC memory gives
    another one. This is `out` if that was given. Bits do not depend on the number
    of threads for a given kernel.

Raises
------
TypeError
    Another dtype than float32 or float64 in native byte order, mixed dtypes, a
    masked array, or an argument of a wrong type. Nothing is ever cast.
ValueError
    Shapes that do not go together, a value out of range, a read-only or
    overlapping `out`.
UnsupportedAlgorithmError
    `algorithm` does not apply to this problem. The text lists those that do.
MemoryError
    The result or a workspace cannot be had.

See Also
--------
Conv2d : The same with weights that are packed once.
explain : Which kernel a call uses, and why.

Notes
-----
Filters are not flipped: pass ``w[:, :, ::-1, ::-1]`` for the convolution of
signal processing. Any view of the weights is read at full speed, for instance
``w.transpose(3, 2, 0, 1)`` of filters kept as HWIO. The order of operations is
bias, residual, activation, scale, shift, and last the residual with
``residual_after=True``.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> x = np.ones((1, 1, 3, 3), dtype=np.float32)
>>> w = np.ones((1, 1, 3, 3), dtype=np.float32)
>>> ck.conv2d(x, w, padding="same")[0, 0]
array([[4., 6., 4.],
       [6., 9., 6.],
       [4., 6., 4.]], dtype=float32)
)";

const char conv2d_input_doc[] =
    R"(conv2d_input(input_size, weight, grad_output, stride=1, padding=0, dilation=1, groups=1, *, layout='NCHW', out=None, algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

Gradient of `convkit.conv2d` with respect to its input.

Names and order of the arguments are those of torch.nn.grad.conv2d_input. Numbers
given as `accuracy` mean here what they mean in `convkit.conv2d`: with stride 1 the
gradient is a convolution of `grad_output` with the rotated filters, which Winograd
kernels may compute.

Parameters
----------
input_size : sequence of int
    Shape of the input: (N, C, H, W), or (N, H, W, C) for ``layout="NHWC"``; without
    N if `grad_output` has no batch dimension.
weight : array
    Filters of the convolution, (O, C / groups, KH, KW) in both layouts, any strides.
grad_output : array
    Gradient with respect to the convolution's result: (N, O, OH, OW), or
    (N, OH, OW, O) for ``layout="NHWC"``.
stride, padding, dilation, groups, layout : optional
    As they were given to `convkit.conv2d`.
out : array, optional
    Where to put the result; it must not overlap an input.
algorithm, num_threads, accuracy, workspace_limit : optional
    As in `convkit.conv2d`.

Returns
-------
array
    Shape `input_size`, dtype and memory order of `grad_output`.

Raises
------
TypeError, ValueError, UnsupportedAlgorithmError, MemoryError
    As in `convkit.conv2d`; ValueError also if a convolution of `input_size` would
    not have a result of the shape of `grad_output`.

See Also
--------
convkit.conv_transpose2d : The same computation as a layer's forward pass.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> w = np.ones((1, 1, 2, 2), dtype=np.float32)
>>> dy = np.ones((1, 1, 2, 2), dtype=np.float32)
>>> ck.grad.conv2d_input((1, 1, 3, 3), w, dy)[0, 0]
array([[1., 2., 1.],
       [2., 4., 2.],
       [1., 2., 1.]], dtype=float32)
)";

const char conv2d_weight_doc[] =
    R"(conv2d_weight(input, weight_size, grad_output, stride=1, padding=0, dilation=1, groups=1, *, layout='NCHW', out=None, algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

Gradient of `convkit.conv2d` with respect to its filters.

Names and order of the arguments are those of torch.nn.grad.conv2d_weight. Sums run in
an order that depends on the problem and the kernel only, never on the number of
threads. `accuracy` means what it means in `convkit.conv2d`: 3x3 and 5x5 filters with
stride 1 have Winograd kernels here, too.

Parameters
----------
input : array
    Input of the convolution: (N, C, H, W), or (N, H, W, C) for ``layout="NHWC"``; the
    batch dimension may be left out.
weight_size : sequence of int
    Shape of the filters, (O, C / groups, KH, KW) in both layouts.
grad_output : array
    Gradient with respect to the convolution's result: (N, O, OH, OW), or
    (N, OH, OW, O) for ``layout="NHWC"``.
stride, padding, dilation, groups, layout : optional
    As they were given to `convkit.conv2d`.
out : array, optional
    Where to put the result; it must not overlap an input.
algorithm, num_threads, accuracy, workspace_limit : optional
    As in `convkit.conv2d`.

Returns
-------
array
    Shape `weight_size`, dtype of `input`. Zeros for an empty batch.

Raises
------
TypeError, ValueError, UnsupportedAlgorithmError, MemoryError
    As in `convkit.conv2d`; ValueError also if `weight_size` does not go with the
    arrays.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> x = np.ones((1, 1, 3, 3), dtype=np.float32)
>>> dy = np.ones((1, 1, 2, 2), dtype=np.float32)
>>> ck.grad.conv2d_weight(x, (1, 1, 2, 2), dy)[0, 0]
array([[4., 4.],
       [4., 4.]], dtype=float32)
)";

const char conv_transpose2d_doc[] =
    R"(conv_transpose2d(x, w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, layout='NCHW', activation=None, residual=None, scale=None, shift=None, residual_after=False, out=None, algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

2-D transposed convolution: the input gradient of a convolution, as a forward pass.

Every pixel of `x` adds a copy of the filters, scaled by its value, to a window of
the result; windows are `stride` apart. Names and order of the arguments are those
of torch.nn.functional.conv_transpose2d.

Parameters
----------
x : array
    Input of shape (N, C, H, W), or (N, H, W, C) for ``layout="NHWC"``; the batch
    dimension may be left out.
w : array
    Filters of shape (C, O / groups, KH, KW) in both layouts, any strides: inputs
    first, unlike those of `conv2d`.
bias : array, optional
    O values.
stride : int or (int, int), optional
    Height and width, at least 1.
padding : int or pair, optional
    Pixels cut off the result: one number, ``(height, width)``, or
    ``((top, bottom), (left, right))``.
output_padding : int or (int, int), optional
    Rows and columns added at the end of the result, fewer than the stride or the
    dilation: several sizes of an input have the same size of output, and this tells
    which is meant.
groups : int, optional
    Blocks of channels that are convolved apart.
dilation : int or (int, int), optional
    Distance of the filters' taps, height and width, at least 1.
layout, activation, residual, scale, shift, residual_after : optional
    As in `conv2d`.
out, algorithm, num_threads, accuracy, workspace_limit : optional
    As in `conv2d`.

Returns
-------
array
    Shape (N, O, OH, OW), or (N, OH, OW, O) for ``layout="NHWC"``, where OH =
    (H - 1) * stride - top - bottom + dilation * (KH - 1) + 1 + output_padding. Of the
    dtype and memory order of `x`.

Raises
------
TypeError, ValueError, UnsupportedAlgorithmError, MemoryError
    As in `conv2d`.

See Also
--------
ConvTranspose2d : The same with weights that are packed once.
convkit.grad.conv2d_input : The same as a gradient.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> x = np.ones((1, 1, 2, 2), dtype=np.float32)
>>> w = np.ones((1, 1, 2, 2), dtype=np.float32)
>>> ck.conv_transpose2d(x, w, stride=2).shape
(1, 1, 4, 4)
)";

const char layer_doc[] =
    R"(Conv2d(w, bias=None, stride=1, padding=0, dilation=1, groups=1, *, layout='NCHW', activation=None, weight_scale=None, scale=None, shift=None, residual_after=False, copy=True, memory='fast', algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

A convolution with weights of its own, packed once for the kernel that uses them.

Unlike torch.nn.Conv2d it takes the weights themselves. It copies them; the first
call with a shape chooses a kernel and packs for it, later ones only run. Packings
are shared by all shapes whose kernels read the same form.

Parameters
----------
w : array
    Filters of shape (O, C / groups, KH, KW), float32 or float64, any strides.
bias : array, optional
    O values.
stride, padding, dilation, groups, layout, activation : optional
    As in `conv2d`.
weight_scale : float or array, optional
    Multiplies the filters, by one number or by one for each output: what is left of
    a batch norm that follows, once its shift is in the bias.
scale, shift, residual_after : optional
    As in `conv2d`. The layer keeps factors of its own, one for each channel.
copy : bool, optional
    False keeps a reference to `w` instead of a copy. Do not change it: packings are
    made of it now and then. `update` tells the layer of other weights.
memory : {"fast", "low"}, optional
    ``"low"`` keeps no packing: every call packs, or transforms, the filters on its
    way, and kernels are chosen as for `conv2d`.
algorithm, num_threads, accuracy, workspace_limit : optional
    As in `conv2d`, which also says what Winograd kernels do to NaN, infinities and
    exact zeros.

Attributes
----------
weight, bias : array
    The layer's own copies, scaled, read-only; `bias` may be None. With
    ``copy=False`` `weight` is what was given.
nbytes : int
    Bytes that the layer holds: weights that are its own, bias, factors and packings.
packed_nbytes : int
    Bytes of the packings alone.

Raises
------
TypeError, ValueError
    As in `conv2d`.

Notes
-----
Call it as ``conv(x, out=None, residual=None)``, with `conv2d`'s meaning of the
arguments, from any number of threads. Copies and pickles carry the weights and the
options, not the packings.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> conv = ck.Conv2d(np.ones((8, 3, 3, 3), dtype=np.float32), padding=1, activation="relu")
>>> conv(np.ones((2, 3, 16, 16), dtype=np.float32)).shape
(2, 8, 16, 16)
)";

const char transposed_layer_doc[] =
    R"(ConvTranspose2d(w, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1, *, layout='NCHW', activation=None, weight_scale=None, scale=None, shift=None, residual_after=False, copy=True, memory='fast', algorithm=None, num_threads=None, accuracy=None, workspace_limit=None)
--

A transposed convolution with weights of its own, packed once for the kernel that uses them.

To `conv_transpose2d` what `Conv2d` is to `conv2d`.

Parameters
----------
w : array
    Filters of shape (C, O / groups, KH, KW), float32 or float64, any strides.
bias : array, optional
    O values.
stride, padding, output_padding, groups, dilation, layout, activation : optional
    As in `conv_transpose2d`.
weight_scale, scale, shift, residual_after, copy, memory : optional
    As in `Conv2d`.
algorithm, num_threads, accuracy, workspace_limit : optional
    As in `conv2d`.

Attributes
----------
weight, bias : array
    The layer's own copies, scaled, read-only; `bias` may be None. With
    ``copy=False`` `weight` is what was given.
nbytes : int
    Bytes that the layer holds: weights that are its own, bias, factors and packings.
packed_nbytes : int
    Bytes of the packings alone.

Raises
------
TypeError, ValueError
    As in `conv_transpose2d`.

Examples
--------
>>> import numpy as np
>>> import convkit as ck
>>> up = ck.ConvTranspose2d(np.ones((8, 4, 2, 2), dtype=np.float32), stride=2)
>>> up(np.ones((1, 8, 5, 5), dtype=np.float32)).shape
(1, 4, 10, 10)
)";

const char layer_joined_doc[] = R"(joined($self, parts, residual=None)
--

The layer's result for images side by side along their channels.

As ``conv(np.concatenate(parts, axis=3))``, for a layer of layout NHWC. Pointwise
convolutions read the parts where they are, so that nobody joins them.

Parameters
----------
parts : sequence of array
    At most 32 images (N, H, W, C) that differ in C only. The channels of a pixel lie
    side by side, and pixels at even places: the channels of a larger image will do.
residual : array, optional
    As in `conv2d`.

Returns
-------
ndarray
    Of shape (N, OH, OW, O).

Raises
------
TypeError, ValueError
    As in `conv2d`; or a layer of another layout, or parts that do not fit together.
)";

const char layer_update_doc[] = R"(update($self, w, bias=None, *, weight_scale=None, scale=None, shift=None)
--

Replace the weights, keeping the kernels chosen so far.

Calls that are running finish with the old weights.

Parameters
----------
w : array
    Filters of the present shape and dtype.
bias : array, optional
    O values; given exactly when the layer has a bias.
weight_scale : float or array, optional
    Of these weights; that of the old ones is forgotten.
scale, shift : float or array, optional
    New factors, where the layer has them. What is left out stays.

Raises
------
TypeError, ValueError
    Another dtype or shape than the layer's, or a bias or a factor too many, a bias too few.
)";

}  // namespace convkit::bindings
