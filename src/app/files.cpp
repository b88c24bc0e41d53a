#include "app/files.h"

#include <stdlib.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <system_error>

#include "tercet/base/error.h"

namespace tercet::app {
namespace fs = std::filesystem;

TemporaryDirectory::TemporaryDirectory() {
  std::error_code error;
  const fs::path base = fs::temp_directory_path(error);
  if (error) throw ConfigError("TMPDIR", "no usable temporary directory: " + error.message());
  std::string pattern = (base / "tercet-run-XXXXXX").string();
  if (::mkdtemp(pattern.data()) == nullptr)
    throw ConfigError(base.string(), fmt::format("no temporary directory can be made here: {}",
                                                 std::strerror(errno)));
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

}  // namespace tercet::app
