# make bench: the published shapes on this GPU → docs/results/<gpu>/<stage>.json.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_results_folder(results)
al_setup(BACKEND cuda)
al_build(cuda)
al_list_stages(stages)
foreach(stage ${stages})
  set(configs tiny,hdim64_seq4k,hdim128_seq8k,hdim256_seq16k)
  if(stage STREQUAL "02_softmax")
    string(PREPEND configs softmax_1k,softmax_4k,softmax_8k,)
  endif()
  set(dtypes fp32,fp16)
  if(stage STREQUAL "08_wmma")
    set(configs tiny,hdim64_seq4k,hdim128_seq8k)
    set(dtypes fp16,bf16)
  endif()
  al_run(build/cuda/bin/${stage} --config ${configs} --dtype ${dtypes} --causal --full
         --json ${results}/${stage}.json)
  if(NOT stage MATCHES "^0[12]_")  # those compute no attention yet
    al_add_pytorch(${results}/${stage}.json)
  endif()
endforeach()
