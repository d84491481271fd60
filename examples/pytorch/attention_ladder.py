"""The stages of attention-ladder on PyTorch tensors: one file, ctypes on the C library, nothing to build
beside it.

    import attention_ladder as ladder

    o = ladder.scaled_dot_product_attention(q, k, v, is_causal=True)    # PyTorch's signature
    o, lse = ladder.attention(q, k, v, stage="05_epilogue_norm_v2", causal=True, return_lse=True)
    o = ladder.attention(q, k_cache, v_cache, kv_len=lengths)           # decoding: chapter 07
    s = ladder.scores(q, k);  p = ladder.softmax(s);  o = ladder.pv(p, v)

CPU tensors go to libattention_ladder_emulator.so, which runs the kernels in the emulator: strict
and slow, for learning and testing. CUDA tensors go to libattention_ladder.so, on their device and
PyTorch's current stream. NumPy arrays are taken too, as CPU tensors are. ATTENTION_LADDER_PATH
names folders to look for the libraries in; without it they are looked for in this repository's
build folders and in the prefix that this file was installed into.

Layouts are PyTorch's: [batch, heads, sequence, head_dim], contiguous. Another layout of q, k or v
is copied first, and a CopyWarning says so. There is no backward pass.
"""

import contextlib
import ctypes
import functools
import math
import os
import pathlib
import sys
import warnings


class Error(RuntimeError):
    """What the library or the device said."""


class Unsupported(Error, ValueError):
    """The arguments are wrong, or this stage does not do that; the text says what is allowed."""


class DeviceFault(Error):
    """The device failed; in the emulator: the kernel did something wrong, and the text says what."""


class NoDevice(Error):
    """There is no GPU that could run this."""


class NoLibrary(Error):
    """The library has not been built, or is not where it was looked for."""


class CopyWarning(UserWarning):
    """A tensor had to be copied, for the stages take contiguous tensors of whole 16 bytes only."""


# --- the C interface: common/capi/attention_ladder.h -----------------------------------------------

ABI_VERSION = 2  # AL_VERSION of the struct below; a newer library takes it too

AL_OK, AL_DEVICE_FAULT, AL_UNSUPPORTED, AL_NO_DEVICE = 0, 1, 2, 77
ERRORS = {AL_DEVICE_FAULT: DeviceFault, AL_UNSUPPORTED: Unsupported, AL_NO_DEVICE: NoDevice}
DTYPES = {"float16": 1, "bfloat16": 2, "float32": 3, "float8_e4m3fn": 4, "float8_e5m2": 5}
FP8 = ("float8_e4m3fn", "float8_e5m2")


class Arguments(ctypes.Structure):
    """al_arguments"""

    _fields_ = (
        [("struct_size", ctypes.c_size_t), ("dtype", ctypes.c_int32)]
        + [(name, ctypes.c_int32)
           for name in ("batch", "heads", "kv_heads", "seq", "kv_seq", "head_dim", "causal")]
        + [("scale", ctypes.c_double)]
        + [(name, ctypes.c_void_p) for name in ("q", "k", "v", "s", "p", "o", "lse", "workspace")]
        + [("workspace_bytes", ctypes.c_size_t)]
        + [(name, ctypes.c_int64 * 3)
           for name in ("q_strides", "k_strides", "v_strides", "o_strides")]
        + [(name, ctypes.c_void_p)
           for name in ("q_scale", "k_scale", "v_scale", "kv_len", "page_table")]
        + [(name, ctypes.c_int32) for name in ("page_size", "max_pages", "kv_dtype")])

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(Arguments), **fields)


