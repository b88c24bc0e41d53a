# SPDX-License-Identifier: Apache-2.0
# Writes the commit of SOURCE into the header OUT; "-dirty" says that files differ from it.
set(commit unknown)
find_package(Git QUIET)
if(Git_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} -C ${SOURCE} describe --always --dirty --abbrev=12 --match=
                  OUTPUT_VARIABLE found OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET RESULT_VARIABLE status)
  if(status EQUAL 0)
    set(commit ${found})
  endif()
endif()
set(text "// SPDX-License-Identifier: Apache-2.0\n#pragma once\n
namespace tercet::programs {\n
inline constexpr const char* kCommit = \"${commit}\";\n
}  // namespace tercet::programs\n")
if(EXISTS ${OUT})
  file(READ ${OUT} before)
endif()
if(NOT "${text}" STREQUAL "${before}")
  file(WRITE ${OUT} "${text}")
endif()
