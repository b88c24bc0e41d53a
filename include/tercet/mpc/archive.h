// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "tercet/mpc/share.h"

/// Correlated randomness as bytes, so that it can wait in a file between the offline and the online
/// phase.
namespace tercet::mpc {

/// Writes fields one after the other, or fills them from what was written: one function that names
/// the fields serves both directions. Fields are in the machine's byte order (lengths
/// little-endian), each array with its length before it, so an archive is for the machine that
/// wrote it. Not thread safe.
///
///     void Visit(Archive& archive) override { archive(mask)(tables); }
class Archive {
 public:
  /// An archive to write to.
  Archive() = default;
  /// An archive to read `data` from, which must outlive it; `place` is for errors.
  Archive(ByteSpan data, std::string place);
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  bool Reading() const { return reading_; }

  /// A field. Reading throws ConfigError (place) when fewer bytes are left than the field says it
  /// has, or when it cannot be one.
  template <class T>
  requires(std::is_integral_v<T> && !std::is_same_v<T, bool>) Archive& operator()(T& value) {
    auto word = static_cast<std::uint64_t>(value);
    Number(word);
    value = static_cast<T>(word);
    if (static_cast<std::uint64_t>(value) != word) Fail("a number too large for its field");
    return *this;
  }
  template <class T>
  requires(std::is_trivially_copyable_v<T>) Archive& operator()(Buffer<T>& values) {
    std::uint64_t count = values.size();
    Number(count);
    if (reading_) {
      if (count > Left() / sizeof(T)) Fail("an array longer than what is left");
      values.resize(count);
    }
    Raw({reinterpret_cast<std::uint8_t*>(values.data()), count * sizeof(T)});
    return *this;
  }
  Archive& operator()(AnyMatrix& matrix);
  Archive& operator()(AnyShare& share) { return (*this)(share.mine)(share.next); }
  /// Fields that have a Visit themselves, and vectors of them.
  template <class T>
  requires requires(T& t, Archive& a) { t.Visit(a); }
  Archive& operator()(T& fields) {
    fields.Visit(*this);
    return *this;
  }
  template <class T>
  Archive& operator()(std::vector<T>& items) {
    std::uint64_t count = items.size();
    Number(count);
    if (reading_) {
      if (count > Left()) Fail("a list longer than what is left");
      items.resize(count);
    }
    for (auto& item : items) (*this)(item);
    return *this;
  }

  /// What has been written.
  ByteSpan Written() const { return written_; }
  /// Reading: throws ConfigError unless all has been read.
  void Finish() const;
  /// Reading: throws ConfigError that `problem` was found here.
  [[noreturn]] void Refuse(const std::string& problem) const { Fail(problem); }

 private:
  [[noreturn]] void Fail(const std::string& problem) const;
  std::size_t Left() const { return data_.size() - at_; }
  void Number(std::uint64_t& value);
  void Raw(std::span<std::uint8_t> bytes);

  bool reading_ = false;
  std::string place_;
  ByteSpan data_;
  std::size_t at_ = 0;
  Bytes written_;
};

}  // namespace tercet::mpc