class Library:
    """One loaded library: "cuda" or "emulator"."""

    def __init__(self, path, backend):
        self.path, self.backend = str(path), backend
        self._plans = {}
        self._c = ctypes.CDLL(self.path)
        self._c.al_last_error.restype = ctypes.c_char_p
        # Pointers and sizes as such: without this ctypes would hand each over as a C int.
        text, struct, pointer = ctypes.c_char_p, ctypes.POINTER(Arguments), ctypes.c_void_p
        for name, types in {
                "al_version": [pointer], "al_backend": [pointer], "al_stage_count": [pointer],
                "al_stage_name": [ctypes.c_int32, pointer],
                "al_variant_count": [text, pointer],
                "al_variant_name": [text, ctypes.c_int32, pointer],
                "al_supports": [text, text, struct],
                "al_workspace_bytes": [text, text, struct, pointer],
                "al_run": [text, text, struct, pointer]}.items():
            getattr(self._c, name).argtypes = types

        version = self._get(ctypes.c_int32, "al_version")
        if version < ABI_VERSION:
            raise Error(f"{self.path} has version {version} of the C interface, and this file "
                        f"needs {ABI_VERSION} or newer: build the library again.")
        found = self._get(ctypes.c_char_p, "al_backend").decode()
        if found != backend:
            raise Error(f"{self.path} is the library for {found}, not for {backend}.")

    def check(self, status):
        if status != AL_OK:
            raise ERRORS.get(status, Error)(self._c.al_last_error().decode())

    def _get(self, kind, function, *arguments):
        value = kind()
        self.check(getattr(self._c, function)(*arguments, ctypes.byref(value)))
        return value.value

    def stages(self):
        count = self._get(ctypes.c_int32, "al_stage_count")
        return [self._get(ctypes.c_char_p, "al_stage_name", i).decode() for i in range(count)]

    def variants(self, stage):
        stage = stage.encode()
        count = self._get(ctypes.c_int32, "al_variant_count", stage)
        return [self._get(ctypes.c_char_p, "al_variant_name", stage, i).decode()
                for i in range(count)]

    def refusal(self, stage, variant, arguments):
        """Why the stage cannot run these arguments; "" if it can."""
        try:
            self.check(self._c.al_supports(stage.encode(), _encoded(variant), arguments))
        except Unsupported as why:
            return str(why)
        return ""

    def workspace_bytes(self, stage, variant, arguments):
        return self._get(ctypes.c_size_t, "al_workspace_bytes", stage.encode(), _encoded(variant),
                         arguments)

    def run(self, stage, variant, arguments, stream):
        self.check(self._c.al_run(stage.encode(), _encoded(variant), arguments, stream))

    def plan(self, stages, variant, arguments, key):
        """The first of `stages` that can, and the bytes of workspace it needs. What depends on sizes
        and options alone is asked once for each `key`: a refusal takes the library 0.1 ms."""
        found = self._plans.get(key)
        if found is None:
            stage = stages if isinstance(stages, str) else _first_that_can(self, stages, variant, arguments)
            found = stage, self.workspace_bytes(stage, variant, arguments)
            if len(self._plans) >= 4096:  # a program whose sizes never come again
                self._plans.clear()
            self._plans[key] = found
        return found


def _encoded(variant):
    return None if variant is None else variant.encode()


# --- finding the library -----------------------------------------------------------------------------

FILES = {"cuda": "libattention_ladder.so", "emulator": "libattention_ladder_emulator.so"}


def _folders(backend):
    here = pathlib.Path(__file__).resolve().parent
    for folder in os.environ.get("ATTENTION_LADDER_PATH", "").split(os.pathsep):
        if folder:
            yield pathlib.Path(folder)
    yield here.parents[1] / "build" / backend / "lib"  # <repository>/examples/pytorch
    yield from sorted(here.parents[1].glob("lib*"))  # <prefix>/share/attention_ladder


@functools.lru_cache(maxsize=None)
def library(backend):
    """The library for "cuda" or "emulator", loaded at the first call."""
    tried = [folder / FILES[backend] for folder in _folders(backend)]
    for path in tried:
        if path.exists():
            return Library(path, backend)
    try:
        return Library(FILES[backend], backend)  # wherever the dynamic loader looks
    except OSError:
        target = FILES[backend][len("lib"):-len(".so")]
        looked = "\n  ".join(str(path) for path in tried)
        raise NoLibrary(f"There is no {FILES[backend]}. It is built by\n"
                        f"  cmake --preset {backend} && "
                        f"cmake --build build/{backend} --target {target}\n"
                        f"ATTENTION_LADDER_PATH names the folder it is in. Looked for:\n  {looked}"
                        ) from None


