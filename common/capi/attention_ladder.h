/* The C interface of attention-ladder: any chapter, called from C, C++, Python or another language.
 *
 * libattention_ladder.so runs kernels on a GPU: pointers are device pointers, and al_run() enqueues
 * on a stream and returns. libattention_ladder_emulator.so runs the same kernels on the CPU:
 * pointers are host pointers, and al_run() returns when the result is there.
 *
 * Every function returns a status; after any other than AL_OK, al_last_error() says in a sentence
 * what was asked and what is allowed. No exception and no abort crosses this interface. All
 * functions may be called from several threads at once. Strings that are returned live as long as
 * the library. */
#ifndef ATTENTION_LADDER_H
#define ATTENTION_LADDER_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define AL_API __attribute__((visibility("default")))
#else
#define AL_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define AL_VERSION 2 /* grows by one whenever al_arguments does */

typedef enum al_status {
  AL_OK = 0,
  AL_DEVICE_FAULT = 1, /* the device refused or failed; emulator: the kernel did something wrong */
  AL_UNSUPPORTED = 2,  /* bad arguments, or a problem this stage does not support */
  AL_NO_DEVICE = 77    /* no suitable GPU */
} al_status;

typedef enum al_dtype { AL_FP16 = 1, AL_BF16 = 2, AL_FP32 = 3, AL_E4M3 = 4, AL_E5M2 = 5 } al_dtype;

/* O = softmax(scale * Q K^T) V, or the part of it that the stage's variant computes.
 *
 *   q         [batch, heads, seq, head_dim]        of dtype
 *   k, v      [batch, kv_heads, kv_seq, head_dim]  of dtype; query head h reads key/value head
 *                                                  h / (heads / kv_heads)
 *   s, p      [batch, heads, seq, kv_seq]          of dtype, contiguous; masked entries are not
 * read o         the result lse       [batch, heads, seq] fp32, natural logarithm; NULL: not wanted
 *
 * What a variant reads and writes; what it does not read must be NULL:
 *
 *   computes                    reads     o is
 *   scores (01)                 q, k      S, [batch, heads, seq, kv_seq] in fp32
 *   softmax of scores (02)      s         P, [batch, heads, seq, kv_seq] of dtype; has lse
 *   both (02's pipeline)        q, k      P, likewise
 *   P V (03)                    p, v      O, [batch, heads, seq, head_dim] of dtype
 *   attention                   q, k, v   O, likewise; has lse
 *
 * Masked entries of S and P need not be written, and mean nothing where they are.
 *
 * Of AL_E4M3 and AL_E5M2 an element stands for what is stored times its head's scale; O is then
 * AL_FP16.
 *
 * Causal is aligned bottom-right: query i sees the keys j <= i + kv_seq - seq, with kv_len
 * j <= i + kv_len[b] - seq.
 * q, k, v, s, p, o and lse are 16-byte aligned, workspace 256-byte. Fill the workspace with zeros
 * before its first run, and again before a run of another stage, variant or size: some kernels
 * count their blocks in it, and leave the counts as they found them.
 *
 * Set the whole struct to zero, then struct_size and what you need. A caller compiled against an
 * older header passes a smaller struct; what it lacks counts as zero. A struct larger than this
 * library knows is refused. A field that a stage does not support must be zero, or the stage
 * refuses it by name. */
typedef struct al_arguments {
  size_t struct_size; /* sizeof(al_arguments) */
  int32_t dtype;      /* al_dtype */
  int32_t batch, heads, kv_heads, seq, kv_seq, head_dim;
  int32_t causal; /* 0 or 1 */
  double scale;   /* NaN: 1 / sqrt(head_dim) */
  const void *q, *k, *v, *s, *p;
  void* o;
  float* lse;
  void* workspace; /* al_workspace_bytes() of memory; NULL where that is 0 */
  size_t workspace_bytes;
  /* Distance in elements from one batch, head and row to the next; 0: contiguous. */
  int64_t q_strides[3], k_strides[3], v_strides[3], o_strides[3];
  const float *q_scale, *k_scale, *v_scale; /* of 8-bit q, k and v: one factor a head, on the
                                               device, [heads] of q and [kv_heads] of k and v */
  const int32_t* kv_len; /* [batch], on the device: how many of its kv_seq keys each sequence has,
                            0 ... kv_seq; NULL: all */
  const int32_t* page_table;    /* [batch, max_pages], on the device: k and v are then pages
                                   [n, kv_heads, page_size, head_dim], and keys j * page_size and on of
                                   sequence b lie in page page_table[b, j]. Entries past a sequence's
                                   last key are not used */
  int32_t page_size, max_pages; /* page_size * max_pages >= kv_seq */
  int32_t kv_dtype;             /* al_dtype of k and v; 0: dtype. Since version 2 */
} al_arguments;

/* AL_VERSION of the library, and "cuda" or "emulator". */
AL_API al_status al_version(int32_t* version);
AL_API al_status al_backend(const char** backend);

/* The stages, 0 ... count-1 in the ladder's order: "01_naive_qk", and one line about it. */
AL_API al_status al_stage_count(int32_t* count);
AL_API al_status al_stage_name(int32_t index, const char** name);
AL_API al_status al_stage_title(int32_t index, const char** title);

/* A stage's variants, in the order its chapter grows them. */
AL_API al_status al_variant_count(const char* stage, int32_t* count);
AL_API al_status al_variant_name(const char* stage, int32_t index, const char** name);

/* Below, `variant` may be NULL or "best": the one that al_best_variant() names. */
AL_API al_status al_best_variant(const char* stage, const al_arguments* arguments,
                                 const char** name);

/* AL_OK if al_run() would take these sizes and options here. Tensors that are read may be NULL. */
AL_API al_status al_supports(const char* stage, const char* variant, const al_arguments* arguments);

/* Bytes of device memory that al_run() needs as workspace. */
AL_API al_status al_workspace_bytes(const char* stage, const char* variant,
                                    const al_arguments* arguments, size_t* bytes);

/* Enqueues the kernels on `stream`, a cudaStream_t; NULL is the default stream. */
AL_API al_status al_run(const char* stage, const char* variant, const al_arguments* arguments,
                        void* stream);

/* What the last failing call of this thread had to say; "" before the first. Valid until this
 * thread's next failing call. */
AL_API const char* al_last_error(void);

#ifdef __cplusplus
}
#endif

#endif
