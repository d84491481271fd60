"""Tests of attention_ladder.py, the part that needs no PyTorch: its calls on NumPy arrays, in the
emulator. Exit code 77 without NumPy. python3 examples/pytorch/wrapper_test.py"""

import ctypes
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import warnings

try:
    import numpy as np
except ImportError:
    print("SKIP: there is no numpy here")
    sys.exit(77)
try:
    import ml_dtypes  # adds bfloat16 and float8 to NumPy
except ImportError:
    ml_dtypes = None

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import attention_ladder as ladder  # noqa: E402
from library_or_skip import library_or_skip  # noqa: E402

library_or_skip("emulator")  # else twenty tests would say so

EPSILON = {"float32": 2.0**-18, "float16": 2.0**-10, "bfloat16": 2.0**-7}


def random(*shape, dtype="float32", seed=1):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def inputs(batch=2, heads=4, kv_heads=2, seq=37, kv_seq=37, head_dim=64, dtype="float32"):
    return (random(batch, heads, seq, head_dim, dtype=dtype, seed=1),
            random(batch, kv_heads, kv_seq, head_dim, dtype=dtype, seed=2),
            random(batch, kv_heads, kv_seq, head_dim, dtype=dtype, seed=3))


def visible(seq, kv_seq, causal=False):
    """[seq, kv_seq]: which keys a query sees, aligned bottom-right."""
    return np.tri(seq, kv_seq, kv_seq - seq, dtype=bool) if causal else np.ones((seq, kv_seq), bool)


def exact(q, k, v, mask, scale=None):
    """S, P, O and LSE in float64; masked S is -inf."""
    group = q.shape[1] // k.shape[1]
    q, k, v = (x.astype("float64") for x in (q, k, v))
    k, v = k.repeat(group, axis=1), v.repeat(group, axis=1)
    s = q @ k.swapaxes(2, 3) * (q.shape[-1]**-0.5 if scale is None else scale)
    s = np.where(mask, s, -math.inf)
    largest = s.max(axis=-1, keepdims=True)
    weights = np.where(mask, np.exp(s - np.where(np.isinf(largest), 0, largest)), 0)
    total = weights.sum(axis=-1, keepdims=True)
    p = weights / np.where(total == 0, 1, total)
    with np.errstate(divide="ignore"):
        lse = (np.log(total) + np.where(total == 0, 0, largest))[..., 0]
    return s, p, p @ v, lse


class Case(unittest.TestCase):
    def close(self, got, expected, dtype="float32"):
        """Within a few roundings of the largest; check.py has the real budget."""
        self.assertEqual(got.shape, expected.shape)
        got = got.astype("float64")
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(got[infinite], expected[infinite])
        error = np.abs(got[~infinite] - expected[~infinite])
        self.assertLess(error.max(), 4 * EPSILON[dtype] * np.abs(expected[~infinite]).max())

    def refused(self, text, function, *arguments, **options):
        with self.assertRaises(ladder.Unsupported) as caught:
            function(*arguments, **options)
        self.assertIn(text, str(caught.exception))