def stages(backend="emulator"):
    """The names of the stages, in the ladder's order."""
    return library(backend).stages()


def variants(stage, backend="emulator"):
    """A stage's variants, in the order its chapter grows them."""
    return library(backend).variants(stage)


# --- tensors: what this file needs of PyTorch, and of NumPy -----------------------------------------


class _Torch:
    def __init__(self):
        self.torch = sys.modules["torch"]
        self.kind = self.torch.Tensor
        self.names = {}  # of dtypes

    def dtype(self, x):
        name = self.names.get(x.dtype)
        if name is None:
            name = self.names[x.dtype] = str(x.dtype)[len("torch."):]
        return name

    def place(self, x):
        return x.device

    def backend(self, x):
        if x.device.type not in ("cpu", "cuda"):
            raise Unsupported(f"A tensor is on {x.device}: only cpu and cuda tensors can be used.")
        return "cuda" if x.device.type == "cuda" else "emulator"

    def pointer(self, x):
        return x.data_ptr()

    def is_contiguous(self, x):
        return x.is_contiguous()

    def copy(self, x):
        return x.clone(memory_format=self.torch.contiguous_format)

    def zeros(self, like, shape, dtype):
        return self.torch.zeros(shape, dtype=getattr(self.torch, dtype), device=like.device)

    def empty(self, like, shape, dtype):
        return self.torch.empty(shape, dtype=getattr(self.torch, dtype), device=like.device)

    def refuse_gradient(self, tensors):
        if self.torch.is_grad_enabled() and any(x.requires_grad for x in tensors):
            raise Unsupported("There is no backward pass, and a tensor requires a gradient: call "
                              "this under torch.no_grad(), or with tensors that are detached.")

    def on_device(self, x):
        """A context in which the tensor's device is the current one."""
        if x.device.type == "cpu" or x.device.index == self.torch.cuda.current_device():
            return NOTHING
        return self.torch.cuda.device(x.device)

    def stream(self, x):
        """The device's current stream. Temporary tensors may go before the kernels have run: PyTorch
        gives their memory to later work of the same stream only."""
        return None if x.device.type == "cpu" else self.torch.cuda.current_stream(x.device).cuda_stream


class _NumPy:
    def __init__(self):
        self.numpy = sys.modules["numpy"]
        self.kind = self.numpy.ndarray

    def dtype(self, x):
        return x.dtype.name  # the package ml_dtypes adds bfloat16, float8_e4m3fn and float8_e5m2

    def place(self, x):
        return "cpu"

    def backend(self, x):
        return "emulator"

    def pointer(self, x):
        return x.ctypes.data

    def is_contiguous(self, x):
        return x.flags.c_contiguous

    def copy(self, x):
        return x.copy(order="C")

    def zeros(self, like, shape, dtype):
        return self.numpy.zeros(shape, dtype=dtype)

    def empty(self, like, shape, dtype):
        return self.numpy.empty(shape, dtype=dtype)

    def refuse_gradient(self, tensors):
        pass

    def on_device(self, x):
        return NOTHING

    def stream(self, x):
        return None


NOTHING = contextlib.nullcontext()
_torch, _numpy = functools.cache(_Torch), functools.cache(_NumPy)


def _arrays_of(first, name):
    for module, arrays in (("torch", _torch), ("numpy", _numpy)):
        if module in sys.modules and isinstance(first, arrays().kind):
            return arrays()
    raise Unsupported(f"{name} is a {type(first).__name__}: give a torch.Tensor or a numpy.ndarray.")


def _level_of_caller():
    """The stacklevel that makes a warning name the line outside this file."""
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals is globals():
        level, frame = level + 1, frame.f_back
    return level


# --- one call ----------------------------------------------------------------------------------------


