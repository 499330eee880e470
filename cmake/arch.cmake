# The instruction set that the kernels are compiled for.
#
# Ordo is headers: its vector width is decided by the flags of the program that includes them. ORDO_ARCH chooses:
#   native  the processor that compiles (default)
#   sse2    every x86-64 processor
#   avx2    AVX2, FMA and F16C: x86 processors since about 2013
#   avx512  AVX-512 F, CD, DQ, BW and VL too: servers since 2017, Zen 4 and later
#   none    no flags from Ordo: CMAKE_CXX_FLAGS alone decides
# The same variable is read in Ordo's own build, after add_subdirectory(ordo), and at find_package(ordo).

set(ORDO_ARCHS native sse2 avx2 avx512 none)
if(NOT DEFINED ORDO_ARCH)
  set(ORDO_ARCH native CACHE STRING "Instruction set of Ordo's kernels: native, sse2, avx2, avx512 or none")
  set_property(CACHE ORDO_ARCH PROPERTY STRINGS ${ORDO_ARCHS})
endif()

# Sets <result> to the compiler flags for ORDO_ARCH.
function(ordo_arch_flags result)
  set(${result} "" PARENT_SCOPE)
  if(NOT ORDO_ARCH IN_LIST ORDO_ARCHS)
    string(REPLACE ";" ", " known "${ORDO_ARCHS}")
    message(FATAL_ERROR "ORDO_ARCH is '${ORDO_ARCH}'; it must be one of ${known}")
  endif()
  if(ORDO_ARCH STREQUAL "none")
    return()
  endif()

  if(ORDO_ARCH STREQUAL "native")
    if(CMAKE_CROSSCOMPILING OR CMAKE_CXX_COMPILER_FRONTEND_VARIANT STREQUAL "MSVC")
      message(STATUS "ordo: ORDO_ARCH=native means nothing to this compiler; using its default instruction set")
      return()
    endif()
    include(CheckCXXCompilerFlag)
    check_cxx_compiler_flag(-march=native ORDO_HAS_MARCH_NATIVE)
    if(ORDO_HAS_MARCH_NATIVE)
      set(${result} -march=native PARENT_SCOPE)
      return()
    endif()
    check_cxx_compiler_flag(-mcpu=native ORDO_HAS_MCPU_NATIVE)  # Clang on Arm before version 16
    if(ORDO_HAS_MCPU_NATIVE)
      set(${result} -mcpu=native PARENT_SCOPE)
    endif()
    return()
  endif()

  if(NOT CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64|x64|i[3-6]86)$")
    message(FATAL_ERROR "ORDO_ARCH=${ORDO_ARCH} is for x86, but this build is for ${CMAKE_SYSTEM_PROCESSOR}: "
                        "use native or none")
  endif()
  if(CMAKE_CXX_COMPILER_FRONTEND_VARIANT STREQUAL "MSVC")
    set(sse2 "")
    set(avx2 /arch:AVX2)
    set(avx512 /arch:AVX512)
  else()
    set(sse2 -msse2)
    set(avx2 -mavx2 -mfma -mf16c)
    set(avx512 ${avx2} -mavx512f -mavx512cd -mavx512dq -mavx512bw -mavx512vl)
  endif()
  set(${result} ${${ORDO_ARCH}} PARENT_SCOPE)
endfunction()
