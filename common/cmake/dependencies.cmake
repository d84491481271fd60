# Host libraries: the system's when CMake finds them, else their sources (other distributions than
# Debian; needs a network at configure time). All are SYSTEM: their warnings are not ours.

include(FetchContent)

FetchContent_Declare(
  doctest GIT_REPOSITORY https://github.com/doctest/doctest GIT_TAG ${AL_FETCH_DOCTEST}
  GIT_SHALLOW TRUE SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(
  CLI11 GIT_REPOSITORY https://github.com/CLIUtils/CLI11 GIT_TAG ${AL_FETCH_CLI11}
  GIT_SHALLOW TRUE SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(
  fmt GIT_REPOSITORY https://github.com/fmtlib/fmt GIT_TAG ${AL_FETCH_FMT}
  GIT_SHALLOW TRUE SYSTEM FIND_PACKAGE_ARGS)
FetchContent_Declare(
  nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json GIT_TAG ${AL_FETCH_JSON}
  GIT_SHALLOW TRUE SYSTEM FIND_PACKAGE_ARGS)
FetchContent_MakeAvailable(doctest CLI11 fmt nlohmann_json)

# The emulator's threads are Boost.Context fibers, linked in: an installed library needs no Boost. What
# is looked for is that part of Boost by its own name: Boost as a whole is "found" where its headers
# are, with or without the libraries.
if(AL_BACKEND STREQUAL "emulator")
  set(Boost_USE_STATIC_LIBS ON)
  set(BOOST_INCLUDE_LIBRARIES context)
  FetchContent_Declare(
    Boost
    URL https://github.com/boostorg/boost/releases/download/boost-${AL_FETCH_BOOST}/boost-${AL_FETCH_BOOST}.tar.xz
    DOWNLOAD_EXTRACT_TIMESTAMP TRUE SYSTEM
    FIND_PACKAGE_ARGS NAMES boost_context CONFIG)
  FetchContent_MakeAvailable(Boost)
endif()

find_package(Threads REQUIRED)