class _Call:
    """The tensors and sizes of one call, checked as far as the library cannot: it sees pointers."""

    def __init__(self, first, first_name):
        self.arrays = _arrays_of(first, first_name)
        self.first, self.first_name, self.place = first, first_name, self.arrays.place(first)
        self.fields = {}  # sizes and options, scale only where one is given
        self.pointers = {}
        self.kept = []  # what pointers point into, until the library has been called

    def take(self, name, x, shape, dtypes, field=None):
        """Notes the tensor `x`. `shape` names its sizes: a name that is new is given the tensor's
        size, and any other has to agree. Returns the dtype's name."""
        arrays = self.arrays
        if not isinstance(x, arrays.kind):
            raise Unsupported(f"{name} is a {type(x).__name__}, and {self.first_name} a "
                              f"{type(self.first).__name__}: all must be of one kind.")
        if arrays.place(x) != self.place:
            raise Unsupported(f"{name} is on {arrays.place(x)}, and {self.first_name} on "
                              f"{self.place}: all must be on one device.")
        dtype = arrays.dtype(x)
        if dtype not in dtypes:
            raise Unsupported(f"{name} is {dtype}: it can be {', '.join(dtypes)}.")
        sizes, fields = x.shape, self.fields
        if len(sizes) != len(shape):
            raise Unsupported(f"{_must_be(name, sizes, shape)}.")
        for size, word in zip(sizes, shape):
            expected = fields.setdefault(word, size)
            if size != expected:
                raise Unsupported(f"{_must_be(name, sizes, shape)}, and {word} is {expected}.")
        pointer = arrays.pointer(x)
        if pointer % 16 != 0 or not arrays.is_contiguous(x):
            warnings.warn(f"{name} is not contiguous, or does not begin at a multiple of 16 bytes: "
                          "it is copied.", CopyWarning, stacklevel=_level_of_caller())
            x = arrays.copy(x)
            pointer = arrays.pointer(x)
        self.kept.append(x)
        self.pointers[field or name] = pointer
        return dtype

    def run(self, stage, variant, out_shape, out_dtype, return_lse=False):
        """The result, or (result, lse). `stage` is a name, or names to choose the first that can."""
        arrays, fields, pointers = self.arrays, self.fields, self.pointers
        arrays.refuse_gradient(self.kept)
        lib = library(arrays.backend(self.first))
        with arrays.on_device(self.first):
            shape = tuple(fields[size] for size in out_shape)
            out = arrays.empty(self.first, shape, out_dtype)
            pointers["o"] = arrays.pointer(out)
            lse = None
            if return_lse:
                lse = arrays.empty(self.first, shape[:3], "float32")
                pointers["lse"] = arrays.pointer(lse)
            key = (stage, variant, self.place, *fields.items(), *pointers)
            fields.setdefault("scale", math.nan)
            arguments = Arguments(**fields, **pointers)
            stage, bytes_needed = lib.plan(stage, variant, arguments, key)
            if bytes_needed > 0:
                # New and zero for each call; al_run() wants it to begin at a multiple of 256.
                workspace = arrays.zeros(self.first, (bytes_needed + 255,), "uint8")
                arguments.workspace = -(-arrays.pointer(workspace) // 256) * 256
                arguments.workspace_bytes = bytes_needed
            lib.run(stage, variant, arguments, arrays.stream(self.first))
        return (out, lse) if return_lse else out


def _must_be(name, sizes, shape):
    return f"{name} has shape {list(sizes)}: it must be [{', '.join(shape)}]"


def _first_that_can(lib, names, variant, arguments):
    if variant is not None:
        raise Unsupported(f"variant '{variant}' needs its stage: stage='auto' chooses both.")
    refusals = []
    for name in names:
        why = lib.refusal(name, None, arguments)
        if not why:
            return name
        refusals.append(why)
    raise Unsupported("No stage can do this:\n  " + "\n  ".join(refusals))


# --- what a program calls ----------------------------------------------------------------------------

WIDE = ("float16", "bfloat16", "float32")
PREFILL = ("09_cute", "08_wmma", "05_epilogue_norm_v2", "03_pv")
DECODE_QUERIES = 16  # chapter 07 takes up to so many


def scaled_dot_product_attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False,
                                 scale=None, enable_gqa=False, *, stage="auto", variant=None,
                                 return_lse=False):
    """torch.nn.functional.scaled_dot_product_attention by a stage of the ladder.

    The arguments mean what they mean there. With is_causal that is a mask aligned top-left: query
    i sees the keys j <= i. The ladder's is aligned bottom-right. Both are one where there are as
    many queries as keys, and is_causal is refused elsewhere; attention(causal=True), or
    torch.nn.attention.bias.causal_lower_right() as attn_mask, asks for bottom-right."""
    for name, x in (("query", query), ("key", key)):  # the others are looked at by attention()
        if len(getattr(x, "shape", ())) != 4:
            raise Unsupported(f"{name} is not a tensor [batch, heads, sequence, head_dim].")
    queries, keys = query.shape[2], key.shape[2]
    causal = bool(is_causal)
    if attn_mask is not None:
        if type(attn_mask).__name__ != "CausalBias":
            raise Unsupported("attn_mask is not supported: the stages know no mask but is_causal.")
        if is_causal:
            raise Unsupported("attn_mask and is_causal cannot both be given.")
        if (attn_mask.seq_len_q, attn_mask.seq_len_kv) != (queries, keys):
            raise Unsupported(f"attn_mask is for {attn_mask.seq_len_q} queries and "
                              f"{attn_mask.seq_len_kv} keys, and there are {queries} and {keys}.")
        causal = True
    lower_right = attn_mask is not None and attn_mask.variant.name == "LOWER_RIGHT"
    if causal and not lower_right and queries != keys:
        raise Unsupported(
            f"A causal mask aligned top-left, as PyTorch's is_causal is, is not supported for "
            f"{queries} queries and {keys} keys. If the queries are the last of the keys, call "
            "attention(..., causal=True): there query i sees the keys j <= i + keys - queries.")
    if dropout_p != 0:
        raise Unsupported(f"dropout_p {dropout_p} is not supported: it must be 0.")
    if not enable_gqa and query.shape[1] != key.shape[1]:
        raise Unsupported(f"query has {query.shape[1]} heads and key {key.shape[1]}: say "
                          "enable_gqa=True if groups of query heads are to share a key head.")
    return attention(query, key, value, causal=causal, scale=scale, stage=stage, variant=variant,
                     return_lse=return_lse)


