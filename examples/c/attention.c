/* Attention over a prompt, then one step of decoding against the cache of keys and values, through
 * the C interface of attention-ladder; both are compared with fifteen lines of plain C.
 *
 * Linked with attention_ladder::emulator the kernels run on the CPU and take host pointers. With
 * attention_ladder::cuda they take device pointers: the four functions in "Memory" are all that
 * differs. */
#include <attention_ladder.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, KV_HEADS = 2, HEAD_DIM = 64, PROMPT = 100, TOKENS = PROMPT + 1 };

static void stop_unless(int good, const char* what, const char* why) {
  if (good) return;
  fprintf(stderr, "%s: %s\n", what, why);
  exit(1);
}

/* --- Memory ----------------------------------------------------------------------------------- */

#ifdef ON_A_GPU
#include <cuda_runtime_api.h>

static void check_cuda(cudaError_t error, const char* what) {
  stop_unless(error == cudaSuccess, what, cudaGetErrorString(error));
}
static void* allocate(size_t bytes) {
  void* memory = NULL;
  check_cuda(cudaMalloc(&memory, bytes), "cudaMalloc");
  return memory;
}
static void release(void* memory) { check_cuda(cudaFree(memory), "cudaFree"); }
static void copy(void* to, const void* from, size_t bytes) { /* to or from the device */
  check_cuda(cudaMemcpy(to, from, bytes, cudaMemcpyDefault), "cudaMemcpy");
}
static void set_to_zero(void* memory, size_t bytes) {
  check_cuda(cudaMemset(memory, 0, bytes), "cudaMemset");
}
#else
static void* allocate(size_t bytes) {
  void* memory = aligned_alloc(256, (bytes + 255) / 256 * 256);
  stop_unless(memory != NULL, "aligned_alloc", "out of memory");
  return memory;
}
static void release(void* memory) { free(memory); }
static void copy(void* to, const void* from, size_t bytes) { memcpy(to, from, bytes); }
static void set_to_zero(void* memory, size_t bytes) { memset(memory, 0, bytes); }
#endif

/* --- The library ------------------------------------------------------------------------------ */

/* Runs the stage's best variant, with the workspace that it asks for. */
static void run(const char* stage, al_arguments* a) {
  stop_unless(al_workspace_bytes(stage, NULL, a, &a->workspace_bytes) == AL_OK, stage,
              al_last_error());
  if (a->workspace_bytes > 0) {
    a->workspace = allocate(a->workspace_bytes);
    set_to_zero(a->workspace, a->workspace_bytes);
  }
  stop_unless(al_run(stage, NULL, a, NULL) == AL_OK, stage, al_last_error());
  if (a->workspace_bytes > 0) release(a->workspace); /* cudaFree waits for the kernel */
  a->workspace = NULL;
}

/* --- The same in plain C ---------------------------------------------------------------------- */

/* One row of O: the query q against `keys` rows of one head's K and V. */
static void plain_row(const float* q, const float* k, const float* v, int keys, double* o) {
  double p[TOKENS], largest = -INFINITY, sum = 0;
  for (int j = 0; j < keys; ++j) {
    p[j] = 0;
    for (int d = 0; d < HEAD_DIM; ++d) p[j] += (double)q[d] * k[j * HEAD_DIM + d];
    p[j] /= sqrt(HEAD_DIM);
    if (p[j] > largest) largest = p[j];
  }
  for (int j = 0; j < keys; ++j) sum += p[j] = exp(p[j] - largest);
  for (int d = 0; d < HEAD_DIM; ++d) {
    o[d] = 0;
    for (int j = 0; j < keys; ++j) o[d] += p[j] / sum * v[j * HEAD_DIM + d];
  }
}

/* Query head h reads key head h / (HEADS / KV_HEADS). Query i of `queries`, which are the last of
 * `tokens`, sees the keys up to its own. */
static double largest_error(const float* o, const float* q, const float* k, const float* v,
                            int queries, int tokens) {
  double row[HEAD_DIM], largest = 0;
  for (int head = 0; head < HEADS; ++head) {
    const int cache = head / (HEADS / KV_HEADS) * TOKENS * HEAD_DIM;
    for (int i = 0; i < queries; ++i) {
      const int at = (head * queries + i) * HEAD_DIM;
      plain_row(q + at, k + cache, v + cache, tokens - queries + i + 1, row);
      for (int d = 0; d < HEAD_DIM; ++d) largest = fmax(largest, fabs(row[d] - o[at + d]));
    }
  }
  return largest;
}

