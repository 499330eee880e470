# ordo_add_test(NAME name SOURCES source... [LABELS label...])
#
# Adds an executable and the ctest test <name> that runs it in the project's root folder. It is linked to everything in
# tests/support and to Catch2 with its main function, and shares their precompiled header.
function(ordo_add_test)
  cmake_parse_arguments(PARSE_ARGV 0 test "" "NAME" "SOURCES;LABELS")
  string(REPLACE "." "_" target "${test_NAME}_test")
  add_executable(${target} ${test_SOURCES})
  target_link_libraries(${target} PRIVATE ordo_test_support)
  target_precompile_headers(${target} REUSE_FROM ordo_test_support)
  add_test(NAME ${test_NAME} COMMAND ${target} WORKING_DIRECTORY "${ordo_SOURCE_DIR}")
  set_tests_properties(${test_NAME} PROPERTIES LABELS "${test_LABELS}" FAIL_REGULAR_EXPRESSION "No tests ran")
endfunction()

# Tests of the package: what a user's build sees. See tests/consumer.
function(ordo_add_package_tests)
  # Every public header compiles alone. Those that stand on vectors, whatever they are, find xsimd precompiled: it is
  # most of what they cost and part of each of them.
  file(GLOB_RECURSE headers RELATIVE "${ordo_SOURCE_DIR}/include" CONFIGURE_DEPENDS "${ordo_SOURCE_DIR}/include/*.hpp")
  add_library(ordo_headers OBJECT)
  add_library(ordo_vector_headers OBJECT)
  foreach(header IN LISTS headers)
    string(MAKE_C_IDENTIFIER "${header}" unit)
    file(CONFIGURE OUTPUT "headers/${unit}.cpp" CONTENT "#include \"${header}\"\n")
    set(target ordo_headers)
    if(header MATCHES "^ordo/(kernels|autograd|ops|cache|nn|stack|models|decode|train)/")
      set(target ordo_vector_headers)
    endif()
    target_sources(${target} PRIVATE "${CMAKE_CURRENT_BINARY_DIR}/headers/${unit}.cpp")
  endforeach()
  foreach(target IN ITEMS ordo_headers ordo_vector_headers)
    target_link_libraries(${target} PRIVATE ordo::ordo)
    target_compile_options(${target} PRIVATE $<$<CXX_COMPILER_ID:GNU,Clang,AppleClang>:-O0>)
  endforeach()
  target_precompile_headers(ordo_vector_headers PRIVATE <xsimd/xsimd.hpp>)

  # Everything compiles without exceptions and run-time types.
  if(CMAKE_CXX_COMPILER_ID MATCHES "GNU|Clang")
    file(CONFIGURE OUTPUT headers/no_exceptions.cpp CONTENT "#include \"ordo/ordo.hpp\"\n")
    add_library(ordo_no_exceptions OBJECT "${CMAKE_CURRENT_BINARY_DIR}/headers/no_exceptions.cpp")
    target_link_libraries(ordo_no_exceptions PRIVATE ordo::ordo)
    target_compile_options(ordo_no_exceptions PRIVATE -O0 -fno-exceptions -fno-rtti)
  endif()

  # Two translation units that include everything link into one program.
  add_executable(ordo_two_units consumer/two_units_a.cpp consumer/two_units_b.cpp)
  target_link_libraries(ordo_two_units PRIVATE ordo::ordo)
  add_test(NAME package.two_units COMMAND ordo_two_units)

  # A project of its own uses Ordo in each way that a stranger can: installed, as a subfolder, through pkg-config.
  set(prefix "${CMAKE_CURRENT_BINARY_DIR}/prefix")
  add_test(NAME package.install
           COMMAND "${CMAKE_COMMAND}" --install "${ordo_BINARY_DIR}" --prefix "${prefix}" --config $<CONFIG>)
  add_test(NAME package.uninstall COMMAND "${CMAKE_COMMAND}" -E rm -rf "${prefix}")
  set_tests_properties(package.install PROPERTIES FIXTURES_SETUP ordo_prefix)
  set_tests_properties(package.uninstall PROPERTIES FIXTURES_CLEANUP ordo_prefix)
  find_package(PkgConfig QUIET)
  set(ways find_package add_subdirectory)
  if(PkgConfig_FOUND)
    list(APPEND ways pkg_config)
  endif()
  foreach(way IN LISTS ways)
    add_test(NAME package.${way}
             COMMAND "${CMAKE_CTEST_COMMAND}" --build-and-test "${CMAKE_CURRENT_SOURCE_DIR}/consumer"
                     "${CMAKE_CURRENT_BINARY_DIR}/consumer/${way}"
                     --build-generator ${CMAKE_GENERATOR}
                     --build-options "-DORDO_WAY=${way}" "-DORDO_SOURCE=${ordo_SOURCE_DIR}"
                     "-DCMAKE_PREFIX_PATH=${prefix};${CMAKE_PREFIX_PATH}" "-DORDO_ARCH=${ORDO_ARCH}"
                     "-DORDO_THREADS=${ORDO_THREADS}" "-DCMAKE_CXX_COMPILER=${CMAKE_CXX_COMPILER}"
                     "-DCMAKE_BUILD_TYPE=${CMAKE_BUILD_TYPE}" "-DORDO_EXPECTED_VERSION=${ordo_VERSION}"
                     --test-command consumer)
    set_tests_properties(package.${way} PROPERTIES FIXTURES_REQUIRED ordo_prefix)
  endforeach()
  get_property(names DIRECTORY PROPERTY TESTS)
  list(FILTER names INCLUDE REGEX "^package\\.")
  set_tests_properties(${names} PROPERTIES LABELS package)
endfunction()