def attention(query, key, value, *, causal=False, scale=None, stage="auto", variant=None,
              return_lse=False, q_scale=None, k_scale=None, v_scale=None, kv_len=None,
              page_table=None):
    """O = softmax(scale Q K^T) V, [batch, heads, seq, head_dim] like query; or (O, LSE).

    query [batch, heads, seq, head_dim], key and value [batch, kv_heads, kv_seq, head_dim]; query
    head h reads key head h // (heads // kv_heads).

    causal      aligned bottom-right: query i sees the keys j <= i + kv_seq - seq, with kv_len
                j <= i + kv_len[b] - seq. A query that sees none gives O = 0 and LSE = -inf.
    return_lse  also the natural logarithm of each row's sum of exponentials: [batch, heads, seq]
                float32
    q_scale, k_scale, v_scale   float32, [heads] and twice [kv_heads]: the factors of float8 q, k
                and v (chapter 06; with float8 k and v alone chapter 07). O is then float16.
    kv_len      int32 [batch], chapter 07: how many of the kv_seq keys each sequence has
    page_table  int32 [batch, max_pages], chapter 07: key and value are pages [n, kv_heads,
                page_size, head_dim], and the j-th of sequence b is page_table[b, j]; kv_seq is
                max_pages * page_size.

    stage "auto": chapter 07 for few queries, else the first of 09, 08, 05 and 03 that can; 06 for
    float8 queries."""
    call = _Call(query, "query")
    fields = call.fields
    dtype = call.take("query", query, ("batch", "heads", "seq", "head_dim"), tuple(DTYPES), "q")
    cache = ("batch", "kv_heads", "kv_seq", "head_dim")
    if page_table is not None:
        call.take("page_table", page_table, ("batch", "max_pages"), ("int32",))
        cache = ("pages", "kv_heads", "page_size", "head_dim")
    kv_dtype = call.take("key", key, cache, tuple(DTYPES), "k")
    call.take("value", value, cache, (kv_dtype,), "v")
    if page_table is not None:
        del fields["pages"]
        fields["kv_seq"] = fields["max_pages"] * fields["page_size"]
    if kv_len is not None:
        call.take("kv_len", kv_len, ("batch",), ("int32",))
    for name, x, heads, of in (("q_scale", q_scale, "heads", dtype),
                               ("k_scale", k_scale, "kv_heads", kv_dtype),
                               ("v_scale", v_scale, "kv_heads", kv_dtype)):
        if x is not None:
            call.take(name, x, (heads,), ("float32",))
        elif of in FP8:
            raise Unsupported(f"{name} is missing: {of} needs a factor for each head.")
    fields.update(dtype=DTYPES[dtype], causal=bool(causal))
    if kv_dtype != dtype:
        fields["kv_dtype"] = DTYPES[kv_dtype]
    if scale is not None:
        fields["scale"] = scale
    if stage == "auto":
        if dtype in FP8:
            stage = ("06_fp8_prefetch_v3",)
        elif fields["seq"] <= DECODE_QUERIES:
            stage = ("07_flash_decoding",) + PREFILL
        else:
            stage = PREFILL + ("07_flash_decoding",)
    return call.run(stage, variant, ("batch", "heads", "seq", "head_dim"),
                    "float16" if dtype in FP8 else dtype, return_lse=return_lse)