class Attention(Case):
    def test_every_stage(self):
        """Those that compute all of attention, in every dtype they take."""
        took = set()
        for dtype in EPSILON:
            if dtype == "bfloat16" and not ml_dtypes:
                continue
            for seq in (37, 5):
                q, k, v = inputs(seq=seq, dtype=dtype)
                for causal in (False, True):
                    o, lse = exact(q, k, v, visible(seq, 37, causal))[2:]
                    for stage in ladder.stages():
                        with self.subTest(stage=stage, dtype=dtype, causal=causal, seq=seq):
                            try:
                                got, got_lse = ladder.attention(
                                    q, k, v, causal=causal, stage=stage, return_lse=True)
                            except ladder.Unsupported:
                                continue
                            took.add((stage, dtype))
                            self.assertEqual(got.dtype.name, dtype)
                            self.close(got, o, dtype)
                            self.assertEqual(got_lse.dtype.name, "float32")
                            self.close(got_lse, lse)
        stages = {stage for stage, _ in took}
        self.assertEqual(len(stages), len(ladder.stages()) - 2)  # 01 and 02 compute parts of it
        self.assertIn(("05_epilogue_norm_v2", "float32"), took)
        self.assertIn(("09_cute", "float16"), took)

    def test_auto_takes_what_a_stage_can(self):
        for dtype, seq in (("float32", 37), ("float16", 37), ("float32", 1), ("float16", 1)):
            q, k, v = inputs(seq=seq, dtype=dtype)
            with self.subTest(dtype=dtype, seq=seq):
                self.close(ladder.attention(q, k, v), exact(q, k, v, visible(seq, 37))[2], dtype)
        q, k, v = inputs(head_dim=16)
        self.close(ladder.attention(q, k, v), exact(q, k, v, visible(37, 37))[2])

    def test_queries_without_keys(self):
        q, k, v = inputs(seq=9, kv_seq=5)
        got, lse = ladder.attention(q, k, v, causal=True, stage="05_epilogue_norm_v2",
                                    return_lse=True)
        self.assertTrue((got[:, :, :4] == 0).all())
        self.assertTrue(np.isneginf(lse[:, :, :4]).all())
        self.close(got, exact(q, k, v, visible(9, 5, True))[2])

    def test_scale_and_variant(self):
        q, k, v = inputs(dtype="float16")
        for variant in ("one_warp", "padded"):
            got = ladder.attention(q, k, v, scale=0.5, stage="08_wmma", variant=variant)
            self.close(got, exact(q, k, v, visible(37, 37), 0.5)[2], "float16")

    def test_lengths_and_pages(self):
        q, k, v = inputs(batch=3, seq=1, kv_seq=64)
        lengths = np.array([1, 40, 64], dtype="int32")
        mask = np.arange(64) < lengths[:, None, None, None]
        o = exact(q, k, v, mask)[2]
        k[0, :, 1:] = v[0, :, 1:] = math.nan  # room in the cache that nobody has written
        self.close(ladder.attention(q, k, v, kv_len=lengths), o)

        # The same in pages of 16 keys, in any order.
        table = np.random.default_rng(4).permutation(12).reshape(3, 4).astype("int32")
        pages = [np.empty((12, 2, 16, 64), "float32") for _ in "kv"]
        for paged, whole in zip(pages, (k, v)):
            paged[table.ravel()] = whole.reshape(3, 2, 4, 16, 64).swapaxes(1, 2).reshape(
                12, 2, 16, 64)
        self.close(ladder.attention(q, *pages, kv_len=lengths, page_table=table), o)

    @unittest.skipUnless(ml_dtypes, "NumPy has no float8: ml_dtypes is not installed")
    def test_8_bits(self):
        wide = inputs(seq=16, kv_seq=50)
        for dtype, largest in (("float8_e4m3fn", 448), ("float8_e5m2", 57344)):
            narrow, scales = [], []
            for x in wide:
                scale = (np.abs(x).max(axis=(0, 2, 3)) / largest).astype("float32")
                narrow.append((x / scale[:, None, None]).astype(dtype))
                scales.append(scale)
            back = [x.astype("float64") * s[:, None, None] for x, s in zip(narrow, scales)]
            o = exact(*back, visible(16, 50))[2]
            q_scale, k_scale, v_scale = scales
            with self.subTest(dtype=dtype):
                got = ladder.attention(*narrow, q_scale=q_scale, k_scale=k_scale, v_scale=v_scale)
                self.assertEqual(got.dtype.name, "float16")
                self.assertLess(np.abs(got - o).max(), 0.06 * np.abs(o).max())  # P has 8 bits too
                self.refused("k_scale is missing: " + dtype, ladder.attention, *narrow,
                             q_scale=q_scale)
            if dtype == "float8_e4m3fn":  # the cache alone in 8 bits: chapter 07
                q = wide[0].astype("float16")
                o = exact(q, *back[1:], visible(16, 50))[2]
                got = ladder.attention(q, *narrow[1:], k_scale=k_scale, v_scale=v_scale)
                self.close(got, o, "float16")


