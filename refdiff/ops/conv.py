"""Two-dimensional convolution, channels-last, and why its backward is a convolution too.

    y[n,p,q,d] = sum_{i,j,c} xpad[n, s p + i, s q + j, c] w[i,j,c,d] + b[d]

With C innermost, gathering the k x k window of every output pixel into a row (`windows`) makes the
convolution one matrix product:  y = windows(xpad) . w  with w read as a (k k c, d) matrix.

For the transpose, put the rows of dy back where they came from: u is dy with s-1 zeros between its
entries, so that u[s p] = dy[p]. Then, with r a pixel of x,

    dx[r]      = sum_{i,j,d} u[r + pad - (i,j)] w[i,j,:,d]      a stride-1 convolution of u with w flipped
    dw[i,j]    = sum_r x[r] u[r + pad - (i,j)]                  the same windows of u, times x

Counted from the other side, i' = k-1-i, u is read at r + pad - (k-1) + i', as the window of any convolution is,
so one gathering of u serves both gradients.
"""
from .. import backend
from .op import Op, sum_rows, wanted

PADS = {"same": lambda k: (k // 2, k // 2),       # k//2 on both sides
        "ddpm": lambda k: (0, k // 2)}            # (0,1,0,1) for k = 3, stride 2: TensorFlow's SAME


def pad_image(x, top, bottom, left, right):
    """x[n,h,w,c] with rows and columns of zeros added."""
    if not (top or bottom or left or right):
        return x
    n, h, w, c = x.shape
    out = backend.of(x=x).zeros((n, h + top + bottom, w + left + right, c), x.dtype)
    out[:, top:top + h, left:left + w] = x
    return out


def windows(xpad, k, stride):
    """The (n p q, k k c) matrix whose rows are the k x k windows of xpad[n,h,w,c]."""
    xp = backend.of(x=xpad)
    n, h, w, c = xpad.shape
    p, q = (h - k) // stride + 1, (w - k) // stride + 1
    sn, sh, sw, sc = xpad.strides
    view = xp.lib.stride_tricks.as_strided(xpad, (n, p, q, k, k, c), (sn, sh * stride, sw * stride, sh, sw, sc))
    return view.reshape(n * p * q, k * k * c)


def check_conv2d(x, w, b, stride, pad):
    """(p, q), the size of y; ValueError where channels, kernel or sizes do not fit."""
    backend.of(x=x, w=w, b=b)
    if x.ndim != 4 or w.ndim != 4 or w.shape[0] != w.shape[1]:
        raise wanted("conv2d", "x and w", f"{x.shape} and {w.shape}", "(n, h, w, c) and (k, k, c, d)")
    if x.shape[3] != w.shape[2]:
        raise ValueError(f"conv2d: x has {x.shape[3]} channels but w expects {w.shape[2]} (w is {w.shape})")
    if b.shape != w.shape[3:]:
        raise wanted("conv2d", "the shape of b", b.shape, f"{w.shape[3:]}, d of w {w.shape}")
    if pad not in PADS or stride not in (1, 2):
        raise wanted("conv2d", "stride, pad", (stride, pad), f"1 or 2, and one of {', '.join(PADS)}")
    k, (height, width) = len(w), x.shape[1:3]
    more = sum(PADS[pad](k))
    if min(height, width) + more < k:
        raise ValueError(f"conv2d: an image of {height}x{width} padded by {'+'.join(map(str, PADS[pad](k)))} is "
                         f"smaller than the {k}x{k} kernel")
    return (height + more - k) // stride + 1, (width + more - k) // stride + 1


def conv2d_forward(x, w, b, stride=1, pad="same"):
    """y = windows(xpad) w + b: x (n,h,w,c), w (k,k,c,d), b (d,), stride 1 or 2, pad "same" or "ddpm".

    "same" pads k//2 on every side; "ddpm" pads k//2 below and right only, as the DDPM U-Net does
    when it halves an image. Raises ValueError when channels, kernel or sizes do not fit.
    """
    p, q = check_conv2d(x, w, b, stride, pad)
    k, _, c, d = w.shape
    if k == 1:
        rows = x[:, ::stride, ::stride].reshape(-1, c)
    else:
        before, after = PADS[pad](k)
        rows = windows(pad_image(x, before, after, before, after), k, stride)
    y = rows @ w.reshape(k * k * c, d)
    y += b
    return y.reshape(len(x), p, q, d), (x, w, stride, pad)


def conv2d_backward(saved, dy):
    """dx = u * flip(w), dw = x^T windows(u), db = sum dy, with u the spread-out dy of the module's docstring."""
    x, w, stride, pad = saved
    n, height, width, c = x.shape
    k, _, _, d = w.shape
    before, _ = PADS[pad](k)
    u = spread(dy, stride)
    top = k - 1 - before                                  # so that row r of the windows starts at u[r + before - (k-1)]
    u = pad_image(u, top, height + before - u.shape[1], top, width + before - u.shape[2])
    rows = windows(u, k, 1) if k > 1 else u.reshape(-1, d)                     # (n h w, k k d)
    w_flip = w[::-1, ::-1].transpose(0, 1, 3, 2).reshape(k * k * d, c)
    dx = (rows @ w_flip).reshape(x.shape)
    dw = (rows.T @ x.reshape(-1, c)).reshape(k, k, d, c)[::-1, ::-1].transpose(0, 1, 3, 2)
    return dx, dw, sum_rows(dy)


def spread(dy, stride):
    """u[n, s p, s q] = dy[n, p, q], zeros between."""
    if stride == 1:
        return dy
    n, p, q, d = dy.shape
    u = backend.of(dy=dy).zeros((n, stride * (p - 1) + 1, stride * (q - 1) + 1, d), dy.dtype)
    u[:, ::stride, ::stride] = dy
    return u


def conv2d_jvp(saved, xdot, wdot, bdot):
    """ydot = xdot * w + x * wdot + bdot: the convolution is bilinear."""
    x, w, stride, pad = saved
    return conv2d_forward(xdot, w, bdot, stride, pad)[0] + conv2d_forward(x, wdot, 0 * bdot, stride, pad)[0]


conv2d = Op("conv2d", conv2d_forward, conv2d_backward, conv2d_jvp,
            "x[n,h,w,c] w[k,k,c,d] b[d] -> y[n,p,q,d]",
            options={"stride": (1, 2), "pad": ("same", "ddpm")},
            sizes={"k": (1, 3), "h": (2, 3, 4, 5), "w": (2, 3, 4, 7), "c": (1, 2, 3), "d": (1, 2, 4)})
