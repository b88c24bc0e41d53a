# SPDX-License-Identifier: Apache-2.0
# How a folder becomes a protocol: for Tercet itself, and by find_package(tercet) for other projects.

# tercet_add_protocol(<name> SOURCES ... [TESTS ...])
# Called by a protocol's folder. Namespace tercet::protocols::<name> defines `void Register(mpc::Registry&)`.
# Each test file becomes a test of its own.
function(tercet_add_protocol name)
  cmake_parse_arguments(P "" "" "SOURCES;TESTS" ${ARGN})
  list(TRANSFORM P_SOURCES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  target_sources(${TERCET_PROTOCOL_TARGET} PRIVATE ${P_SOURCES})
  set_property(TARGET ${TERCET_PROTOCOL_TARGET} APPEND PROPERTY TERCET_PROTOCOLS ${name})
  if(NOT COMMAND tercet_add_test)  # outside Tercet's own build
    return()
  endif()
  foreach(test IN LISTS P_TESTS)
    get_filename_component(stem ${test} NAME_WE)
    tercet_add_test(${stem} LABEL protocol SOURCES ${CMAKE_CURRENT_SOURCE_DIR}/${test}
                    LINK ${TERCET_PROTOCOL_TARGET})
    if(TARGET ${stem})
      target_include_directories(${stem} PRIVATE ${PROJECT_SOURCE_DIR}/protocols)
    endif()
  endforeach()
endfunction()

# tercet_add_protocol_library(<target> <function> FOLDERS ...)
# A library of the given protocol folders, with a generated `void tercet::<function>(mpc::Registry&)` that calls
# every folder's Register.
function(tercet_add_protocol_library target register_function)
  cmake_parse_arguments(P "" "" "FOLDERS" ${ARGN})
  add_library(${target})
  set_target_properties(${target} PROPERTIES POSITION_INDEPENDENT_CODE ON)
  target_link_libraries(${target} PUBLIC tercet::mpc)
  if(TARGET tercet_options)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:tercet_options>)
  endif()
  target_include_directories(${target} PRIVATE ${CMAKE_CURRENT_FUNCTION_LIST_DIR})
  set(TERCET_PROTOCOL_TARGET ${target})
  foreach(folder IN LISTS P_FOLDERS)
    get_filename_component(folder ${folder} ABSOLUTE)
    get_filename_component(name ${folder} NAME)
    add_subdirectory(${folder} ${CMAKE_CURRENT_BINARY_DIR}/${target}/${name})
  endforeach()

  get_target_property(names ${target} TERCET_PROTOCOLS)
  set(TERCET_DECLARATIONS "")
  set(TERCET_CALLS "")
  foreach(name IN LISTS names)
    string(APPEND TERCET_DECLARATIONS "namespace ${name} { void Register(mpc::Registry& registry); }\n")
    string(APPEND TERCET_CALLS "  protocols::${name}::Register(registry);\n")
  endforeach()
  set(TERCET_REGISTER_FUNCTION ${register_function})
  configure_file(${CMAKE_CURRENT_FUNCTION_LIST_DIR}/register_protocols.cpp.in
                 ${CMAKE_CURRENT_BINARY_DIR}/${target}/register_protocols.cpp @ONLY)
  target_sources(${target} PRIVATE ${CMAKE_CURRENT_BINARY_DIR}/${target}/register_protocols.cpp)
endfunction()