def scores(query, key, *, causal=False, scale=None, variant=None):
    """S = scale Q K^T, [batch, heads, seq, kv_seq] in float32 (chapter 01). Masked
    entries mean nothing: softmax() does not read them."""
    call = _scores_call(query, key, causal, scale)
    return call.run("01_naive_qk", variant, ("batch", "heads", "seq", "kv_seq"), "float32")


def probabilities(query, key, *, causal=False, scale=None):
    """P = softmax(scale Q K^T), [batch, heads, seq, kv_seq] of query's dtype (chapter 02's
    pipeline). Masked entries mean nothing: pv() does not read them."""
    call = _scores_call(query, key, causal, scale)
    return call.run("02_softmax", "pipeline", ("batch", "heads", "seq", "kv_seq"),
                    call.arrays.dtype(query))


def _scores_call(query, key, causal, scale):
    call = _Call(query, "query")
    dtype = call.take("query", query, ("batch", "heads", "seq", "head_dim"), WIDE, "q")
    call.take("key", key, ("batch", "kv_heads", "kv_seq", "head_dim"), (dtype,), "k")
    call.fields.update(dtype=DTYPES[dtype], causal=bool(causal))
    if scale is not None:
        call.fields["scale"] = scale
    return call


def softmax(s, *, causal=False, variant="one_pass", return_lse=False):
    """P = softmax(S) by rows, of S's dtype (chapter 02); s is [batch, heads, seq, kv_seq].
    Masked entries of S are not read, and those of P mean nothing."""
    call = _Call(s, "s")
    dtype = call.take("s", s, ("batch", "heads", "seq", "kv_seq"), WIDE)
    call.fields.update(dtype=DTYPES[dtype], causal=bool(causal), kv_heads=call.fields["heads"],
                       head_dim=64)  # which no softmax needs
    return call.run("02_softmax", variant, ("batch", "heads", "seq", "kv_seq"), dtype,
                    return_lse=return_lse)


def pv(p, value, *, causal=False, variant="register_tiles"):
    """O = P V, [batch, heads, seq, head_dim] (chapter 03); p is [batch, heads, seq, kv_seq]. Masked
    entries of P are not read."""
    call = _Call(p, "p")
    dtype = call.take("p", p, ("batch", "heads", "seq", "kv_seq"), WIDE)
    call.take("value", value, ("batch", "kv_heads", "kv_seq", "head_dim"), (dtype,), "v")
    call.fields.update(dtype=DTYPES[dtype], causal=bool(causal))
    return call.run("03_pv", variant, ("batch", "heads", "seq", "head_dim"), dtype)
