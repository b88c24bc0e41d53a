// SPDX-License-Identifier: Apache-2.0
#include "tercet/infer/material.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/endian.h"
#include "base/json.h"
#include "files/disk.h"
#include "files/schema_check.h"
#include "infer/material_record.h"
#include "tercet/base/error.h"
#include "tercet/compile/announcement.h"
#include "tercet/crypto/certificates.h"
#include "tercet/crypto/prf.h"

namespace tercet::infer {
namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "TERCETQ6";
constexpr std::string_view kUnfinished = "unready.";  // in place of the magic
constexpr std::size_t kDigestBytes = 64;
constexpr std::size_t kMaxNetworkBytes = std::size_t{16} << 20;
constexpr std::size_t kMaxHeaderBytes = 2 * kMaxNetworkBytes;  // quotes within quotes
constexpr std::size_t kWipeBytes = std::size_t{1} << 20;
// Of a part: fresh; used, but perhaps not overwritten yet; overwritten.
constexpr std::uint64_t kFresh = 0, kUsed = 1, kErased = 2;

constexpr const char* kHeaderSchema = R"({
  "title": "a header", "description": "an object", "type": "object",
  "required": ["network", "suite", "linear", "roles", "batch", "queries", "party", "plan_digest", "session"],
  "additionalProperties": false,
  "properties": {
    "network": {"type": "string", "description": "a network, as text"},
    "suite": {"type": "string", "minLength": 1, "maxLength": 1024,
              "description": "a suite of 1 to 1024 characters"},
    "linear": {"type": "string", "minLength": 1, "maxLength": 1024,
               "description": "a protocol of linear layers of 1 to 1024 characters"},
    "roles": {"type": "array", "minItems": 4, "maxItems": 4,
              "items": {"enum": [0, 1, 2], "description": "a party's number: 0, 1 or 2"},
              "description": "four parties: helper, data owner, model owner, receiver"},
    "batch": {"type": "integer", "minimum": 1, "maximum": 4096,
              "description": "a number of images from 1 to 4096"},
    "queries": {"type": "integer", "minimum": 1, "maximum": 1000000,
                "description": "a number of queries from 1 to 1000000"},
    "party": {"enum": [0, 1, 2], "description": "a party's number: 0, 1 or 2"},
    "plan_digest": {"type": "string", "minLength": 64, "maxLength": 64,
                    "description": "a SHA-256 of 64 characters"},
    "session": {"type": "string", "minLength": 32, "maxLength": 32, "pattern": "^[0-9a-f]+$",
                "description": "32 hex digits"}
  }
})";
static_assert(kMaxBatch == 4096 && kMaxQueries == 1'000'000, "as in the schema");

constexpr const char* kModel = "the model";
std::string QueryName(std::size_t number) { return fmt::format("query {}", number); }

