# Finds what Ordo's own build needs, and fetches the sources of what the system does not have.
#
# The headers need Eigen and xsimd; tests need Catch2 (2 or 3), benchmarks need Google Benchmark.

include(FetchContent)
include("${CMAKE_CURRENT_LIST_DIR}/usage.cmake")

# Fetches a header-only library without running its own CMake files. Sets <folder> to where its sources are.
function(ordo_fetch_headers folder name repository tag)
  message(STATUS "ordo: fetching ${name} ${tag}")
  FetchContent_Declare(ordo_${name} GIT_REPOSITORY ${repository} GIT_TAG ${tag} GIT_SHALLOW TRUE
                       SOURCE_SUBDIR none)  # a folder that does not exist: nothing is configured
  FetchContent_MakeAvailable(ordo_${name})
  set(${folder} "${ordo_${name}_SOURCE_DIR}" PARENT_SCOPE)
endfunction()

ordo_find_eigen(problem)
if(problem)
  message(STATUS "ordo: ${problem}")
  ordo_fetch_headers(folder eigen https://gitlab.com/libeigen/eigen.git 3.4.0)
  add_library(Eigen3::Eigen INTERFACE IMPORTED)
  target_include_directories(Eigen3::Eigen SYSTEM INTERFACE "${folder}")
endif()

ordo_find_xsimd(problem)
if(problem)
  message(STATUS "ordo: ${problem}")
  ordo_fetch_headers(folder xsimd https://github.com/xtensor-stack/xsimd.git 13.2.0)
  add_library(ordo::xsimd INTERFACE IMPORTED)
  target_include_directories(ordo::xsimd SYSTEM INTERFACE "${folder}/include")
endif()

# Makes ordo::catch_main known: Catch2 with a main function. Version 2 is headers, so its main is compiled here, once.
function(ordo_provide_catch)
  find_package(Catch2 CONFIG QUIET)
  if(NOT TARGET Catch2::Catch2)
    message(STATUS "ordo: fetching Catch2 (Debian: catch2)")
    FetchContent_Declare(Catch2 GIT_REPOSITORY https://github.com/catchorg/Catch2.git GIT_TAG v3.7.1 GIT_SHALLOW TRUE
                         SYSTEM)
    FetchContent_MakeAvailable(Catch2)
  endif()
  if(TARGET Catch2::Catch2WithMain)
    add_library(ordo::catch_main ALIAS Catch2::Catch2WithMain)
  else()
    file(CONFIGURE OUTPUT catch_main.cpp CONTENT "#define CATCH_CONFIG_MAIN\n#include <catch2/catch.hpp>\n")
    add_library(ordo_catch_main STATIC "${CMAKE_CURRENT_BINARY_DIR}/catch_main.cpp")
    target_link_libraries(ordo_catch_main PUBLIC Catch2::Catch2)
    target_compile_features(ordo_catch_main PUBLIC cxx_std_20)
    add_library(ordo::catch_main ALIAS ordo_catch_main)
  endif()
endfunction()

# Makes benchmark::benchmark_main known.
function(ordo_provide_benchmark)
  find_package(benchmark CONFIG QUIET)
  if(NOT TARGET benchmark::benchmark)
    message(STATUS "ordo: fetching Google Benchmark (Debian: libbenchmark-dev)")
    set(BENCHMARK_ENABLE_TESTING OFF)
    set(BENCHMARK_ENABLE_INSTALL OFF)
    FetchContent_Declare(benchmark GIT_REPOSITORY https://github.com/google/benchmark.git GIT_TAG v1.9.1
                         GIT_SHALLOW TRUE SYSTEM)
    FetchContent_MakeAvailable(benchmark)
  endif()
endfunction()