class Pieces(Case):
    def test_scores_softmax_pv(self):
        for dtype in ("float32", "float16"):
            for causal in (False, True):
                with self.subTest(dtype=dtype, causal=causal):
                    q, k, v = inputs(seq=20, kv_seq=33, dtype=dtype)
                    mask = visible(20, 33, causal)
                    s, p, o, lse = exact(q, k, v, mask)
                    for variant in ladder.variants("01_naive_qk"):
                        got = ladder.scores(q, k, causal=causal, variant=variant)
                        self.assertEqual(got.dtype.name, "float32")
                        self.close(np.where(mask, got, -math.inf), s)
                    got = ladder.probabilities(q, k, causal=causal)
                    self.close(np.where(mask, got, 0), p, dtype)
                    unread = np.where(mask, s, math.nan).astype(dtype)
                    for variant in ("three_pass", "one_pass", "online"):
                        got, got_lse = ladder.softmax(unread, causal=causal, variant=variant,
                                                      return_lse=True)
                        self.assertEqual(got.dtype.name, dtype)
                        self.close(np.where(mask, got, 0), p, dtype)
                        self.close(got_lse, lse, dtype)
                    for variant in ("coalesced", "shared_tiles", "register_tiles"):
                        unread = np.where(mask, p, math.nan).astype(dtype)
                        got = ladder.pv(unread, v, causal=causal, variant=variant)
                        self.close(got, o, dtype)


class LikePyTorch(Case):
    """scaled_dot_product_attention: what it takes, and what it refuses."""

    def test_the_same_arguments(self):
        q, k, v = inputs()
        causal = exact(q, k, v, visible(37, 37, True))[2]
        sdpa = ladder.scaled_dot_product_attention
        self.close(sdpa(q, k, v, None, 0.0, True, None, True), causal)
        self.close(sdpa(q, k, v, is_causal=True, enable_gqa=True), causal)
        self.close(sdpa(q, k, v, scale=0.25, enable_gqa=True),
                   exact(q, k, v, visible(37, 37), 0.25)[2])
        self.close(sdpa(q, k, v, enable_gqa=True, return_lse=True, stage="03_pv")[1],
                   exact(q, k, v, visible(37, 37))[3])

    def test_causal_alignment(self):
        """PyTorch's is top-left, ours bottom-right; where they differ nothing is guessed."""
        q, k, v = inputs(kv_heads=4, seq=5)
        sdpa = ladder.scaled_dot_product_attention
        self.refused("aligned top-left, as PyTorch's is_causal is, is not supported for 5 queries "
                     "and 37 keys", sdpa, q, k, v, is_causal=True)
        self.close(ladder.attention(q, k, v, causal=True), exact(q, k, v, visible(5, 37, True))[2])

        class Variant:
            name = "LOWER_RIGHT"

        class CausalBias:  # as torch.nn.attention.bias has it
            seq_len_q, seq_len_kv, variant = 5, 37, Variant

        self.close(sdpa(q, k, v, attn_mask=CausalBias()), exact(q, k, v, visible(5, 37, True))[2])
        self.refused("cannot both be given", sdpa, q, k, v, CausalBias(), is_causal=True)
        CausalBias.seq_len_kv = 36
        self.refused("attn_mask is for 5 queries and 36 keys", sdpa, q, k, v, CausalBias())
        CausalBias.seq_len_kv, Variant.name = 37, "UPPER_LEFT"
        self.refused("aligned top-left", sdpa, q, k, v, CausalBias())

    def test_what_is_not_supported(self):
        q, k, v = inputs()
        sdpa = ladder.scaled_dot_product_attention
        self.refused("attn_mask is not supported", sdpa, q, k, v, np.ones((37, 37), bool))
        self.refused("query is not a tensor [batch, heads,", sdpa, q[0], k[0], v[0])
        self.refused("key is not a tensor [batch, heads,", sdpa, q, [1], v)
        self.refused("dropout_p 0.1 is not supported", sdpa, q, k, v, dropout_p=0.1)
        self.refused("query has 4 heads and key 2: say enable_gqa=True", sdpa, q, k, v)


