# What this machine has: a GPU, a CUDA toolkit, tools. Asked by configure and by setup alike.

include(${CMAKE_CURRENT_LIST_DIR}/versions.cmake)
get_filename_component(AL_ROOT ${CMAKE_CURRENT_LIST_DIR}/../.. ABSOLUTE)

# Python packages go into one virtual environment for all build trees. NVIDIA's wheels of CUDA 13
# all unpack into the same folder of it, laid out like a toolkit.
if(NOT DEFINED AL_VENV)
  set(AL_VENV ${AL_ROOT}/build/venv)
endif()
file(GLOB AL_SITE_PACKAGES ${AL_VENV}/lib/python3*/site-packages)
set(AL_PYPI_CUDA ${AL_SITE_PACKAGES}/nvidia/cu13)

# al_find_gpu(gpu): gpu_NAME "NVIDIA H200" and gpu_CAPABILITY "9.0" of the first GPU, or neither.
function(al_find_gpu out)
  find_program(nvidia_smi nvidia-smi PATHS /usr/lib/wsl/lib NO_CACHE)
  set(answer "")
  if(nvidia_smi)
    execute_process(
      COMMAND ${nvidia_smi} --query-gpu=compute_cap,name --format=csv,noheader
      OUTPUT_VARIABLE answer ERROR_QUIET)
  endif()
  if(answer MATCHES "^([0-9]+\\.[0-9]+), ([^\n]+)")
    set(${out}_CAPABILITY ${CMAKE_MATCH_1} PARENT_SCOPE)
    set(${out}_NAME ${CMAKE_MATCH_2} PARENT_SCOPE)
  else()
    unset(${out}_CAPABILITY PARENT_SCOPE)
    unset(${out}_NAME PARENT_SCOPE)
  endif()
endfunction()

# al_find_toolkit(cuda): cuda_NVCC, the compiler, and cuda_INCLUDES, the headers' folders; each
# empty when there is none. The machine's own toolkit comes before PyPI's.
function(al_find_toolkit out)
  set(nvcc "")
  set(includes "")
  set(hints $ENV{CUDACXX} ${CMAKE_CUDA_COMPILER})
  find_program(on_path nvcc HINTS $ENV{CUDA_HOME}/bin PATHS /usr/local/cuda/bin /opt/cuda/bin
                            NO_CACHE)
  foreach(candidate ${hints} ${on_path} ${AL_PYPI_CUDA}/bin/nvcc)
    if(NOT EXISTS ${candidate})
      continue()
    endif()
    execute_process(COMMAND ${candidate} --version OUTPUT_VARIABLE text ERROR_QUIET)
    if(text MATCHES "release ([0-9.]+)" AND CMAKE_MATCH_1 VERSION_GREATER_EQUAL AL_TOOLKIT_MINIMUM)
      set(nvcc ${candidate})
      break()
    endif()
    message(STATUS "Ignoring ${candidate}: attention-ladder needs CUDA ${AL_TOOLKIT_MINIMUM} or newer")
  endforeach()

  file(REAL_PATH "${nvcc}" compiler)
  get_filename_component(root ${compiler}/../.. ABSOLUTE)
  foreach(folder ${root}/include ${root}/targets/x86_64-linux/include ${AL_PYPI_CUDA}/include)
    if(EXISTS ${folder}/cuda_fp16.h)
      set(includes ${folder})
      if(EXISTS ${folder}/cccl/thrust)  # CUDA 13 moved Thrust and CUB here
        list(APPEND includes ${folder}/cccl)
      endif()
      break()
    endif()
  endforeach()
  set(${out}_NVCC "${nvcc}" PARENT_SCOPE)
  set(${out}_INCLUDES "${includes}" PARENT_SCOPE)
endfunction()

# al_find_cutlass(folder): where cute/tensor.hpp is: -DCUTLASS_DIR=a checkout, or what setup unpacked;
# or empty.
function(al_find_cutlass out)
  set(${out} "" PARENT_SCOPE)
  foreach(folder ${CUTLASS_DIR}/include ${CUTLASS_DIR} $ENV{CUTLASS_DIR}/include
                 ${AL_VENV}/cutlass/cutlass_library/source/include)
    if(EXISTS ${folder}/cute/tensor.hpp)
      set(${out} ${folder} PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# al_find_cudnn(cudnn): cudnn_HEADERS, the folder of cudnn.h, and cudnn_FRONTEND, that of
# cudnn_frontend.h; each empty when there is none.
function(al_find_cudnn out)
  find_path(headers cudnn.h HINTS ${cuda_INCLUDES} ${AL_SITE_PACKAGES}/nvidia/cudnn/include NO_CACHE)
  find_path(frontend cudnn_frontend.h HINTS ${cuda_INCLUDES} ${AL_SITE_PACKAGES}/include NO_CACHE)
  foreach(folder headers frontend)
    if(NOT ${folder})
      set(${folder} "")
    endif()
  endforeach()
  set(${out}_HEADERS "${headers}" PARENT_SCOPE)
  set(${out}_FRONTEND "${frontend}" PARENT_SCOPE)
endfunction()

# al_find_tool(path NAME): a tool of the CUDA toolkit or of the virtual environment, or empty.
function(al_find_tool out name)
  find_program(tool ${name} HINTS $ENV{CUDA_HOME}/bin ${AL_PYPI_CUDA}/bin ${AL_VENV}/bin
                    PATHS /usr/local/cuda/bin NO_CACHE)
  if(NOT tool)
    set(tool "")
  endif()
  set(${out} "${tool}" PARENT_SCOPE)
endfunction()

# al_find_clang_format(path): the version the tree is formatted with, or empty.
function(al_find_clang_format out)
  set(${out} "" PARENT_SCOPE)
  foreach(name clang-format-${AL_CLANG_FORMAT_MAJOR} clang-format)
    find_program(candidate_${name} ${name} NO_CACHE)
    find_program(installed_${name} ${name} PATHS ${AL_VENV}/bin NO_DEFAULT_PATH NO_CACHE)
    foreach(candidate ${candidate_${name}} ${installed_${name}})
      if(EXISTS ${candidate})
        execute_process(COMMAND ${candidate} --version OUTPUT_VARIABLE text ERROR_QUIET)
        if(text MATCHES "version ${AL_CLANG_FORMAT_MAJOR}\\.")
          set(${out} ${candidate} PARENT_SCOPE)
          return()
        endif()
      endif()
    endforeach()
  endforeach()
endfunction()
