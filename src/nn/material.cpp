#include "tercet/nn/material.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/json.h"
#include "tercet/base/error.h"
#include "tercet/crypto/certificates.h"
#include "tercet/crypto/prf.h"
#include "tercet/nn/announcement.h"

namespace tercet::nn {
namespace {

using nlohmann::json;

constexpr std::string_view kMagic = "TERCETQ1";
constexpr std::string_view kUnfinished = "unready.";  // in place of the magic
constexpr std::size_t kDigestBytes = 64;
constexpr std::size_t kMaxHeaderBytes = std::size_t{64} << 20;
constexpr std::size_t kMaxQueries = std::size_t{1} << 32;
constexpr std::size_t kWipeBytes = std::size_t{1} << 20;
constexpr std::uint64_t kFresh = 0, kUsed = 1;

std::string_view Text(ByteSpan bytes) {
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

ByteSpan Raw(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::array<std::uint8_t, 8> Encode(std::uint64_t value) {
  std::array<std::uint8_t, 8> bytes{};
  for (std::size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::uint8_t>(value >> 8 * i);
  return bytes;
}

// Whether all of it could be written; errno says why not.
bool WriteAt(int fd, std::uint64_t at, ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t count = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(at));
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    at += static_cast<std::uint64_t>(count);
    bytes = bytes.subspan(static_cast<std::size_t>(count));
  }
  return true;
}

std::string HeaderText(const MaterialHeader& header) {
  const auto& roles = header.roles;
  return json{{"network", header.network},
              {"suite", header.suite},
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
  MaterialHeader header;
  document.at("network").get_to(header.network);
  document.at("suite").get_to(header.suite);
  const auto roles = document.at("roles").get<std::array<int, 4>>();
  header.roles = {roles[0], roles[1], roles[2], roles[3]};
  document.at("batch").get_to(header.batch);
  document.at("queries").get_to(header.queries);
  document.at("party").get_to(header.party);
  document.at("plan_digest").get_to(header.plan_digest);
  document.at("session").get_to(header.session);
  return header;
}

}  // namespace

std::string NewMaterialSession() {
  std::array<std::uint8_t, 16> bytes{};
  crypto::RandomBytes(bytes);
  std::string text;
  for (const auto byte : bytes) text += fmt::format("{:02x}", byte);
  return text;
}

MaterialWriter::MaterialWriter(std::filesystem::path file, MaterialHeader header)
    : file_(std::move(file)), header_(std::move(header)) {
  fd_ = ::open(file_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (fd_ < 0)
    throw ConfigError(file_.string(),
                      errno == EEXIST
                          ? "exists already; material is never overwritten, so remove it first"
                          : fmt::format("cannot be written: {}", std::strerror(errno)));
  try {
    Put(Raw(kUnfinished));
    PutPart(Raw(HeaderText(header_)));
  } catch (...) {
    ::close(fd_);
    ::unlink(file_.c_str());
    throw;
  }
}

MaterialWriter::~MaterialWriter() {
  ::close(fd_);
  if (!finished_) ::unlink(file_.c_str());
}

void MaterialWriter::Put(ByteSpan bytes) {
  const auto at = ::lseek(fd_, 0, SEEK_END);
  if (at < 0 || !WriteAt(fd_, static_cast<std::uint64_t>(at), bytes))
    throw ConfigError(file_.string(), fmt::format("cannot be written: {}", std::strerror(errno)));
}

void MaterialWriter::PutPart(ByteSpan part) {
  Put(Encode(part.size()));
  Put(part);
  Put(Raw(crypto::Sha256Hex(Text(part))));
}

void MaterialWriter::AddModel(ByteSpan shares) { PutPart(shares); }

void MaterialWriter::AddQuery(ByteSpan material) {
  Put(Encode(kFresh));
  PutPart(material);
  ++added_;
}

void MaterialWriter::Finish() {
  TERCET_CHECK(added_ == header_.queries, "{} queries added to a file for {}", added_,
               header_.queries);
  // The magic goes in once the rest is on the disk.
  if (::fsync(fd_) != 0 || !WriteAt(fd_, 0, Raw(kMagic)) || ::fsync(fd_) != 0)
    throw ConfigError(file_.string(), fmt::format("cannot be written: {}", std::strerror(errno)));
  finished_ = true;
}

MaterialFile::MaterialFile(std::filesystem::path file) : file_(std::move(file)) {
  fd_ = ::open(file_.c_str(), O_RDWR | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd_ < 0) Refuse(fmt::format("cannot be opened for use: {}", std::strerror(errno)));
  try {
    Scan();
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
  std::uint64_t value = 0;
  for (std::size_t i = 0; i < 8; ++i) value |= std::uint64_t{bytes[i]} << 8 * i;
  return value;
}

// The part whose length is at `at`, which moves behind the part's digest.
MaterialFile::Part MaterialFile::FindPart(std::uint64_t& at, const std::string& what) const {
  Part part{0, at + 8, GetNumber(at)};
  if (part.length > size_ || part.at + kDigestBytes > size_ - part.length)
    Refuse(fmt::format("is truncated or damaged: {} of {} bytes begins at byte {} of {}", what,
                       part.length, part.at, size_));
  at = part.at + part.length + kDigestBytes;
  return part;
}

Bytes MaterialFile::ReadPart(const Part& part) const {
  Bytes bytes(part.length);
  Get(part.at, bytes);
  return bytes;
}

bool MaterialFile::IsWhole(const Part& part, ByteSpan bytes) const {
  std::array<std::uint8_t, kDigestBytes> digest{};
  Get(part.at + part.length, digest);
  return Text(digest) == crypto::Sha256Hex(Text(bytes));
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
  if (!IsWhole(head, text)) Refuse("is damaged: the header's digest is wrong");
  try {
    header_ = ParseHeader(Text(text), file_.string() + " header");
  } catch (const json::exception& e) {
    Refuse(fmt::format("has no valid header: {}", e.what()));
  }
  if (header_.queries == 0 || header_.queries > kMaxQueries || header_.party < 0 ||
      header_.party > 2 || header_.batch == 0)
    Refuse("has no valid header");
  model_ = FindPart(at, "the model");
  for (std::size_t q = 0; q < header_.queries; ++q) {
    const std::uint64_t state_at = at;
    const std::uint64_t state = GetNumber(at);
    at += 8;
    Part query = FindPart(at, fmt::format("query {}", q));
    query.state_at = state_at;
    if (state != kFresh && state != kUsed)
      Refuse(fmt::format("is damaged: query {} has state {}, expected {} or {}", q, state, kFresh,
                         kUsed));
    if (state == kUsed) next_ = q + 1;
    queries_.push_back(query);
  }
  if (at != size_) Refuse(fmt::format("is damaged: {} bytes after its end", size_ - at));
}

Plan MaterialFile::MakePlan(const NetworkSpec& spec, const mpc::Registry& registry) const {
  const std::string place = file_.string() + " /network";
  const auto suite = mpc::ParseSuiteChoice(header_.suite, file_.string());
  const auto network =
      NetworkOf(spec, AnnouncementFromJson(header_.network, place), registry, suite, place);
  auto plan = nn::MakePlan(network, registry, suite, header_.roles, header_.batch);
  if (plan.Digest() != header_.plan_digest)
    Refuse(
        fmt::format("was made for a plan with digest {:.12}, this program's plan has {:.12}; was "
                    "it made by another version?",
                    header_.plan_digest, plan.Digest()));
  return plan;
}

Bytes MaterialFile::Model() const {
  Bytes shares = ReadPart(model_);
  if (!IsWhole(model_, shares)) Refuse("is damaged: the digest of the model's shares is wrong");
  return shares;
}

Bytes MaterialFile::Take(std::size_t number) {
  if (number >= queries_.size())
    Refuse(fmt::format("all of its {} queries are used up", queries_.size()));
  if (number < next_) Refuse(fmt::format("query {} is used already", number));
  const Part& query = queries_[number];
  Bytes material = ReadPart(query);
  for (; next_ <= number; ++next_) Overwrite(queries_[next_]);
  if (::fsync(fd_) != 0) {
    crypto::Wipe(material);
    Refuse(fmt::format("query {} cannot be marked as used: {}", number, std::strerror(errno)));
  }
  if (!IsWhole(query, material)) {
    crypto::Wipe(material);
    Refuse(
        fmt::format("is damaged: the digest of query {} is wrong; the query is skipped from "
                    "now on",
                    number));
  }
  return material;
}

// The mark goes first: a crash in between must not leave half a query that counts as fresh.
void MaterialFile::Overwrite(const Part& query) {
  const Bytes zeros = [] {
    Bytes bytes(kWipeBytes);
    std::fill(bytes.begin(), bytes.end(), std::uint8_t{0});
    return bytes;
  }();
  bool good = WriteAt(fd_, query.state_at, Encode(kUsed));
  for (std::uint64_t done = 0; good && done < query.length; done += kWipeBytes)
    good = WriteAt(fd_, query.at + done,
                   ByteSpan(zeros).first(std::min<std::uint64_t>(kWipeBytes, query.length - done)));
  if (!good) Refuse(fmt::format("cannot be overwritten: {}", std::strerror(errno)));
}

}  // namespace tercet::nn
