# What the Makefile's rules are made of: set up, configure, build, run. Script mode.

include(${CMAKE_CURRENT_LIST_DIR}/setup.cmake)
unset(ENV{MAKEFLAGS})  # of the make that called: its children would announce every folder
unset(ENV{MAKELEVEL})
# How many at once: all that have 3.5 GB each, which nvcc takes for CuTe's files (g++: 2).
cmake_host_system_information(RESULT AL_CORES QUERY NUMBER_OF_LOGICAL_CORES)
cmake_host_system_information(RESULT memory QUERY TOTAL_PHYSICAL_MEMORY)  # MiB
math(EXPR room "${memory} / 3500 + 1")
if(room LESS AL_CORES)
  set(AL_CORES ${room})
endif()

# al_choose_backend(backend): cuda when there is a GPU.
function(al_choose_backend out)
  al_find_gpu(gpu)
  if(gpu_NAME)
    message(STATUS "GPU: ${gpu_NAME}")
    set(${out} cuda PARENT_SCOPE)
  else()
    message(STATUS "There is no NVIDIA GPU here (nvidia-smi shows none): kernels run in the emulator")
    set(${out} emulator PARENT_SCOPE)
  endif()
endfunction()

function(al_run)
  execute_process(COMMAND ${ARGN} WORKING_DIRECTORY ${AL_ROOT} RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    string(REPLACE ";" " " command "${ARGN}")
    message(FATAL_ERROR "This failed (${code}): ${command}")
  endif()
endfunction()

# al_build(PRESET [targets...]): everything, when no target is named.
function(al_build preset)
  set(folder ${AL_ROOT}/build/${preset})
  file(GLOB configured ${folder}/build.ninja ${folder}/Makefile)
  if(NOT configured)
    file(REMOVE ${folder}/CMakeCache.txt)  # of a try that failed: it would keep the compiler
    set(generator "Unix Makefiles")
    find_program(ninja ninja NO_CACHE)
    if(ninja)
      set(generator Ninja)
    endif()
    al_run(${CMAKE_COMMAND} --log-level=WARNING -G ${generator} --preset ${preset})
  endif()
  set(targets ${ARGN})
  if(targets)
    list(PREPEND targets --target)
  endif()
  al_run(${CMAKE_COMMAND} --build ${folder} --parallel ${AL_CORES} ${targets})
endfunction()

# The folder of a GPU's results: "NVIDIA H200" → docs/results/h200.
function(al_results_folder out)
  al_find_gpu(gpu)
  if(NOT gpu_NAME)
    message(FATAL_ERROR "There is no NVIDIA GPU here (nvidia-smi shows none), and only a GPU can be timed.")
  endif()
  string(REGEX REPLACE "^NVIDIA " "" name ${gpu_NAME})
  string(REGEX REPLACE "[^a-zA-Z0-9]+" "_" name ${name})
  string(TOLOWER ${name} name)
  set(${out} ${AL_ROOT}/docs/results/${name} PARENT_SCOPE)
endfunction()

# al_add_pytorch(FILE): PyTorch's rows into a results file, where there is a PyTorch.
function(al_add_pytorch file)
  execute_process(COMMAND python3 common/yardsticks/pytorch.py --into ${file}
                  WORKING_DIRECTORY ${AL_ROOT} RESULT_VARIABLE code)
  if(NOT code MATCHES "^(0|77)$")
    message(FATAL_ERROR "The rows of PyTorch failed (${code}).")
  endif()
endfunction()

function(al_list_stages out)
  file(GLOB stages RELATIVE ${AL_ROOT} ${AL_ROOT}/[0-9][0-9]_*)
  set(${out} ${stages} PARENT_SCOPE)
endfunction()

# al_lab_targets(out PRESET LABS): what judging these labs needs built; LABS as in 01.1,09.2, or all of
# them when it is empty.
function(al_lab_targets out preset labs)
  set(targets al_lab lab_judge)
  file(GLOB headers RELATIVE ${AL_ROOT} ${AL_ROOT}/[0-9][0-9]_*/lab/headers.hpp)
  foreach(path ${headers})
    string(REGEX MATCH "^([0-9]+)_[^/]*" chapter ${path})
    if(preset STREQUAL "emulator" AND (labs STREQUAL "" OR labs MATCHES "(^|[^0-9])${CMAKE_MATCH_1}\\."))
      list(APPEND targets ${chapter}_lab_headers)
    endif()
  endforeach()
  set(${out} ${targets} PARENT_SCOPE)
endfunction()
