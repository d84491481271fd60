# Installs what is missing, says what and how large, and nothing the second time. Script mode.
#   al_setup(BACKEND emulator|cuda [TOOLS])   TOOLS: what `make test` needs beside

include(${CMAKE_CURRENT_LIST_DIR}/versions.cmake)
if(CMAKE_VERSION VERSION_LESS AL_CMAKE_MINIMUM)
  message(FATAL_ERROR "CMake ${CMAKE_VERSION} is too old: attention-ladder needs ${AL_CMAKE_MINIMUM} or newer; 'python3 -m pip install cmake' in a virtual environment brings one.")
endif()
cmake_minimum_required(VERSION 3.25)
include(${CMAKE_CURRENT_LIST_DIR}/machine.cmake)

function(al_setup)
  cmake_parse_arguments(arg "TOOLS" "BACKEND" "" ${ARGN})
  al_require_compiler()
  al_install_debian_packages()

  al_find_toolkit(cuda)
  if(arg_BACKEND STREQUAL "cuda" AND NOT cuda_NVCC)
    al_install_python_packages("the CUDA compiler and headers (there is no toolkit here)"
                               "${AL_PYPI_NVCC_SIZE} and ${AL_PYPI_CUDA_HEADERS_SIZE}"
                               ${AL_PYPI_NVCC} ${AL_PYPI_CUDA_HEADERS})
    file(CREATE_LINK lib ${AL_PYPI_CUDA}/lib64 SYMBOLIC)  # where nvcc looks
    al_find_toolkit(cuda)
  elseif(NOT cuda_INCLUDES)
    al_install_python_packages("the CUDA headers (there is no toolkit here)"
                               ${AL_PYPI_CUDA_HEADERS_SIZE} ${AL_PYPI_CUDA_HEADERS})
  endif()

  al_find_cutlass(cutlass)
  if(NOT cutlass)
    al_install_cutlass()
  endif()
  if(arg_BACKEND STREQUAL "cuda" OR (arg_TOOLS AND cuda_NVCC))
    al_install_cudnn()
  endif()

  if(arg_TOOLS)
    al_find_clang_format(clang_format)
    if(NOT clang_format)
      al_install_python_packages("clang-format" ${AL_PYPI_CLANG_FORMAT_SIZE}
                                 ${AL_PYPI_CLANG_FORMAT})
    endif()
    al_install_matplotlib(OPTIONAL)
    al_install_site(OPTIONAL)
    al_find_tool(cuobjdump cuobjdump)
    al_find_tool(nvdisasm nvdisasm)
    if(cuda_NVCC AND NOT (cuobjdump AND nvdisasm))
      al_install_python_packages("cuobjdump, which reads machine code" ${AL_PYPI_CUOBJDUMP_SIZE}
                                 ${AL_PYPI_CUOBJDUMP})
    endif()
  endif()
endfunction()

# cuDNN is a yardstick that nothing needs: a machine that cannot have it goes without. Its library
# is large and is fetched for a GPU only.
function(al_install_cudnn)
  al_find_gpu(gpu)
  al_find_cudnn(cudnn)
  if(NOT cudnn_HEADERS AND gpu_NAME)
    al_install_python_packages("cuDNN, to compare with" ${AL_PYPI_CUDNN_SIZE} ${AL_PYPI_CUDNN}
                               OPTIONAL)
    al_find_cudnn(cudnn)
  endif()
  if(cudnn_HEADERS AND NOT cudnn_FRONTEND)
    al_install_python_packages("cuDNN's C++ headers, to compare with" ${AL_PYPI_CUDNN_FRONTEND_SIZE}
                               ${AL_PYPI_CUDNN_FRONTEND} OPTIONAL)
  endif()
endfunction()

# Pictures are drawn by matplotlib, in the virtual environment's Python. OPTIONAL: when it cannot be
# had, that is said and no error.
function(al_install_matplotlib)
  file(GLOB found ${AL_SITE_PACKAGES}/matplotlib/__init__.py)
  if(NOT found)
    al_install_python_packages("matplotlib, which draws the results" ${AL_PYPI_MATPLOTLIB_SIZE}
                               ${AL_PYPI_MATPLOTLIB} DEPENDENCIES ${ARGN})
  endif()
endfunction()

# The site is made by mkdocs. OPTIONAL: as above.
function(al_install_site)
  file(GLOB material ${AL_SITE_PACKAGES}/material/__init__.py)
  file(GLOB maths ${AL_SITE_PACKAGES}/latex2mathml/__init__.py)
  if(NOT (material AND maths))
    al_install_python_packages("mkdocs-material, which makes the site" ${AL_PYPI_SITE_SIZE}
                               ${AL_PYPI_SITE} DEPENDENCIES ${ARGN})
  endif()
endfunction()

