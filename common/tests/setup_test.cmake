# What setup says on machines that lack something. The machine is made of shims: small programs
# that answer in place of the compiler, apt-get, python3 ... Run by ctest.

include(${CMAKE_CURRENT_LIST_DIR}/../cmake/machine.cmake)
set(machine ${WORK}/machine)
find_program(sh sh REQUIRED)

# shim(NAME "shell commands")
function(shim name script)
  file(WRITE ${machine}/${name} "#!${sh}\n${script}\n")
  file(CHMOD ${machine}/${name} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE)
endfunction()

# A machine on which nothing is missing.
function(healthy)
  file(REMOVE_RECURSE ${WORK})
  shim(c++ "case $1 in -dump*) echo 12.2.0;; --version) echo Free Software Foundation;; -print*) echo /lib/libboost_context.a;; esac")
  shim(env "for word; do case $word in *=*|*env) shift;; *) break;; esac; done; exec \"$@\"")
  shim(id "echo 0")
  shim(apt-get "echo apt-get was called >&2; exit 1")
  shim(python3 "echo python3 was called >&2; exit 1")
endfunction()

# expect("what is said" "CMake commands to run"): on failure when something is expected to be said,
# else silently. With SUCCESS it is said and no failure.
function(expect said commands)
  cmake_parse_arguments(arg "SUCCESS" "" "" ${ARGN})
  file(WRITE ${WORK}/script.cmake
       "set(AL_VENV \"${WORK}/venv\")\n include(\"${AL_ROOT}/common/cmake/setup.cmake\")\n ${commands}\n")
  execute_process(
    COMMAND ${CMAKE_COMMAND} -E env --unset=CXX PATH=${machine} ${CMAKE_COMMAND} -P
            ${WORK}/script.cmake
    RESULT_VARIABLE code OUTPUT_VARIABLE text ERROR_VARIABLE text)
  string(REGEX REPLACE "[ \n]+" " " text "${text}")  # CMake breaks lines
  string(FIND "${text}" "${said}" at)
  if(arg_SUCCESS)
    if(NOT code EQUAL 0 OR at EQUAL -1)
      message(SEND_ERROR "Expected success and\n  ${said}\nbut this came (${code}):\n  ${text}")
    endif()
  elseif(said AND (code EQUAL 0 OR at EQUAL -1))
    message(SEND_ERROR "Expected a failure saying\n  ${said}\nbut this came (${code}):\n  ${text}")
  elseif(NOT said AND (NOT code EQUAL 0 OR text))
    message(SEND_ERROR "Expected silence, but this came (${code}):\n  ${text}")
  elseif(EXISTS ${WORK}/venv)
    message(SEND_ERROR "A broken virtual environment was left behind.")
  endif()
endfunction()

set(install_libraries "al_require_compiler()\n al_install_debian_packages()")
set(install_python "al_install_python_packages(nothing \"0 MB\" no-such-package)")

healthy()
expect("" "${install_libraries}")

healthy()
expect("CMake 3.18.0 is too old: attention-ladder needs 3.25 or newer"
       "set(CMAKE_VERSION 3.18.0)\n include(\"${AL_ROOT}/common/cmake/setup.cmake\")")

healthy()
shim(c++ "case $1 in -dump*) echo 11.4.0;; --version) echo Free Software Foundation;; esac")
expect("g++ 11.4.0 is too old: attention-ladder is C++20 and needs g++ 12 or newer"
       "${install_libraries}")

healthy()
file(REMOVE ${machine}/c++)
expect("There is no C++ compiler: install g++ 12 or newer" "${install_libraries}")

healthy()
shim(c++ "case $1 in -dump*) echo 12.2.0;; -E) echo nlohmann-json3-dev;; -print*) echo /lib/libboost_context.a;; esac")
shim(id "echo 1000")
expect("you have no right to install them (you are not root and there is no sudo): ask for 'apt-get install nlohmann-json3-dev'"
       "${install_libraries}")

shim(sudo "echo sorry >&2; exit 1")
expect("apt-get could not install nlohmann-json3-dev" "${install_libraries}")

shim(id "echo 0")
shim(apt-get "echo cannot resolve deb.debian.org >&2; exit 100")
expect("this needs a network connection" "${install_libraries}")

# The headers of Boost are there, its library is not.
healthy()
shim(c++ "case $1 in -dump*) echo 12.2.0;; -print*) echo libboost_context.a;; esac")
expect("apt-get could not install libboost-context-dev" "${install_libraries}")

healthy()
file(REMOVE ${machine}/python3)
expect("There is no python3: install it" "${install_python}")

healthy()
shim(python3 "/bin/mkdir -p \"$3\"; echo ensurepip is not available; exit 1")
expect("python3 cannot make a virtual environment: install its venv module" "${install_python}")

# What nothing needs may stay away.
expect("python3 cannot make a virtual environment: install its venv module"
       "al_install_python_packages(nothing \"0 MB\" no-such-package OPTIONAL)\n message(done)" SUCCESS)

healthy()
file(REMOVE ${machine}/python3)
expect("There is no python3: install it" "al_install_cutlass()")

# CUTLASS: an environment whose pip downloads a wheel of two files, one of them wanted. Found after
# it has been unpacked, and nothing else is.
healthy()
set(wheel ${WORK}/wheel)
file(WRITE ${wheel}/cutlass_library/source/include/cute/tensor.hpp "")
file(WRITE ${wheel}/cutlass_library/source/examples/large.cu "")
execute_process(COMMAND ${CMAKE_COMMAND} -E tar cf ../cutlass.zip --format=zip cutlass_library
                WORKING_DIRECTORY ${wheel})
shim(python3 "/bin/mkdir -p \"$3/bin\"; /bin/cp '${machine}/pip' \"$3/bin/pip\"; /bin/cp '${machine}/pip' \"$3/bin/python\"")
shim(pip "[ \"$2 $3 $4\" = 'pip download --dest' ] && /bin/mkdir -p \"$5\" && /bin/cp '${WORK}/cutlass.zip' \"$5/cutlass.whl\"")
file(WRITE ${WORK}/script.cmake
     "set(AL_VENV \"${WORK}/venv\")\n include(\"${AL_ROOT}/common/cmake/setup.cmake\")
      al_install_cutlass()\n al_find_cutlass(found)\n message(NOTICE \"found \${found}\")")
execute_process(
  COMMAND ${CMAKE_COMMAND} -E env --unset=CUTLASS_DIR PATH=${machine} ${CMAKE_COMMAND} -P
          ${WORK}/script.cmake
  OUTPUT_VARIABLE text ERROR_VARIABLE text)
file(GLOB_RECURSE unpacked RELATIVE ${WORK}/venv/cutlass ${WORK}/venv/cutlass/*)
if(NOT text MATCHES "found ${WORK}/venv/cutlass/cutlass_library/source/include\n"
   OR NOT unpacked STREQUAL "cutlass_library/source/include/cute/tensor.hpp")
  message(SEND_ERROR "CUTLASS was not unpacked as expected: ${unpacked}\n  ${text}")
endif()
