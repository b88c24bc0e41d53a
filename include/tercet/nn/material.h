#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <vector>

#include "tercet/base/bytes.h"
#include "tercet/mpc/suite.h"
#include "tercet/nn/plan.h"

/// Files that keep one party's correlated material between the session that made it and those that
/// use it up: its shares of the model and a number of prepared queries, each used once.
///
///   "TERCETQ1" | length u64 | header (JSON) | SHA-256 | length u64 | shares of the model | SHA-256
///   then for each query: state u64 (0 fresh, 1 used) | length u64 | material | SHA-256
///
/// Numbers are little endian; a SHA-256 is 64 hex digits and covers what its length covers. A file
/// is as secret as the party's keys: mode 0600 and for one machine only (see mpc::Archive).
namespace tercet::nn {

/// What a file says of itself; public.
struct MaterialHeader {
  std::string network;  ///< AnnouncementToJson, with the suites that were chosen
  std::string suite;    ///< of layers that name none, SuiteChoice::Text
  mpc::Roles roles;
  std::size_t batch = 1;    ///< images a query
  std::size_t queries = 0;  ///< how many were made
  int party = 0;
  std::string plan_digest;  ///< Plan::Digest
  std::string session;      ///< 32 hex digits, drawn by the session that made the three files
};

/// 32 random hex digits for MaterialHeader::session.
std::string NewMaterialSession();

/// Writes a file. It appears under its name at once, but is no material before Finish; until then
/// it is removed with the writer. Throws ConfigError (place: the file) when it cannot be written.
/// Not thread safe.
///
///     MaterialWriter writer(file, header);
///     writer.AddModel(model.Written());
///     for (...) writer.AddQuery(query.Written());  // header.queries times
///     writer.Finish();
class MaterialWriter {
 public:
  /// ConfigError when the file exists: material is never overwritten.
  MaterialWriter(std::filesystem::path file, MaterialHeader header);
  MaterialWriter(const MaterialWriter&) = delete;
  MaterialWriter& operator=(const MaterialWriter&) = delete;
  ~MaterialWriter();
  void AddModel(ByteSpan shares);
  void AddQuery(ByteSpan material);
  /// Once all is there, makes it last.
  void Finish();

 private:
  void Put(ByteSpan bytes);
  void PutPart(ByteSpan part);

  std::filesystem::path file_;
  MaterialHeader header_;
  int fd_ = -1;
  std::size_t added_ = 0;
  bool finished_ = false;
};

/// A file that is being used up, by one process at a time. Not thread safe.
///
///     MaterialFile material(file);
///     const auto shares = material.Model();
///     const auto query = material.Take(material.Next());
class MaterialFile {
 public:
  /// Throws ConfigError (place: the file) when it cannot be opened, is in use, unfinished,
  /// truncated, damaged, or readable for others than its owner.
  explicit MaterialFile(std::filesystem::path file);
  MaterialFile(const MaterialFile&) = delete;
  MaterialFile& operator=(const MaterialFile&) = delete;
  ~MaterialFile();

  const std::filesystem::path& File() const { return file_; }
  const MaterialHeader& Header() const { return header_; }
  /// The plan that the material was made for, for the architecture `spec`. ConfigError when the
  /// material belongs to another one, or this version of the program makes another plan.
  Plan MakePlan(const NetworkSpec& spec, const mpc::Registry& registry) const;

  /// The first query from which on none has been used; Header().queries when all have.
  std::size_t Next() const { return next_; }
  /// The shares of the model. ConfigError when they are damaged. Secret: to be wiped.
  Bytes Model() const;
  /// The material of query `number`, at least Next(). It and all before it are overwritten and
  /// marked as used on the disk before this returns, so that no crash and no error lets them be
  /// used twice. ConfigError when it is used already, not there, or damaged. Secret: to be wiped.
  Bytes Take(std::size_t number);

 private:
  struct Part {
    std::uint64_t state_at = 0;  // of a query
    std::uint64_t at = 0, length = 0;
  };
  [[noreturn]] void Refuse(const std::string& problem) const;
  void Get(std::uint64_t at, std::span<std::uint8_t> bytes) const;
  std::uint64_t GetNumber(std::uint64_t at) const;
  Part FindPart(std::uint64_t& at, const std::string& what) const;
  Bytes ReadPart(const Part& part) const;
  bool IsWhole(const Part& part, ByteSpan bytes) const;
  void Scan();
  void Overwrite(const Part& query);

  std::filesystem::path file_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  MaterialHeader header_;
  Part model_;
  std::vector<Part> queries_;
  std::size_t next_ = 0;
};

}  // namespace tercet::nn
