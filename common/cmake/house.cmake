# The house: included right after project() by the root CMakeLists.txt, and by a chapter that is
# configured alone. Chooses the back end and its compiler, then adds common/.

include_guard(GLOBAL)
include(${CMAKE_CURRENT_LIST_DIR}/machine.cmake)
enable_testing()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS AL_GXX_MINIMUM)
  message(FATAL_ERROR "g++ ${CMAKE_CXX_COMPILER_VERSION} is too old: attention-ladder is C++20 and needs g++ ${AL_GXX_MINIMUM} or newer; name one with -DCMAKE_CXX_COMPILER=.")
endif()

al_find_gpu(gpu)
al_find_toolkit(cuda)

set(default_backend emulator)
if(gpu_NAME AND cuda_NVCC)
  set(default_backend cuda)
endif()
set(AL_BACKEND ${default_backend} CACHE STRING "cuda: nvcc and a GPU; emulator: g++ and the CPU")
option(AL_ASAN "emulator: AddressSanitizer and UBSan in place of the hooks on loads and stores")
set_property(CACHE AL_BACKEND PROPERTY STRINGS cuda emulator)
if(NOT AL_BACKEND MATCHES "^(cuda|emulator)$")
  message(FATAL_ERROR "AL_BACKEND is '${AL_BACKEND}': it can be cuda or emulator.")
endif()
if(AL_BACKEND STREQUAL "emulator" AND NOT CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  message(FATAL_ERROR "The emulator needs g++, which calls it at each load and store; this is ${CMAKE_CXX_COMPILER_ID}: name one with CXX=g++, or -DCMAKE_CXX_COMPILER=g++.")
endif()
if(NOT cuda_INCLUDES)
  message(FATAL_ERROR "There are no CUDA headers on this machine: 'make ladder' puts them into build/venv.")
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)  # CUDA follows
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)  # the shared library shows its C functions only
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_COMPILE_WARNING_AS_ERROR ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
set(CMAKE_LIBRARY_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/lib)

if(AL_BACKEND STREQUAL "cuda")
  if(NOT cuda_NVCC)
    message(FATAL_ERROR "There is no nvcc ${AL_TOOLKIT_MINIMUM} or newer on this machine: name one with CUDACXX=/path/to/nvcc, or build the emulator.")
  endif()
  if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
    # The GPU that is here; Hopper's own instructions exist in 90a alone. A plain number also
    # brings PTX, from which a driver compiles for newer GPUs.
    string(REPLACE "." "" architecture "${gpu_CAPABILITY}")
    if(NOT architecture OR architecture STREQUAL "90")
      set(architecture 90a-real)
    endif()
    set(CMAKE_CUDA_ARCHITECTURES ${architecture} CACHE STRING "as in 75;80;90a")
  endif()
  set(CMAKE_CUDA_COMPILER ${cuda_NVCC} CACHE FILEPATH "nvcc")
  enable_language(CUDA)
  if(NOT CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25.1 has not heard of it
    set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
    set(CMAKE_CUDA20_EXTENSION_COMPILE_OPTION -std=c++20)
  endif()
  set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
endif()

# The preset's name, which the tests carry: "emulator-asan/01_naive_qk".
set(AL_BUILD ${AL_BACKEND})
if(AL_ASAN)
  string(APPEND AL_BUILD -asan)
endif()
message(STATUS "attention-ladder for ${AL_BUILD} ${CMAKE_CUDA_ARCHITECTURES}")

include(${CMAKE_CURRENT_LIST_DIR}/dependencies.cmake)
include(${CMAKE_CURRENT_LIST_DIR}/targets.cmake)
add_subdirectory(${AL_ROOT}/common ${CMAKE_BINARY_DIR}/common)
