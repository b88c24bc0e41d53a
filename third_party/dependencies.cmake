# SPDX-License-Identifier: Apache-2.0
# How each dependency is found: an installed package first, else a pinned source.
# Without network, point FETCHCONTENT_SOURCE_DIR_<NAME> at a local copy.
include(FetchContent)
set(FETCHCONTENT_QUIET OFF)

FetchContent_Declare(xtl GIT_REPOSITORY https://github.com/xtensor-stack/xtl.git
  GIT_TAG 0.7.5 GIT_SHALLOW ON FIND_PACKAGE_ARGS 0.7)
FetchContent_Declare(xtensor GIT_REPOSITORY https://github.com/xtensor-stack/xtensor.git
  GIT_TAG 0.24.3 GIT_SHALLOW ON FIND_PACKAGE_ARGS 0.24)
FetchContent_Declare(nlohmann_json GIT_REPOSITORY https://github.com/nlohmann/json.git
  GIT_TAG v3.11.2 GIT_SHALLOW ON FIND_PACKAGE_ARGS 3.11)
FetchContent_Declare(fmt GIT_REPOSITORY https://github.com/fmtlib/fmt.git
  GIT_TAG 9.1.0 GIT_SHALLOW ON FIND_PACKAGE_ARGS 9)
FetchContent_Declare(CLI11 GIT_REPOSITORY https://github.com/CLIUtils/CLI11.git
  GIT_TAG v2.1.2 GIT_SHALLOW ON FIND_PACKAGE_ARGS 2.1)
FetchContent_Declare(spdlog GIT_REPOSITORY https://github.com/gabime/spdlog.git
  GIT_TAG v1.10.0 GIT_SHALLOW ON FIND_PACKAGE_ARGS 1.10)
FetchContent_Declare(valijson GIT_REPOSITORY https://github.com/tristanpenman/valijson.git
  GIT_TAG v1.0 GIT_SHALLOW ON FIND_PACKAGE_ARGS)
set(SPDLOG_FMT_EXTERNAL ON)
FetchContent_MakeAvailable(xtl xtensor nlohmann_json fmt CLI11 spdlog valijson)
find_package(Threads REQUIRED)
find_package(OpenSSL 3.0 REQUIRED)
find_package(ZLIB REQUIRED)
find_package(LibLZMA REQUIRED)
find_package(PNG REQUIRED)

# Highway is optional: without it only x86 processors with AVX2 have vector kernels.
find_package(hwy 1.0.3 QUIET)
if(NOT hwy_FOUND AND TERCET_FETCH_HIGHWAY)
  set(HWY_ENABLE_TESTS OFF)
  set(HWY_ENABLE_EXAMPLES OFF)
  set(HWY_ENABLE_CONTRIB OFF)
  FetchContent_Declare(highway GIT_REPOSITORY https://github.com/google/highway.git
    GIT_TAG 1.0.3 GIT_SHALLOW ON)
  FetchContent_MakeAvailable(highway)
  if(NOT TARGET hwy::hwy)
    add_library(hwy::hwy ALIAS hwy)
  endif()
endif()
if(TARGET hwy::hwy)
  message(STATUS "Vector kernels by Highway: on")
else()
  message(STATUS "Vector kernels by Highway: off (install libhwy-dev, or set TERCET_FETCH_HIGHWAY)")
endif()

# Asio (stand-alone) is headers only and has no CMake package.
find_path(TERCET_ASIO_INCLUDE_DIR asio.hpp)
if(NOT TERCET_ASIO_INCLUDE_DIR)
  FetchContent_Declare(asio GIT_REPOSITORY https://github.com/chriskohlhoff/asio.git
    GIT_TAG asio-1-22-1 GIT_SHALLOW ON)
  FetchContent_MakeAvailable(asio)
  set(TERCET_ASIO_INCLUDE_DIR ${asio_SOURCE_DIR}/asio/include CACHE PATH "" FORCE)
endif()
add_library(tercet_asio INTERFACE)
target_include_directories(tercet_asio SYSTEM INTERFACE $<BUILD_INTERFACE:${TERCET_ASIO_INCLUDE_DIR}>)
# Asio finds std::aligned_alloc only after a header of the standard library, so sources that include it first and those that
# do not would free each other's memory in different ways.
target_compile_definitions(tercet_asio INTERFACE ASIO_STANDALONE ASIO_NO_DEPRECATED ASIO_DISABLE_STD_ALIGNED_ALLOC)
target_link_libraries(tercet_asio INTERFACE Threads::Threads)

# libsodium is built with autotools only, so it must be installed (libsodium-dev, libsodium-devel, brew install libsodium).
find_package(PkgConfig REQUIRED)
pkg_check_modules(sodium REQUIRED IMPORTED_TARGET libsodium)

if(TERCET_BUILD_TESTS)
  FetchContent_Declare(googletest GIT_REPOSITORY https://github.com/google/googletest.git
    GIT_TAG release-1.12.1 GIT_SHALLOW ON FIND_PACKAGE_ARGS NAMES GTest)
  FetchContent_MakeAvailable(googletest)
endif()
if(TERCET_BUILD_BENCHMARKS)
  set(BENCHMARK_ENABLE_TESTING OFF)
  FetchContent_Declare(benchmark GIT_REPOSITORY https://github.com/google/benchmark.git
    GIT_TAG v1.7.1 GIT_SHALLOW ON FIND_PACKAGE_ARGS 1.7)
  FetchContent_MakeAvailable(benchmark)
endif()