std::string_view Text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ByteSpan Raw(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::array<std::uint8_t, 8> Encode(std::uint64_t value) {
  std::array<std::uint8_t, 8> bytes{};
  ToLittleEndian(value, bytes);
  return bytes;
}

std::string HeaderText(const MaterialHeader& header) {
  const auto& roles = header.roles;
  return json{{"network", header.network},
              {"suite", header.suite},
              {"linear", header.linear},
              {"roles", {roles.helper, roles.data_owner, roles.model_owner, roles.receiver}},
              {"batch", header.batch},
              {"queries", header.queries},
              {"party", header.party},
              {"plan_digest", header.plan_digest},
              {"session", header.session}}
      .dump();
}

MaterialHeader ParseHeader(std::string_view text, const std::string& place) {
  const json document = ReadJson(text, place, JsonLimits::UpTo(text.size()));
  static const files::Schema schema(kHeaderSchema);
  schema.Check(document, place);
  MaterialHeader header;
  document.at("network").get_to(header.network);
  document.at("suite").get_to(header.suite);
  document.at("linear").get_to(header.linear);
  const auto roles = document.at("roles").get<std::array<int, 4>>();
  header.roles = {roles[0], roles[1], roles[2], roles[3]};
  document.at("batch").get_to(header.batch);
  document.at("queries").get_to(header.queries);
  document.at("party").get_to(header.party);
  document.at("plan_digest").get_to(header.plan_digest);
  document.at("session").get_to(header.session);
  return header;
}

// Of a part of the file of `header`, which is for this place alone: "query 3".
std::string DigestOf(ByteSpan part, const std::string& what, const MaterialHeader& header) {
  return crypto::Sha256Hex(fmt::format("{} of party {} of session {}: {}", what, header.party,
                                       header.session, crypto::Sha256Hex(Text(part))));
}

// The digest of the parts so far and one more.
std::string Chain(const std::string& content, std::string_view digest) {
  return crypto::Sha256Hex(content + std::string(digest));
}

// Whether the file of this name is the one that `identity` was told from.
bool IsAt(const std::filesystem::path& file, const std::string& identity) {
  const int fd = ::open(file.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  const bool same = files::FileIdentity(fd) == identity;
  ::close(fd);
  return same;
}

}  // namespace

std::string NewMaterialSession() {
  std::array<std::uint8_t, 16> bytes{};
  crypto::RandomBytes(bytes);
  std::string text;
  for (const auto byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

// --- Writing.

MaterialWriter::MaterialWriter(std::filesystem::path file, MaterialHeader header)
    : file_(std::move(file)),
      header_(std::move(header)),
      record_(std::make_unique<MaterialRecord>(header_.session, header_.party)) {
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0) {
    if (errno == EEXIST)
      throw ConfigError(file_.string(),
                        "exists already; material is never overwritten, so remove it first");
    Fail();
  }
  try {
    Put(Raw(kUnfinished));
    const std::string text = HeaderText(header_);
    PutPart(Raw(text), crypto::Sha256Hex(text));
  } catch (...) {
    ::close(fd_);
    ::unlink(file_.c_str());
    throw;
  }
}

MaterialWriter::~MaterialWriter() {
  if (!kept_) {
    // Should the name be all that can be removed, what is left is no material.
    files::WriteAt(fd_, 0, Raw(kUnfinished));
    ::unlink(file_.c_str());
    record_->Remove();
  }
  ::close(fd_);
}

void MaterialWriter::Fail() const {
  throw ConfigError(file_.string(), fmt::format("cannot be written: {}", std::strerror(errno)));
}

void MaterialWriter::Put(ByteSpan bytes) {
  const auto at = ::lseek(fd_, 0, SEEK_END);
  if (at < 0 || !files::WriteAt(fd_, static_cast<std::uint64_t>(at), bytes)) Fail();
}

void MaterialWriter::PutPart(ByteSpan part, const std::string& digest) {
  content_ = Chain(content_, digest);
  Put(Encode(part.size()));
  Put(part);
  Put(Raw(digest));
}

void MaterialWriter::AddModel(ByteSpan shares) {
  TERCET_CHECK(!has_model_ && added_ == 0, "the model comes once and before the queries");
  has_model_ = true;
  Put(Encode(kFresh));
  PutPart(shares, DigestOf(shares, kModel, header_));
}

void MaterialWriter::AddQuery(ByteSpan material) {
  Put(Encode(kFresh));
  PutPart(material, DigestOf(material, QueryName(added_), header_));
  ++added_;
}

void MaterialWriter::Flush() {
  TERCET_CHECK(has_model_ && added_ == header_.queries, "{} queries added to a file for {}", added_,
               header_.queries);
  if (::fsync(fd_) != 0 || !files::SyncDirectoryOf(file_)) Fail();
  flushed_ = true;
}

void MaterialWriter::Finish() {
  TERCET_CHECK(flushed_, "a file is flushed before it is finished");
  record_->Set({files::FileIdentity(fd_), content_, std::filesystem::absolute(file_), 0});
  // The magic goes in once all else is on the disk.
  if (!files::WriteAt(fd_, 0, Raw(kMagic)) || ::fsync(fd_) != 0) Fail();
}

// --- Using.

MaterialFile::MaterialFile(std::filesystem::path file, MaterialPlace place)
    : file_(std::move(file)) {
  fd_ = ::open(file_.c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd_ < 0) Refuse(fmt::format("cannot be opened for use: {}", std::strerror(errno)));
  try {
    Scan();
    Bind(place);
  } catch (...) {
    ::close(fd_);
    throw;
  }
}

MaterialFile::~MaterialFile() { ::close(fd_); }

void MaterialFile::Refuse(const std::string& problem) const {
  throw ConfigError(file_.string(), problem);
}

void MaterialFile::Get(std::uint64_t at, std::span<std::uint8_t> bytes) const {
  while (!bytes.empty()) {
    const ssize_t count = ::pread(fd_, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) Refuse(fmt::format("cannot be read: {}", std::strerror(errno)));
    if (count == 0) Refuse(fmt::format("is truncated: it ends at byte {}", at));
    at += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
}

std::uint64_t MaterialFile::GetNumber(std::uint64_t at) const {
  std::array<std::uint8_t, 8> bytes{};
  Get(at, bytes);
  return FromLittleEndian(bytes);
}

std::string MaterialFile::GetDigest(const Part& part) const {
  std::string digest(kDigestBytes, ' ');
  Get(part.at + part.length, {reinterpret_cast<std::uint8_t*>(digest.data()), digest.size()});
  return digest;
}

// The part whose length is at `at`, which moves behind the part's digest.
MaterialFile::Part MaterialFile::FindPart(std::uint64_t& at, const std::string& what) {
  Part part;
  part.at = at + 8;
  part.length = GetNumber(at);
  if (part.length > size_ || part.at + kDigestBytes > size_ - part.length)
    Refuse(fmt::format("is truncated or damaged: {} of {} bytes begins at byte {} of {}", what,
                       part.length, part.at, size_));
  at = part.at + part.length + kDigestBytes;
  content_ = Chain(content_, GetDigest(part));
  return part;
}

// A part with a state before it.
MaterialFile::Part MaterialFile::FindSecret(std::uint64_t& at, const std::string& what) {
  const std::uint64_t state_at = at, state = GetNumber(at);
  at += 8;
  Part part = FindPart(at, what);
  if (state > kErased)
    Refuse(fmt::format("is damaged: {} has state {}, expected {} to {}", what, state, kFresh,
                       kErased));
  part.state_at = state_at;
  part.used = state != kFresh;
  part.erased = state == kErased;
  return part;
}

Bytes MaterialFile::ReadPart(const Part& part) const {
  Bytes bytes(part.length);
  Get(part.at, bytes);
  return bytes;
}

void MaterialFile::Scan() {
  if (::flock(fd_, LOCK_EX | LOCK_NB) != 0) Refuse("is in use by another process");
  struct stat status {};
  if (::fstat(fd_, &status) != 0 || !S_ISREG(status.st_mode)) Refuse("is no regular file");
  if ((status.st_mode & 077) != 0)
    Refuse(fmt::format("has mode {:o}, expected 600: it is as secret as a key",
                       status.st_mode & 0777));
  size_ = static_cast<std::uint64_t>(status.st_size);
  std::array<std::uint8_t, kMagic.size()> magic{};
  Get(0, magic);
  if (Text(magic) == kUnfinished)
    Refuse("is unfinished: the run that should have made it did not end; remove it");
  if (Text(magic) != kMagic)
    Refuse(fmt::format("is no material of this version: it does not begin with {}", kMagic));
  std::uint64_t at = magic.size();
  const Part head = FindPart(at, "the header");
  if (head.length > kMaxHeaderBytes)
    Refuse(fmt::format("is damaged: a header of {} bytes, expected at most {}", head.length,
                       kMaxHeaderBytes));
  const Bytes text = ReadPart(head);
  if (GetDigest(head) != crypto::Sha256Hex(Text(text)))
    Refuse("is damaged: the header's digest is wrong");
  header_ = ParseHeader(Text(text), file_.string() + " header");
  model_ = FindSecret(at, kModel);
  for (std::size_t q = 0; q < header_.queries; ++q) {
    queries_.push_back(FindSecret(at, QueryName(q)));
    if (queries_.back().used) next_ = q + 1;
  }
  if (at != size_) Refuse(fmt::format("is damaged: {} bytes after its end", size_ - at));
}

// The record is what says that this is the file, and how far it has been used.
void MaterialFile::Bind(MaterialPlace place) {
  record_ = std::make_unique<MaterialRecord>(header_.session, header_.party);
  const auto& known = record_->Known();
  MaterialRecord::Entry here{files::FileIdentity(fd_), content_, std::filesystem::absolute(file_),
                             std::max(next_, known ? known->next : 0)};
  constexpr const char* kRemedy =
      "a query that is used from two copies gives the difference of the two inputs away, so if "
      "this is the only copy and stays it, bind it to here with --material-moved";
  const bool elsewhere = known && known->identity != here.identity;
  if (place == MaterialPlace::kMoved) {
    if (elsewhere && IsAt(known->path, known->identity))
      Refuse(
          fmt::format("is a copy: the material that was bound to {} is still there; use that, or "
                      "remove it",
                      known->path.string()));
  } else {
    if (!known)
      Refuse(
          fmt::format("is not known to this machine: it was made on another one, or the record "
                      "{} is lost; {}",
                      record_->File().string(), kRemedy));
    if (elsewhere)
      Refuse(
          fmt::format("is a copy, or was moved: the material of this session was bound to {}; {}",
                      known->path.string(), kRemedy));
  }
  if (known && known->content != content_)
    Refuse("is not what was made here: its parts differ from those in this machine's record");
  if (here.next > header_.queries)
    Refuse(fmt::format("holds {} queries, of which {} are used by this machine's record",
                       header_.queries, here.next));
  if (place == MaterialPlace::kMoved) record_->Set(here);
  Skip(here.next);
}

Plan MaterialFile::MakePlan(const nn::NetworkSpec& spec, const mpc::Registry& registry) const {
  const std::string place = file_.string() + " /network";
  const auto suite = mpc::ParseSuiteChoice(header_.suite, file_.string());
  auto network = compile::NetworkOf(spec, compile::AnnouncementFromJson(header_.network, place),
                                    registry, suite, place);
  network.linear = header_.linear;
  auto plan = infer::MakePlan(network, registry, suite, header_.roles, header_.batch);
  if (plan.Digest() != header_.plan_digest)
    Refuse(
        fmt::format("was made for a plan with digest {:.12}, this program's plan has {:.12}; was "
                    "it made by another version?",
                    header_.plan_digest, plan.Digest()));
  return plan;
}

Bytes MaterialFile::Model() const {
  if (model_.used) Refuse(fmt::format("all of its {} queries are used up", queries_.size()));
  Bytes shares = ReadPart(model_);
  if (GetDigest(model_) != DigestOf(shares, kModel, header_))
    Refuse("is damaged: the digest of the model's shares is wrong");
  return shares;
}

Bytes MaterialFile::Take(std::size_t number) {
  if (number >= queries_.size())
    Refuse(fmt::format("all of its {} queries are used up", queries_.size()));
  if (number < next_) Refuse(fmt::format("query {} is used already", number));
  const Part& query = queries_[number];
  Bytes material = ReadPart(query);
  Skip(number + 1);
  if (GetDigest(query) != DigestOf(material, QueryName(number), header_))
    Refuse(
        fmt::format("is damaged: the digest of query {} is wrong; the query is skipped from "
                    "now on",
                    number));
  return material;
}

// The record goes first: what it counts as used is erased whenever the file is opened again.
void MaterialFile::Skip(std::size_t number) {
  TERCET_CHECK(number <= queries_.size(), "query {} of {}", number, queries_.size());
  if (auto entry = *record_->Known(); entry.next < number) {
    entry.next = number;
    record_->Set(std::move(entry));
  }
  next_ = std::max(next_, number);
  std::vector<Part*> parts;
  for (std::size_t q = erased_; q < number; ++q) parts.push_back(&queries_[q]);
  if (number == queries_.size()) parts.push_back(&model_);
  std::erase_if(parts, [](const Part* part) { return part->erased; });
  for (Part* part : parts) Overwrite(*part);
  bool good = parts.empty() || ::fsync(fd_) == 0;
  for (const Part* part : parts)
    good = good && files::WriteAt(fd_, part->state_at, Encode(kErased));
  if (!good) Refuse(fmt::format("cannot be overwritten: {}", std::strerror(errno)));
  for (Part* part : parts) part->erased = true;
  erased_ = std::max(erased_, number);
}

// The mark goes first: a crash in between must not leave half a query that counts as fresh.
void MaterialFile::Overwrite(Part& part) {
  part.used = true;
  const Bytes zeros = [] {
    Bytes bytes(kWipeBytes);
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    return bytes;
  }();
  bool good = files::WriteAt(fd_, part.state_at, Encode(kUsed));
  for (std::uint64_t done = 0; good && done < part.length; done += kWipeBytes)
    good = files::WriteAt(
        fd_, part.at + done,
        ByteSpan(zeros).first(std::min<std::uint64_t>(kWipeBytes, part.length - done)));
  if (!good) Refuse(fmt::format("cannot be overwritten: {}", std::strerror(errno)));
}

}  // namespace tercet::infer