class Refusals(Case):
    def test_sentences(self):
        q, k, v = inputs()
        attention = ladder.attention
        self.refused("query is a list: give a torch.Tensor or a numpy.ndarray", attention, [1], k,
                     v)
        self.refused("key is a list, and query a ndarray", attention, q, [1], v)
        self.refused("query is float64: it can be float16", attention, q.astype("float64"), k, v)
        self.refused("value is float16: it can be float32.", attention, q, k, v.astype("float16"))
        self.refused("query has shape [4, 37, 64]: it must be [batch, heads, seq, head_dim].",
                     attention, q[0], k, v)
        self.refused("value has shape [2, 2, 36, 64]: it must be [batch, kv_heads, kv_seq, "
                     "head_dim], and kv_seq is 37.", attention, q, k, v[:, :, :36])
        self.refused("kv_len is int64: it can be int32", attention, q, k, v,
                     kv_len=np.array([1, 2]))
        self.refused("There is no stage '10_magic'", attention, q, k, v, stage="10_magic")
        self.refused("has no variant 'fastest'", attention, q, k, v, stage="04_fused_v1",
                     variant="fastest")
        self.refused("needs its stage", attention, q, k, v, variant="fused")
        self.refused("computes scores and has no v", attention, q, k, v, stage="01_naive_qk")
        self.refused("heads 4 cannot share kv_heads 3", attention, q, *inputs(kv_heads=3)[1:],
                     stage="04_fused_v1")
        # Where no stage can, each says why.
        lengths = np.array([3, 4], dtype="int32")
        with self.assertRaises(ladder.Unsupported) as caught:
            attention(q, k, v, kv_len=lengths)
        self.assertIn("No stage can do this:", str(caught.exception))
        for stage in ("09_cute", "08_wmma", "05_epilogue", "03_pv", "07_flash_decoding"):
            self.assertIn(stage, str(caught.exception))

    def test_the_emulator_finds_a_wrong_argument(self):
        """A page that is not there: what on a GPU would read memory of somebody else."""
        q = random(1, 2, 1, 64)
        pages = random(4, 2, 16, 64)
        table = np.array([[3, -7]], dtype="int32")
        with self.assertRaises(ladder.DeviceFault) as caught:
            ladder.attention(q, pages, pages, page_table=table)
        self.assertIn("access outside global memory", str(caught.exception))
        self.assertIn("decode_split", str(caught.exception))