function(al_require_compiler)
  set(compiler $ENV{CXX})
  if(NOT compiler)
    find_program(compiler c++ NO_CACHE)
  endif()
  if(NOT compiler)
    message(FATAL_ERROR "There is no C++ compiler: install g++ ${AL_GXX_MINIMUM} or newer ('apt-get install build-essential').")
  endif()
  execute_process(COMMAND ${compiler} --version OUTPUT_VARIABLE text ERROR_QUIET)
  execute_process(COMMAND ${compiler} -dumpfullversion -dumpversion
                  OUTPUT_VARIABLE version OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
  if(text MATCHES "Free Software Foundation" AND version VERSION_LESS AL_GXX_MINIMUM)
    message(FATAL_ERROR "g++ ${version} is too old: attention-ladder is C++20 and needs g++ ${AL_GXX_MINIMUM} or newer; install one and name it in CXX, as in 'CXX=g++-${AL_GXX_MINIMUM} make ladder'.")
  endif()
  set(compiler ${compiler} PARENT_SCOPE)
endfunction()

# Which packages are missing is asked of the compiler, so that a library from elsewhere counts too.
function(al_install_debian_packages)
  execute_process(
    COMMAND ${compiler} -E -P -x c++ ${AL_ROOT}/common/cmake/host_libraries.txt
    OUTPUT_VARIABLE missing COMMAND_ERROR_IS_FATAL ANY)
  string(REGEX MATCHALL "[a-z0-9-]+-dev" missing "${missing}")
  # The headers of Boost come all together, the libraries one by one.
  execute_process(COMMAND ${compiler} -print-file-name=libboost_context.a
                  OUTPUT_VARIABLE library OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(NOT IS_ABSOLUTE "${library}")  # not found: g++ says the name again
    list(APPEND missing libboost-context-dev)
    list(REMOVE_DUPLICATES missing)
  endif()
  if(NOT missing)
    return()
  endif()
  string(REPLACE ";" " " names "${missing}")

  find_program(apt_get apt-get NO_CACHE)
  if(NOT apt_get)
    message(STATUS "Not installed: ${names}. This is no Debian: CMake will look for them its own way, then download their sources.")
    return()
  endif()
  execute_process(COMMAND id -u OUTPUT_VARIABLE user OUTPUT_STRIP_TRAILING_WHITESPACE)
  find_program(sudo sudo NO_CACHE)
  if(user STREQUAL "0")
    set(as_root env)
  elseif(sudo)
    set(as_root ${sudo} env)
  else()
    message(FATAL_ERROR "These packages are missing and you have no right to install them (you are not root and there is no sudo): ask for 'apt-get install ${names}', then run this again.")
  endif()
  set(apt ${as_root} LC_ALL=C DEBIAN_FRONTEND=noninteractive ${apt_get})

  message(STATUS "Installing Debian packages: ${names}")
  execute_process(COMMAND ${apt} -qq update RESULT_VARIABLE code)
  if(code EQUAL 0)
    set(install install --no-install-recommends ${missing})
    execute_process(COMMAND ${apt} --assume-no ${install} OUTPUT_VARIABLE plan ERROR_QUIET)
    if(plan MATCHES "Need to get [^\n]*\nAfter this operation[^\n]*")
      message(STATUS "${CMAKE_MATCH_0}")
    endif()
    execute_process(COMMAND ${apt} -qq --yes ${install} RESULT_VARIABLE code OUTPUT_QUIET)
  endif()
  if(NOT code EQUAL 0)
    message(FATAL_ERROR "apt-get could not install ${names} (its own words are above): this needs a network connection and the right to install, then run this again.")
  endif()
endfunction()

# al_pip(WHAT SIZE arguments... [OPTIONAL] [DEPENDENCIES]): python -m pip in the virtual environment,
# which is made first.
#   OPTIONAL      when it cannot be done, that is said and no error
#   DEPENDENCIES  with what the packages say they need
function(al_pip what size)
  cmake_parse_arguments(arg "OPTIONAL;DEPENDENCIES" "" "" ${ARGN})
  set(failure FATAL_ERROR)
  if(arg_OPTIONAL)
    set(failure STATUS)
  endif()
  set(no_dependencies --no-deps)
  if(arg_DEPENDENCIES)
    set(no_dependencies "")
  endif()
  message(STATUS "Installing ${what} into ${AL_VENV}: ${size} to download")
  find_program(python3 python3 NO_CACHE)
  if(NOT python3)
    message(${failure} "There is no python3: install it ('apt-get install python3 python3-venv'), then run this again.")
    return()
  endif()
  if(NOT EXISTS ${AL_VENV}/bin/pip)
    execute_process(COMMAND ${python3} -m venv ${AL_VENV} RESULT_VARIABLE code OUTPUT_QUIET
                    ERROR_QUIET)
    if(NOT code EQUAL 0)
      file(REMOVE_RECURSE ${AL_VENV})
      message(${failure} "python3 cannot make a virtual environment: install its venv module ('apt-get install python3-venv'), then run this again.")
      return()
    endif()
  endif()
  execute_process(
    COMMAND ${AL_VENV}/bin/python -m pip ${arg_UNPARSED_ARGUMENTS} --quiet ${no_dependencies}
            --retries 2 --disable-pip-version-check
    RESULT_VARIABLE code)
  if(NOT code EQUAL 0)
    message(${failure} "pip could not install ${what} (its own words are above): this needs a network connection, then run this again.")
  endif()
endfunction()

# The same for `pip install`.
function(al_install_python_packages what size)
  al_pip(${what} ${size} install ${ARGN})
  include(${AL_ROOT}/common/cmake/machine.cmake)  # where the packages went
  set(AL_SITE_PACKAGES ${AL_SITE_PACKAGES} PARENT_SCOPE)
  set(AL_PYPI_CUDA ${AL_PYPI_CUDA} PARENT_SCOPE)
endfunction()

# The wheel holds far more than the headers, and requires packages that nobody needs here: it is
# downloaded, not installed, and one folder of it is unpacked.
function(al_install_cutlass)
  set(folder ${AL_VENV}/cutlass)
  al_pip("the headers of CUTLASS" ${AL_PYPI_CUTLASS_SIZE} download --dest ${folder}
         ${AL_PYPI_CUTLASS})
  file(GLOB wheel ${folder}/*.whl)
  file(ARCHIVE_EXTRACT INPUT ${wheel} DESTINATION ${folder}
       PATTERNS cutlass_library/source/include/*)
  file(REMOVE ${wheel})
endfunction()
