# make bench [STAGE=01_naive_qk]: the published shapes on this GPU → docs/results/<gpu>/<stage>.json.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

# A run whose results file tells why, row by row, when this GPU can do nothing of what was asked.
function(al_measure)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${AL_ROOT} RESULT_VARIABLE code)
  if(code EQUAL 2)
    message(STATUS "Not for this GPU (the table says why); the rest goes on.")
  elseif(NOT code EQUAL 0)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "This failed (${code}): ${command}")
  endif()
endfunction()

al_results_folder(results)
al_setup(BACKEND cuda)
if(STAGE)
  set(stages ${STAGE})
else()
  al_list_stages(stages)
endif()
al_build(cuda ${stages})
foreach(stage ${stages})
  set(configs tiny,hdim64_seq4k,hdim128_seq8k,hdim256_seq16k)
  if(stage STREQUAL "02_softmax")
    string(PREPEND configs softmax_1k,softmax_4k,softmax_8k,)
  endif()
  if(stage STREQUAL "07_flash_decoding")  # shapes of its own
    set(decode decode_8k,decode_8k_gqa,decode_64k,decode_64k_gqa,decode_128k,decode_128k_gqa)
    set(run build/cuda/bin/${stage})
    al_measure(${run} --config ${decode} --dtype fp16 --json ${results}/${stage}.json)
    al_measure(${run} --config ${decode} --kv-dtype e4m3 --variant overlapped
               --json ${results}/${stage}_fp8.json)
    al_measure(${run} --config decode_64k_gqa --batch 8 --variant tensor_cores,overlapped
               --json ${results}/${stage}_batch.json)
    al_measure(${run} --config decode_64k,decode_64k_gqa --variant best --kv-dtype fp16,e4m3
               --page-size 0,16,64 --json ${results}/${stage}_pages.json)
    al_measure(${run} --config decode_8k,decode_64k,decode_8k_gqa,decode_64k_gqa --sweep splits
               --json ${results}/${stage}_splits.json)
    continue()
  endif()
  set(dtypes fp32,fp16)
  if(stage STREQUAL "06_fp8_prefetch_v3")
    set(dtypes fp16,e4m3)
  endif()
  if(stage STREQUAL "08_wmma")
    set(configs tiny,hdim64_seq4k,hdim128_seq8k)
    set(dtypes fp16,bf16)
  endif()
  if(stage STREQUAL "09_cute")
    # Within the first hundred milliseconds the GPU runs into its power limit: many samples.
    set(dtypes fp16 --iters 300)
    al_measure(build/cuda/bin/${stage} --config ${configs} --dtype bf16 --causal --full
               --variant flash_sm80,flash_sm90 --iters 100 --json ${results}/${stage}_bf16.json)
    foreach(head_dim 64 128 256)  # 16K tokens, heads x head_dim = 2048
      math(EXPR heads "2048 / ${head_dim}")
      al_measure(build/cuda/bin/${stage} --heads ${heads} --head-dim ${head_dim} --dtype fp16
                 --causal --full --variant best --sweep seq=512:16384 --tokens 16384 --iters 100
                 --json ${results}/${stage}_seq_d${head_dim}.json)
    endforeach()
  endif()
  al_measure(build/cuda/bin/${stage} --config ${configs} --dtype ${dtypes} --causal --full
             --json ${results}/${stage}.json)
  if(NOT stage MATCHES "^0[12]_")  # those compute no attention yet
    al_add_pytorch(${results}/${stage}.json)
  endif()
endforeach()