/* ---------------------------------------------------------------------------------------------- */

/* Numbers between -1 and 1, the same on every machine. */
static void fill(float* values, int count, unsigned seed) {
  for (int i = 0; i < count; ++i) {
    seed = seed * 1664525u + 1013904223u;
    values[i] = (float)(seed >> 8) / (1 << 23) - 1;
  }
}

/* The `rows` first rows of each key head, close together, as the stages for whole prompts take
 * them. */
static void pack(float* to, const float* cache, int rows) {
  for (int head = 0; head < KV_HEADS; ++head) {
    memcpy(to + head * rows * HEAD_DIM, cache + head * TOKENS * HEAD_DIM,
           (size_t)rows * HEAD_DIM * sizeof(float));
  }
}

int main(void) {
  enum { CACHE = KV_HEADS * TOKENS * HEAD_DIM, QUERIES = HEADS * PROMPT * HEAD_DIM };
  static float q[QUERIES], k[CACHE], v[CACHE], packed[CACHE], o[QUERIES];
  const char* backend = NULL;
  int32_t version = 0;
  stop_unless(al_backend(&backend) == AL_OK && al_version(&version) == AL_OK, "attention-ladder",
              al_last_error());
  printf("attention-ladder on %s, version %d of the C interface\n", backend, version);

  fill(q, QUERIES, 1);
  fill(k, CACHE, 2);
  fill(v, CACHE, 3);
  void* const device_q = allocate(sizeof q);
  void* const device_k = allocate(sizeof k);
  void* const device_v = allocate(sizeof v);
  void* const device_o = allocate(sizeof o);

  /* The prompt: PROMPT queries, as many keys. */
  al_arguments a = {.struct_size = sizeof a,
                    .dtype = AL_FP32,
                    .batch = 1,
                    .heads = HEADS,
                    .kv_heads = KV_HEADS,
                    .seq = PROMPT,
                    .kv_seq = PROMPT,
                    .head_dim = HEAD_DIM,
                    .causal = 1,
                    .scale = NAN, /* 1 / sqrt(head_dim) */
                    .q = device_q,
                    .k = device_k,
                    .v = device_v,
                    .o = device_o};
  copy(device_q, q, sizeof q);
  pack(packed, k, PROMPT);
  copy(device_k, packed, sizeof packed);
  pack(packed, v, PROMPT);
  copy(device_v, packed, sizeof packed);
  run("05_epilogue_norm_v2", &a);
  copy(o, device_o, sizeof o);
  const double prompt_error = largest_error(o, q, k, v, PROMPT, PROMPT);
  printf("05_epilogue_norm_v2  %3d queries, %d keys: largest error %.1e\n", PROMPT, PROMPT,
         prompt_error);

  /* The next token: one query against the cache, which has room for TOKENS keys. How many are
   * there is on the device, where a server that decodes many sequences keeps it. */
  const int32_t length = TOKENS;
  void* const device_length = allocate(sizeof length);
  fill(q, HEADS * HEAD_DIM, 4);
  copy(device_q, q, HEADS * HEAD_DIM * sizeof(float));
  copy(device_k, k, sizeof k);
  copy(device_v, v, sizeof v);
  copy(device_length, &length, sizeof length);
  a.seq = 1;
  a.kv_seq = TOKENS;
  a.kv_len = device_length;
  run("07_flash_decoding", &a);
  copy(o, device_o, HEADS * HEAD_DIM * sizeof(float));
  const double step_error = largest_error(o, q, k, v, 1, TOKENS);
  printf("07_flash_decoding      1 query,   %d keys: largest error %.1e\n", TOKENS, step_error);

  /* What a stage does not do it refuses, with the reason. */
  a.head_dim = 63;
  stop_unless(al_supports("07_flash_decoding", NULL, &a) == AL_UNSUPPORTED, "head_dim 63",
              "this should have been refused");
  printf("refused: %s\n", al_last_error());

  release(device_q), release(device_k), release(device_v), release(device_o);
  release(device_length);
  return prompt_error < 1e-5 && step_error < 1e-5 ? 0 : 1;
}
