// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <string>

#include "tercet/base/error.h"

namespace tercet {

/// A new directory that goes away with the test.
class ScratchDirectory {
 public:
  ScratchDirectory() {
    std::string pattern = (std::filesystem::temp_directory_path() / "tercet-test-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw InternalError("cannot make " + pattern);
    path_ = pattern;
  }
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  ~ScratchDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }

  const std::filesystem::path& Path() const { return path_; }

  template <class Container>
  std::filesystem::path Write(const std::string& name, const Container& bytes) const {
    const std::filesystem::path file = path_ / name;
    std::ofstream stream(file, std::ios::binary);
    stream.write(reinterpret_cast<const char*>(bytes.data()),
                 static_cast<std::streamsize>(bytes.size()));
    stream.close();
    EXPECT_TRUE(stream) << "cannot write " << file;
    return file;
  }

 private:
  std::filesystem::path path_;
};

/// All that a file holds.
inline std::string ReadAll(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  EXPECT_TRUE(stream) << "cannot read " << file;
  return {std::istreambuf_iterator<char>(stream), {}};
}

/// Expects a ConfigError at exactly `place` whose message holds `text`.
inline void ExpectConfigError(const std::function<void()>& action, const std::string& place,
                              const std::string& text) {
  try {
    action();
    ADD_FAILURE() << "no error, expected one at " << place << ": " << text;
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.Place(), place);
    EXPECT_THAT(error.what(), testing::StartsWith(place + ": "));
    EXPECT_THAT(error.what(), testing::HasSubstr(text));
  }
}

}  // namespace tercet
