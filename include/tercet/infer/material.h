// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "tercet/base/bytes.h"
#include "tercet/infer/plan.h"
#include "tercet/mpc/registry.h"

/// Files that keep one party's correlated material between the session that made it and those that
/// use it up: its shares of the model and a number of prepared queries, each used once.
///
///   "TERCETQ5" | length u64 | header (JSON) | SHA-256
///   then, first for the shares of the model, then for each query:
///   state u64 (0 fresh, 1 used, 2 used and overwritten) | length u64 | material | SHA-256
///
/// Numbers are little endian; a SHA-256 is 64 hex digits and covers what its length covers, and of
/// secret parts what they are ("query 3"), party and session: at another place, or in another file,
/// they are refused. A file is as secret as the party's keys: mode 0600 and for one machine only
/// (see mpc::Archive).
///
/// A query that is run twice is a two-time pad: the other evaluator learns the difference of the
/// two inputs. So what is used is overwritten with zeros, and a file is bound to where it was made:
/// apart from it, in MaterialRecords(), this machine keeps which file (inode and time of birth,
/// digest of what it holds) belongs to the session and up to which query it has been used. A copy
/// is another file, and an older state put back in place does not give back what the record counts
/// as used. What this cannot see: a whole machine, or the file system of both, that is set back or
/// cloned (snapshots); there the parties' comparison of the next query is what is left, which
/// protects as long as one of them was not set back. Nor does overwriting reach what a journal, a
/// snapshot, a copy-on-write file system or a flash disk keeps of old blocks.
namespace tercet::infer {

inline constexpr std::size_t kMaxQueries = 1'000'000;  ///< in a file

/// What a file says of itself; public.
struct MaterialHeader {
  std::string network;  ///< AnnouncementToJson, with the suites that were chosen
  std::string suite;    ///< of layers that name none, SuiteChoice::Text
  std::string linear;   ///< Plan::linear
  mpc::Roles roles;
  std::size_t batch = 1;    ///< images a query, 1..kMaxBatch
  std::size_t queries = 0;  ///< how many were made, 1..kMaxQueries
  int party = 0;
  std::string plan_digest;  ///< Plan::Digest
  std::string session;      ///< 32 hex digits, drawn by the session that made the three files
};

/// 32 random hex digits for MaterialHeader::session.
std::string NewMaterialSession();

/// The directory of this machine's records: $XDG_STATE_HOME/tercet/material, by default under
/// ~/.local/state. Throws ConfigError when neither XDG_STATE_HOME nor HOME is an absolute path.
std::filesystem::path MaterialRecords();

class MaterialRecord;

/// Writes a file and, in the end, its record. It appears under its name at once, but is no material
/// before Finish, and until Keep the writer takes it away with itself: a session in which anything
/// fails leaves none behind. A process that is killed leaves at most a file that is refused. Throws
/// ConfigError (place: the file) when it cannot be written. Not thread safe.
///
///     MaterialWriter writer(file, header);
///     writer.AddModel(model.Written());
///     for (...) writer.AddQuery(query.Written());  // header.queries times
///     writer.Flush();   // the last that can fail for want of space; then all parties meet,
///     writer.Finish();  // meet again,
///     writer.Keep();    // and know that all three have theirs
class MaterialWriter {
 public:
  /// ConfigError when the file exists: material is never overwritten.
  MaterialWriter(std::filesystem::path file, MaterialHeader header);
  MaterialWriter(const MaterialWriter&) = delete;
  MaterialWriter& operator=(const MaterialWriter&) = delete;
  ~MaterialWriter();
  void AddModel(ByteSpan shares);
  void AddQuery(ByteSpan material);
  /// Once all is there, puts it on the disk.
  void Flush();
  /// Makes it material.
  void Finish();
  /// Makes it last.
  void Keep() { kept_ = true; }

 private:
  void Put(ByteSpan bytes);
  void PutPart(ByteSpan part, const std::string& digest);
  [[noreturn]] void Fail() const;

  std::filesystem::path file_;
  MaterialHeader header_;
  int fd_ = -1;
  std::size_t added_ = 0;
  bool has_model_ = false, flushed_ = false, kept_ = false;
  std::string content_;  // digest of the parts' digests
  std::unique_ptr<MaterialRecord> record_;
};

/// Where a file is used.
enum class MaterialPlace {
  /// Where it was made, or was bound to last.
  kWhereMade,
  /// Somewhere else: bound to here from now on, on the caller's word that no copy of it has been
  /// used or will be.
  kMoved
};

/// A file that is being used up, by one process at a time. Not thread safe.
///
///     MaterialFile material(file);
///     const auto shares = material.Model();
///     const auto query = material.Take(material.Next());
class MaterialFile {
 public:
  /// Throws ConfigError (place: the file, with the JSON pointer of what is wrong in its header)
  /// when it cannot be opened, is in use, unfinished, truncated, damaged, or readable for others
  /// than its owner; and when it is not the file that this machine's record knows, unless `place`
  /// is kMoved. Queries that the record counts as used are erased.
  explicit MaterialFile(std::filesystem::path file,
                        MaterialPlace place = MaterialPlace::kWhereMade);
  MaterialFile(const MaterialFile&) = delete;
  MaterialFile& operator=(const MaterialFile&) = delete;
  ~MaterialFile();

  const std::filesystem::path& File() const { return file_; }
  const MaterialHeader& Header() const { return header_; }
  /// The plan that the material was made for, for the architecture `spec`. ConfigError when the
  /// material belongs to another one, or this version of the program makes another plan.
  Plan MakePlan(const nn::NetworkSpec& spec, const mpc::Registry& registry) const;

  /// The first query from which on none has been used; Header().queries when all have.
  std::size_t Next() const { return next_; }
  /// The shares of the model, as long as a query is left. ConfigError when they are damaged or
  /// erased. Secret.
  Bytes Model() const;
  /// The material of query `number`, at least Next(). It and all before it, and with the last one
  /// the shares of the model, are overwritten and marked as used on the disk before this returns,
  /// so that no crash and no error lets them be used twice. ConfigError when it is used already,
  /// not there, or damaged. Secret.
  Bytes Take(std::size_t number);
  /// Erases all queries before `number`, at most Header().queries, as Take does.
  void Skip(std::size_t number);

 private:
  struct Part {
    std::uint64_t state_at = 0;  // of all but the header
    bool used = false, erased = false;
    std::uint64_t at = 0, length = 0;
  };
  [[noreturn]] void Refuse(const std::string& problem) const;
  void Get(std::uint64_t at, std::span<std::uint8_t> bytes) const;
  std::uint64_t GetNumber(std::uint64_t at) const;
  std::string GetDigest(const Part& part) const;
  Part FindPart(std::uint64_t& at, const std::string& what);
  Part FindSecret(std::uint64_t& at, const std::string& what);
  Bytes ReadPart(const Part& part) const;
  void Scan();
  void Bind(MaterialPlace place);
  void Overwrite(Part& part);

  std::filesystem::path file_;
  int fd_ = -1;
  std::uint64_t size_ = 0;
  MaterialHeader header_;
  Part model_;
  std::vector<Part> queries_;
  std::size_t next_ = 0, erased_ = 0;
  std::string content_;  // digest of the parts' digests
  std::unique_ptr<MaterialRecord> record_;
};

}  // namespace tercet::infer
