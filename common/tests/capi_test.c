/* The C interface from plain C11, as a caller with nothing but the header and the library sees it.
 * capi_test.cpp runs these functions; each returns 0, or the line of the first broken expectation.
 */
#include <math.h>
#include <string.h>

#include "common/capi/attention_ladder.h"

#define EXPECT(condition) \
  if (!(condition)) return __LINE__
/* The call fails as bad usage and says exactly this. */
#define EXPECT_REFUSED(call, message) \
  EXPECT((call) == AL_UNSUPPORTED);   \
  EXPECT(strcmp(al_last_error(), message) == 0)

static al_arguments small_scores(void) {
  al_arguments a;
  memset(&a, 0, sizeof a);
  a.struct_size = sizeof a;
  a.dtype = AL_FP32;
  a.batch = 1;
  a.heads = 2;
  a.kv_heads = 1;
  a.seq = 2;
  a.kv_seq = 3;
  a.head_dim = 16;
  a.scale = NAN;
  return a;
}

int c_lists(void);
int c_lists(void) {
  int32_t version = 0, count = 0, variants = 0;
  const char* text = NULL;
  EXPECT(al_version(&version) == AL_OK && version == AL_VERSION);
  EXPECT(al_backend(&text) == AL_OK);
  EXPECT(strcmp(text, "cuda") == 0 || strcmp(text, "emulator") == 0);
  EXPECT(al_stage_count(&count) == AL_OK && count >= 1);
  for (int32_t stage = 0; stage < count; ++stage) {
    EXPECT(al_stage_title(stage, &text) == AL_OK && strlen(text) > 0);
    EXPECT(al_stage_name(stage, &text) == AL_OK && strlen(text) > 0);
    EXPECT(al_variant_count(text, &variants) == AL_OK && variants >= 1);
  }
  EXPECT(al_stage_name(0, &text) == AL_OK && strcmp(text, "01_naive_qk") == 0);
  EXPECT(al_variant_count("01_naive_qk", &variants) == AL_OK && variants == 4);
  EXPECT(al_variant_name("01_naive_qk", 0, &text) == AL_OK && strcmp(text, "uncoalesced") == 0);
  EXPECT(al_variant_name("01_naive_qk", 3, &text) == AL_OK && strcmp(text, "register_tiles") == 0);
  return 0;
}

int c_bad_names(void);
int c_bad_names(void) {
  const char* text = NULL;
  int32_t count = 0;
  const al_arguments a = small_scores();
  EXPECT_REFUSED(al_version(NULL), "version must not be NULL.");
  EXPECT_REFUSED(al_backend(NULL), "backend must not be NULL.");
  EXPECT_REFUSED(al_stage_count(NULL), "count must not be NULL.");
  EXPECT_REFUSED(al_stage_name(0, NULL), "name must not be NULL.");
  EXPECT(al_stage_name(-1, &text) == AL_UNSUPPORTED);
  EXPECT(strstr(al_last_error(), "There is no stage -1: there are ") != NULL);
  EXPECT(al_stage_title(1000, &text) == AL_UNSUPPORTED);
  EXPECT_REFUSED(al_variant_count(NULL, &count), "stage must not be NULL.");
  EXPECT(al_variant_count("10_magic", &count) == AL_UNSUPPORTED);
  EXPECT(strstr(al_last_error(), "There is no stage '10_magic': choose 01_naive_qk") != NULL);
  EXPECT_REFUSED(al_variant_name("01_naive_qk", 4, &text),
                 "01_naive_qk has no variant 4: it has 4, counted from 0.");
  EXPECT_REFUSED(al_supports("01_naive_qk", "fastest", &a),
                 "01_naive_qk has no variant 'fastest': it has uncoalesced, coalesced, "
                 "shared_tiles, register_tiles.");
  return 0;
}

