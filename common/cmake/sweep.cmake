# make sweep: every stage at every sequence length → docs/results/<gpu>/ladder_seq_*.json, and
# PyTorch beside them where there is one.
# make sweep STAGE=01_naive_qk: every tile on this GPU → docs/results/<gpu>/<stage>_tiles.json.
include(${CMAKE_CURRENT_LIST_DIR}/verbs.cmake)

al_results_folder(results)
al_setup(BACKEND cuda)
separate_arguments(arguments UNIX_COMMAND "${ARGS}")
if(STAGE)
  al_build(cuda ${STAGE}_tiles)
  al_run(build/cuda/bin/${STAGE}_tiles --sweep tiles --json ${results}/${STAGE}_tiles.json
         ${arguments})
  return()
endif()

al_build(cuda ladder 07_flash_decoding)
foreach(head_dim 64 128)
  set(file ${results}/ladder_seq_d${head_dim}.json)
  al_run(build/cuda/bin/ladder --batch 1 --heads 16 --head-dim ${head_dim} --dtype fp16
         --sweep seq=128:16384 --json ${file} ${arguments})
  al_add_pytorch(${file})
endforeach()
# Decoding grows the keys alone.
al_run(build/cuda/bin/07_flash_decoding --variant one_launch,overlapped --heads 16 --head-dim 64
       --dtype fp16 --sweep seq=1024:1048576:x4 --json ${results}/07_flash_decoding_seq.json
       ${arguments})