class Copies(Case):
    def test_only_where_needed(self):
        q, k, v = inputs()
        expected = exact(q, k, v, visible(37, 37))[2]
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.close(ladder.attention(q, k, v), expected)
            self.close(ladder.attention(q[:1], k[:1], v[:1]), expected[:1])  # contiguous still
        strided = np.ascontiguousarray(q.swapaxes(1, 2)).swapaxes(1, 2)
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            self.close(ladder.attention(strided, k, v), expected)
        self.assertEqual([w.category for w in seen], [ladder.CopyWarning])
        self.assertIn("query is not contiguous", str(seen[0].message))
        self.assertEqual(pathlib.Path(seen[0].filename).name, pathlib.Path(__file__).name)

        floats = np.empty(v.size + 1, "float32")
        off = floats[1:].reshape(v.shape)
        off[:] = v
        with self.assertWarnsRegex(ladder.CopyWarning, "value is not contiguous, or does not begin"):
            self.close(ladder.attention(q, k, off), expected)

    def test_inputs_are_left_alone_and_nothing_leaks(self):
        q, k, v = inputs(batch=1, seq=16, kv_seq=16)
        before = [x.copy() for x in (q, k, v)]
        for _ in range(30):
            ladder.attention(q, k, v, stage="03_pv", return_lse=True)
        resident = resident_bytes()
        for _ in range(300):
            ladder.attention(q, k, v, stage="03_pv", return_lse=True)
        # 300 results of 16 KB and workspaces of 6 KB would be 7 MB.
        self.assertLess(resident_bytes() - resident, 2 << 20)
        for x, y in zip((q, k, v), before):
            np.testing.assert_array_equal(x, y)


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class TheLibrary(unittest.TestCase):
    def test_lists(self):
        self.assertEqual(ladder.stages()[0], "01_naive_qk")
        self.assertEqual(ladder.variants("04_fused_v1"), ["fused"])

    def test_struct_is_the_headers(self):
        """Field by field; the size is checked by the library, which refuses a larger struct."""
        header = (HERE.parents[1] / "common" / "capi" / "attention_ladder.h").read_text()
        text = header[header.index("typedef struct al_arguments"):header.index("} al_arguments;")]
        text = re.sub(r"/\*.*?\*/", "", text, flags=re.S).split("{")[1]
        names = re.findall(r"(\w+)(?:\[\d\])?\s*[,;]", text)
        self.assertEqual(names, [field[0] for field in ladder.Arguments._fields_])
        version = int(re.search(r"#define AL_VERSION (\d+)", header)[1])
        self.assertEqual(ladder.ABI_VERSION, version)
        self.assertEqual(ctypes.sizeof(ladder.Arguments) % 8, 0)

    def fake(self, folder, version, backend):
        """A library that only says which it is."""
        code = (f"int al_version(int* v) {{ *v = {version}; return 0; }}\n"
                f"int al_backend(const char** b) {{ *b = \"{backend}\"; return 0; }}\n"
                + "".join(f"void al_{name}(void) {{}}\n" for name in (
                    "last_error", "stage_count", "stage_name", "variant_count", "variant_name",
                    "supports", "workspace_bytes", "run")))
        path = pathlib.Path(folder) / f"fake_{version}_{backend}.so"
        subprocess.run([os.environ.get("CC", "cc"), "-shared", "-fPIC", "-x", "c", "-", "-o", path],
                       input=code, text=True, check=True)
        return path

    def test_another_version_or_backend(self):
        with tempfile.TemporaryDirectory() as folder:
            self.assertEqual(ladder.Library(self.fake(folder, 3, "cuda"), "cuda").backend, "cuda")
            with self.assertRaisesRegex(ladder.Error, "has version 1 of the C interface"):
                ladder.Library(self.fake(folder, 1, "cuda"), "cuda")
            with self.assertRaisesRegex(ladder.Error, "is the library for emulator, not for cuda"):
                ladder.Library(self.fake(folder, 2, "emulator"), "cuda")

    def test_none_to_be_found(self):
        """A copy of the file, far from any library, says what to build and where it looked."""
        with tempfile.TemporaryDirectory() as folder:
            (pathlib.Path(folder) / "a" / "b").mkdir(parents=True)
            copy = pathlib.Path(folder) / "a" / "b" / "attention_ladder.py"
            copy.write_text((HERE / "attention_ladder.py").read_text())
            environment = {**os.environ, "ATTENTION_LADDER_PATH": "/nowhere"}
            environment.pop("LD_LIBRARY_PATH", None)
            done = subprocess.run([sys.executable, "-c", "import attention_ladder; "
                                   "attention_ladder.stages()"], cwd=copy.parent, text=True,
                                  env=environment, capture_output=True)
        self.assertIn("There is no libattention_ladder_emulator.so", done.stderr)
        self.assertIn("--target attention_ladder_emulator", done.stderr)
        self.assertIn("/nowhere/libattention_ladder_emulator.so", done.stderr)
        self.assertNotIn("OSError", done.stderr)


if __name__ == "__main__":
    unittest.main()
