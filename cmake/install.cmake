# Installs the headers, the CMake package and the pkg-config file. Nothing in them depends on the processor.

include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

set(package_dir "${CMAKE_INSTALL_DATADIR}/cmake/ordo")

target_include_directories(ordo INTERFACE "$<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>")
install(TARGETS ordo EXPORT ordo)
install(EXPORT ordo NAMESPACE ordo:: DESTINATION "${package_dir}" FILE ordoTargets.cmake)
install(DIRECTORY include/ordo TYPE INCLUDE FILES_MATCHING PATTERN "*.hpp")

configure_package_config_file(cmake/ordoConfig.cmake.in ordoConfig.cmake INSTALL_DESTINATION "${package_dir}"
                              NO_SET_AND_CHECK_MACRO)
write_basic_package_version_file(ordoConfigVersion.cmake COMPATIBILITY SameMinorVersion ARCH_INDEPENDENT)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/ordoConfig.cmake" "${CMAKE_CURRENT_BINARY_DIR}/ordoConfigVersion.cmake"
              cmake/usage.cmake cmake/arch.cmake
        DESTINATION "${package_dir}")

# The prefix is found from the file's own place, so that an installed tree may be moved.
file(RELATIVE_PATH pkgconfig_to_prefix "/prefix/${CMAKE_INSTALL_DATADIR}/pkgconfig" "/prefix")
string(REGEX REPLACE "/$" "" pkgconfig_to_prefix "${pkgconfig_to_prefix}")
configure_file(cmake/ordo.pc.in ordo.pc @ONLY)
install(FILES "${CMAKE_CURRENT_BINARY_DIR}/ordo.pc" DESTINATION "${CMAKE_INSTALL_DATADIR}/pkgconfig")

install(FILES LICENSE TYPE DOC)
