# What ordo::ordo asks of the programs that use it, besides its include folder: Eigen, xsimd, an instruction set, threads.
#
# All of it depends on the user's machine and wishes, so it is not baked into the exported target: this file is
# installed, and the build tree and the package's config file both apply it.

include("${CMAKE_CURRENT_LIST_DIR}/arch.cmake")

# How parallel_for runs: pool (Ordo's own threads, default), openmp, or serial.
set(ORDO_THREADS_KINDS serial pool openmp)  # in the order of ORDO_PARALLEL_BACKEND's values
if(NOT DEFINED ORDO_THREADS)
  set(ORDO_THREADS pool CACHE STRING "What runs Ordo's parallel_for: pool, openmp or serial")
  set_property(CACHE ORDO_THREADS PROPERTY STRINGS ${ORDO_THREADS_KINDS})
endif()

# Makes the target Eigen3::Eigen known. Sets <problem> to "" or to a sentence.
# No version is given to find_package: Eigen 3.4 rejects a range that 5.0 accepts, and the other way round.
function(ordo_find_eigen problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET Eigen3::Eigen)
    return()
  endif()
  find_package(Eigen3 CONFIG QUIET)
  if(NOT TARGET Eigen3::Eigen)
    set(${problem} "Eigen 3.4 or later was not found (Debian: libeigen3-dev)" PARENT_SCOPE)
  elseif(Eigen3_VERSION VERSION_LESS 3.4)
    set(${problem} "Eigen ${Eigen3_VERSION} was found, but Ordo needs 3.4 or later" PARENT_SCOPE)
  endif()
endfunction()

# Makes the target ordo::xsimd known: xsimd's include folder and nothing else. Sets <problem> to "" or to a sentence.
# Some packages' own target links a library "xtl" that need not exist (Debian 12), and no version range fits all
# of xsimd's version files.
function(ordo_find_xsimd problem)
  set(${problem} "" PARENT_SCOPE)
  if(TARGET ordo::xsimd)
    return()
  endif()
  if(NOT TARGET xsimd)
    find_package(xsimd CONFIG QUIET)
  endif()
  if(TARGET xsimd)
    get_target_property(folder xsimd INTERFACE_INCLUDE_DIRECTORIES)
  else()
    find_path(ORDO_XSIMD_INCLUDE_DIR xsimd/xsimd.hpp)
    mark_as_advanced(ORDO_XSIMD_INCLUDE_DIR)
    if(NOT ORDO_XSIMD_INCLUDE_DIR)
      set(${problem} "xsimd 8.1 or later was not found (Debian: libxsimd-dev)" PARENT_SCOPE)
      return()
    endif()
    set(folder "${ORDO_XSIMD_INCLUDE_DIR}")
    file(STRINGS "${ORDO_XSIMD_INCLUDE_DIR}/xsimd/config/xsimd_config.hpp" lines REGEX "XSIMD_VERSION_(MAJOR|MINOR) +[0-9]")
    string(REGEX REPLACE "^.*MAJOR +([0-9]+).*MINOR +([0-9]+).*$" "\\1.\\2" xsimd_VERSION "${lines}")
  endif()
  if(xsimd_VERSION AND xsimd_VERSION VERSION_LESS 8.1)
    set(${problem} "xsimd ${xsimd_VERSION} was found, but Ordo needs 8.1 or later" PARENT_SCOPE)
    return()
  endif()
  add_library(ordo::xsimd INTERFACE IMPORTED)
  target_include_directories(ordo::xsimd SYSTEM INTERFACE "${folder}")
endfunction()

# Gives <target> what its users need. BUILD_INTERFACE keeps every bit of it out of the installed target file.
function(ordo_apply_usage target)
  ordo_arch_flags(flags)
  if(flags)
    target_compile_options(${target} INTERFACE "$<BUILD_INTERFACE:$<$<COMPILE_LANGUAGE:CXX>:${flags}>>")
  endif()

  list(FIND ORDO_THREADS_KINDS "${ORDO_THREADS}" backend)
  if(backend EQUAL -1)
    message(FATAL_ERROR "ORDO_THREADS is '${ORDO_THREADS}'; it must be one of pool, openmp, serial")
  endif()
  target_compile_definitions(${target} INTERFACE "$<BUILD_INTERFACE:ORDO_PARALLEL_BACKEND=${backend}>")
  if(ORDO_THREADS STREQUAL "openmp")
    find_package(OpenMP REQUIRED COMPONENTS CXX)
    target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:OpenMP::OpenMP_CXX>")
  endif()
  # The memory pool and the tape are thread-safe whatever runs parallel_for.
  set(THREADS_PREFER_PTHREAD_FLAG ON)
  find_package(Threads REQUIRED)
  target_link_libraries(${target} INTERFACE "$<BUILD_INTERFACE:Threads::Threads;Eigen3::Eigen;ordo::xsimd>")
endfunction()