int c_bad_arguments(void);
int c_bad_arguments(void) {
  const char* const stage = "01_naive_qk";
  size_t bytes = 0;
  float one = 1;
  int32_t length = 1;
  al_arguments a = small_scores();
  EXPECT_REFUSED(al_supports(stage, NULL, NULL), "arguments must not be NULL.");
  EXPECT_REFUSED(al_workspace_bytes(stage, NULL, &a, NULL), "bytes must not be NULL.");

  a.struct_size = sizeof a + 8;
  EXPECT(al_supports(stage, NULL, &a) == AL_UNSUPPORTED);
  EXPECT(strstr(al_last_error(), "set it to sizeof(al_arguments)") != NULL);
  a.struct_size = 0;
  EXPECT(al_supports(stage, NULL, &a) == AL_UNSUPPORTED);

  /* An older caller's struct ends before the strides; what lies behind it is not read. */
  a = small_scores();
  a.struct_size = offsetof(al_arguments, q_strides);
  memset((char*)&a + a.struct_size, 0x77, sizeof a - a.struct_size);
  EXPECT(al_supports(stage, NULL, &a) == AL_OK);
  a.struct_size -= 1;
  EXPECT(al_supports(stage, NULL, &a) == AL_UNSUPPORTED);

#define EXPECT_FIELD_REFUSED(field, value, message) \
  a = small_scores();                               \
  a.field = value;                                  \
  EXPECT_REFUSED(al_supports(stage, NULL, &a), message)

  EXPECT_FIELD_REFUSED(
      dtype, 0,
      "dtype 0 is not known: choose AL_FP16 (1), AL_BF16 (2), AL_FP32 (3), AL_E4M3 (4) "
      "or AL_E5M2 (5).");
  EXPECT_FIELD_REFUSED(seq, 0, "seq 0 is not possible: it must be at least 1.");
  EXPECT_FIELD_REFUSED(kv_seq, -1, "kv_seq -1 is not possible: it must be at least 1.");
  EXPECT_FIELD_REFUSED(head_dim, 63,
                       "head_dim 63 is not supported: choose 16, 32, 64, 128 or 256.");
  EXPECT_FIELD_REFUSED(head_dim, 0, "head_dim 0 is not possible: it must be at least 1.");
  EXPECT_FIELD_REFUSED(kv_heads, 3,
                       "heads 2 cannot share kv_heads 3: the number of query heads must be a "
                       "multiple of the key/value heads.");
  EXPECT_FIELD_REFUSED(scale, (double)INFINITY,
                       "scale inf is not possible: it must be a finite number.");
#define EXPECT_NULL_WANTED(field)                                                      \
  EXPECT_FIELD_REFUSED(field, &one,                                                    \
                       "01_naive_qk register_tiles computes scores and has no " #field \
                       ": it must be NULL.")
  EXPECT_NULL_WANTED(lse);
  EXPECT_NULL_WANTED(v);
  EXPECT_NULL_WANTED(s);
  EXPECT_NULL_WANTED(p);
#define EXPECT_SCALE_REFUSED(field) \
  EXPECT_FIELD_REFUSED(field, &one, #field " is for elements of 8 bits only: it must be NULL.")
  EXPECT_SCALE_REFUSED(q_scale);
  EXPECT_SCALE_REFUSED(k_scale);
  EXPECT_SCALE_REFUSED(v_scale);
  EXPECT_FIELD_REFUSED(page_table, &length,
                       "page_table and max_pages need a page_size, which is 0.");
  EXPECT_FIELD_REFUSED(max_pages, 4, "page_table and max_pages need a page_size, which is 0.");
#define CANNOT_RUN "01_naive_qk register_tiles cannot run B1 H2 Hkv1 N2 Nkv3 D16 "
  EXPECT_FIELD_REFUSED(kv_len, &length,
                       CANNOT_RUN
                       "fp32 full keys 3–3: it takes sequences of one length only "
                       "(kv_len).");
  EXPECT_FIELD_REFUSED(page_size, 16,
                       CANNOT_RUN
                       "fp32 full pages of 16: it does not take K and V in pages "
                       "(page_size).");
  EXPECT_FIELD_REFUSED(page_size, 17,
                       "page_size 17 is not supported: choose 16, 32, 64, 128 or 256 keys.");
  EXPECT_FIELD_REFUSED(kv_dtype, AL_E4M3,
                       CANNOT_RUN
                       "fp32 full kv e4m3: it takes K and V in Q's dtype only (kv_dtype "
                       "e4m3).");
  EXPECT_FIELD_REFUSED(dtype, AL_E5M2,
                       CANNOT_RUN "e5m2 full: it does not take 8-bit inputs (dtype e5m2).");
  EXPECT_FIELD_REFUSED(q_strides[2], 32,
                       "q_strides[2] is 32, but this stage takes contiguous tensors only: it must "
                       "be 16 or 0.");
  EXPECT_FIELD_REFUSED(k_strides[2], -16,
                       "k_strides[2] is -16, but this stage takes contiguous tensors only: it "
                       "must be 16 or 0.");
  EXPECT_FIELD_REFUSED(o_strides[1], 8,
                       "o_strides[1] is 8, but this stage takes contiguous tensors only: it must "
                       "be 6 or 0.");
  /* Contiguous strides are fine, and so is any stride along a size of 1. */
  a = small_scores();
  a.q_strides[0] = 999;
  a.q_strides[1] = 2 * 16;
  a.q_strides[2] = 16;
  a.o_strides[2] = 3;
  EXPECT(al_supports(stage, NULL, &a) == AL_OK);
  EXPECT(al_workspace_bytes(stage, "shared_tiles", &a, &bytes) == AL_OK && bytes == 0);
  return 0;
}

/* q, k and o are on the device; o has room for 2 * 2 * 3 floats. */
int c_run(const char* variant, const float* q, const float* k, float* o);
int c_run(const char* variant, const float* q, const float* k, float* o) {
  const char* const stage = "01_naive_qk";
  const char* best = NULL;
  al_arguments a = small_scores();
  EXPECT(al_best_variant(stage, &a, &best) == AL_OK && strlen(best) > 0);
  EXPECT_REFUSED(al_run(stage, variant, &a, NULL), "q must not be NULL.");
  a.q = q;
  a.k = k;
  EXPECT_REFUSED(al_run(stage, variant, &a, NULL), "o must not be NULL.");
  a.o = (char*)o + 4;
  EXPECT_REFUSED(al_run(stage, variant, &a, NULL), "o must be 16-byte aligned.");
  a.o = o;
  EXPECT(al_run(stage, variant, &a, NULL) == AL_OK);
  return 0;
}
