// SPDX-License-Identifier: Apache-2.0
#include "tercet/files/images.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <utility>

#include "base/json.h"
#include "files/byte_reader.h"
#include "files/data_file.h"
#include "files/folder.h"
#include "files/format.h"
#include "tercet/base/error.h"
#include "tercet/base/file_reader.h"

namespace tercet::files {
namespace {

constexpr FileKind kDataFile{"images or labels", kMaxDataBytes};
constexpr const char* kStandardInput = "-";
// No pixel above it: a tenth of the range, which pictures reach unless they are all black.
constexpr std::uint8_t kSuspiciousPixel = 25;

/// One file to read.
struct Source {
  std::filesystem::path path;
  std::string name;  ///< of a picture, for tables of files and labels
  bool in_folder = false;
  std::optional<std::size_t> label;  ///< by its folder
};

using Parse = std::function<Part(const ByteSource& source, std::size_t limit)>;

ByteSource SourceOf(const FileReader& file, const std::string& name) {
  return {name, file.Size(),
          [&file](std::uint64_t at, std::uint64_t count) { return file.Read(at, count); }};
}

ByteSource SourceOf(const std::vector<std::uint8_t>& bytes, const std::string& name) {
  return {name, bytes.size(), [&bytes](std::uint64_t at, std::uint64_t count) {
            const auto begin = bytes.begin() + static_cast<std::ptrdiff_t>(at);
            return std::vector(begin, begin + static_cast<std::ptrdiff_t>(count));
          }};
}

/// All files that these are, folders opened. With `classes` not 0 folders in a folder are them.
std::vector<Source> SourcesOf(const DataFiles& data, std::size_t classes) {
  std::vector<Source> sources;
  for (const std::filesystem::path& path : data.files) {
    std::error_code unknown;
    if (path == kStandardInput || !std::filesystem::is_directory(path, unknown)) {
      sources.push_back({path, path.filename().string(), false, {}});
      continue;
    }
    const Folder folder = ListFolder(path);
    if (classes > 0 && !folder.groups.empty() && folder.groups.size() != classes) {
      throw ConfigError(
          path.string(),
          fmt::format(
              "has {} folders ({} to {}), expected {}, one for each class; or give labels, or "
              "name the folders as A,B if they are no classes",
              folder.groups.size(), Printable(folder.groups.front()),
              Printable(folder.groups.back()), classes));
    }
    for (const Folder::File& file : folder.files)
      sources.push_back({file.path, file.name, true, file.group});
  }
  return sources;
}

/// `wanted` labels of a picture are those of its folder.
Part ReadSource(const Source& source, std::size_t limit, Wanted wanted, const Parse& parse) {
  if (wanted == Wanted::kLabels && source.in_folder) {
    if (!source.label)
      throw ConfigError(source.path.parent_path().string(),
                        "has no folder for each class, labels "
                        "are expected");
    Part part;
    part.labels = {static_cast<std::uint8_t>(*source.label)};
    part.total = 1;
    return part;
  }
  if (wanted == Wanted::kLabels && source.path == kStandardInput)
    throw ConfigError("standard input", "gives images only, expected labels in a file");
  if (source.path == kStandardInput) {
    const auto bytes = ReadStandardInput(kDataFile);
    return parse(SourceOf(bytes, "standard input"), limit);
  }
  const FileReader opened(source.path, kDataFile);
  Part part = parse(SourceOf(opened, source.path.string()), limit);
  if (source.in_folder && !part.is_picture)
    throw ConfigError(source.path.string(), "is no picture, expected PNG, PGM or PPM in a folder");
  if (part.is_picture) part.names = {source.name};
  if (source.label) part.labels = {static_cast<std::uint8_t>(*source.label)};
  return part;
}

/// Puts `part`, which was read of `source`, behind `all`, which begins with `first`.
void Append(Part& all, Part part, const Source& source, const Source& first) {
  const std::string name = source.path.string();
  if (all.images.count > 0 && part.images.shape != all.images.shape) {
    throw ConfigError(name, fmt::format("images of the wrong size: found {}, expected {} as in {}",
                                        mpc::ShapeText(part.images.shape),
                                        mpc::ShapeText(all.images.shape), first.path.string()));
  }
  if (all.whole_numbers.value_or(part.whole_numbers.value_or(true)) !=
      part.whole_numbers.value_or(all.whole_numbers.value_or(true))) {
    throw ConfigError(name,
                      "one of the tables has whole numbers only and another one has not: say "
                      "--values pixels or --values scaled");
  }
  if (part.images.pixels.size() > kMaxDataBytes - all.images.pixels.size()) {
    throw ConfigError(
        name, fmt::format("more than {} bytes of images with the files before it", kMaxDataBytes));
  }
  if (part.whole_numbers) all.whole_numbers = part.whole_numbers;
  all.images.shape = part.images.shape;
  all.images.count += part.images.count;
  if (all.images.pixels.empty()) {
    all.images.pixels = std::move(part.images.pixels);
  } else {
    all.images.pixels.insert(all.images.pixels.end(), part.images.pixels.begin(),
                             part.images.pixels.end());
  }
  all.labels.insert(all.labels.end(), part.labels.begin(), part.labels.end());
  std::move(part.names.begin(), part.names.end(), std::back_inserter(all.names));
}

Part Chosen(const Part& all, const std::vector<std::size_t>& chosen) {
  Part some;
  some.total = all.total;
  const std::size_t pixels = all.images.shape.Size();
  some.images.shape = all.images.shape;
  if (all.images.count > 0) some.images.count = chosen.size();
  some.images.pixels.reserve(some.images.count * pixels);
  for (const std::size_t i : chosen) {
    if (all.images.count > 0) {
      const auto begin = all.images.pixels.begin() + static_cast<std::ptrdiff_t>(i * pixels);
      some.images.pixels.insert(some.images.pixels.end(), begin,
                                begin + static_cast<std::ptrdiff_t>(pixels));
    }
    if (!all.labels.empty()) some.labels.push_back(all.labels[i]);
    if (!all.names.empty()) some.names.push_back(all.names[i]);
  }
  return some;
}

/// Puts together what `parse` finds in the files, of which it may leave out images or labels.
Part LoadFiles(const DataFiles& data, std::size_t limit, std::size_t classes, Wanted wanted,
               const Parse& parse) {
  Part all;
  all.total = 0;
  std::size_t count = 0;
  const std::vector<Source> sources = SourcesOf(data, classes);
  for (const Source& source : sources) {
    // A subset is drawn from everything, so nothing can be left unread before.
    // Of files behind the limit one item is looked at, to know how many there are in all.
    const bool enough = !data.subset && limit > 0 && count == limit;
    const std::size_t rest = limit == 0 || data.subset ? 0 : enough ? 1 : limit - count;
    if (enough && source.in_folder) {
      if (all.total) ++*all.total;
      continue;
    }
    Part part = ReadSource(source, rest, wanted, parse);
    all.total = all.total && part.total ? std::optional(*all.total + *part.total) : std::nullopt;
    if (enough) {
      part.images.count = 0;
      part.images.pixels.clear();
      part.labels.clear();
      part.names.clear();
    }
    Append(all, std::move(part), source, sources.front());
    count = std::max(all.images.count, all.labels.size());
  }
  // Files of formats with and without labels, or names, may come together.
  if (all.images.count > 0 && all.labels.size() < all.images.count) all.labels.clear();
  if (all.names.size() < count) all.names.clear();
  if (!data.subset) return all;

  std::vector<std::size_t> chosen = SubsetIndices(*data.subset, count);
  if (chosen.empty()) {
    throw ConfigError(data.files.front().string(),
                      fmt::format("its subset is empty: {} of {} items",
                                  data.subset->test ? "test part" : "training part", count));
  }
  if (limit > 0) chosen.resize(std::min(chosen.size(), limit));
  return Chosen(all, chosen);
}

/// With `classes` not 0 their labels too, where they have some.
Part LoadImagesOf(const DataFiles& data, std::size_t limit, const mpc::Shape3& expected,
                  const DataOptions& options, std::size_t classes) {
  return LoadFiles(data, limit, classes, Wanted::kImages,
                   [&](const ByteSource& source, std::size_t rest) {
                     return ReadImages(source, rest, expected, options, classes);
                   });
}

Part LoadLabelsOf(const DataFiles& data, std::size_t limit, std::size_t classes,
                  const DataOptions& options) {
  return LoadFiles(data, limit, classes, Wanted::kLabels,
                   [&](const ByteSource& source, std::size_t rest) {
                     return ReadLabels(source, rest, classes, options);
                   });
}

std::string JoinNames(const DataFiles& data) {
  std::string names;
  for (const std::filesystem::path& file : data.files) {
    if (!names.empty()) names += ',';
    names += file.string();
  }
  return names;
}

/// The label of each picture, from a table that names their files.
std::vector<std::uint8_t> LabelsByName(const std::vector<std::string>& pictures, const Part& table,
                                       const std::string& place) {
  std::map<std::string_view, std::uint8_t> by_name;
  for (std::size_t i = 0; i < table.names.size(); ++i) {
    if (!by_name.emplace(table.names[i], table.labels[i]).second)
      throw ConfigError(place, fmt::format("has two rows for {}", Printable(table.names[i])));
  }
  std::vector<std::uint8_t> labels;
  for (const std::string& picture : pictures) {
    const auto found = by_name.find(picture);
    if (found == by_name.end()) {
      throw ConfigError(place,
                        fmt::format("has no row for the picture {} (its first row is for {})",
                                    Printable(picture), Printable(table.names.front())));
    }
    labels.push_back(found->second);
  }
  return labels;
}

}  // namespace

Images LoadImages(const std::filesystem::path& file, std::size_t limit, const mpc::Shape3& expected,
                  const DataOptions& options) {
  return LoadImagesOf(ParseDataFiles(file.string()), limit, expected, options, 0).images;
}

Images ParseImages(const std::vector<std::uint8_t>& bytes, const std::string& name,
                   std::size_t limit, const mpc::Shape3& expected, const DataOptions& options) {
  return ReadImages(SourceOf(bytes, name), limit, expected, options, 0).images;
}

std::vector<std::uint8_t> LoadLabels(const std::filesystem::path& file, std::size_t limit,
                                     std::size_t classes, const DataOptions& options) {
  Part part = LoadLabelsOf(ParseDataFiles(file.string()), limit, classes, options);
  if (!part.names.empty())
    throw ConfigError(file.string(), "names pictures, which must be given with it");
  return std::move(part.labels);
}

std::vector<std::uint8_t> ParseLabels(const std::vector<std::uint8_t>& bytes,
                                      const std::string& name, std::size_t limit,
                                      std::size_t classes, const DataOptions& options) {
  return ReadLabels(SourceOf(bytes, name), limit, classes, options).labels;
}

std::optional<std::string> RangeWarning(const Images& images) {
  if (images.pixels.empty()) return std::nullopt;
  const std::uint8_t most = *std::max_element(images.pixels.begin(), images.pixels.end());
  if (most > kSuspiciousPixel) return std::nullopt;
  return fmt::format(
      "the largest pixel of all {} images is {}, where 0 to 255 is expected: say --values scaled "
      "or "
      "normalised if their numbers are no pixels",
      images.count, most);
}

LabelledImages LoadLabelledImages(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, std::size_t limit,
                                  const mpc::Shape3& expected, std::size_t classes,
                                  const DataOptions& options) {
  const DataFiles image_files = ParseDataFiles(images.string());
  if (labels.empty()) return LoadImagesOf(image_files, limit, expected, options, classes);
  DataFiles label_files = ParseDataFiles(labels.string());
  if (label_files.subset && label_files.subset != image_files.subset) {
    throw ConfigError(labels.string(),
                      fmt::format("its subset is not that of the images {}", images.string()));
  }
  label_files.subset = image_files.subset;
  Part result = LoadImagesOf(image_files, limit, expected, options, 0);
  if (!result.names.empty()) {
    const Part table = LoadLabelsOf({label_files.files, std::nullopt}, 0, classes, options);
    if (!table.names.empty()) {
      result.labels = LabelsByName(result.names, table, JoinNames(label_files));
      return result;
    }
  }
  // One more than there may be shows that there are too many; a subset is drawn from all of them.
  const bool open_end = limit == 0 && !label_files.subset;
  Part found =
      LoadLabelsOf(label_files, open_end ? result.images.count + 1 : limit, classes, options);
  if (!found.names.empty())
    throw ConfigError(JoinNames(label_files),
                      "names files, expected labels alone, as the images "
                      "are no pictures in files of their own");
  const auto check = [&](std::uint64_t label_count, std::uint64_t image_count) {
    if (label_count == image_count) return;
    throw ConfigError(JoinNames(label_files),
                      fmt::format("{}{} labels found, {} expected, one for each image of {}",
                                  open_end && !found.total ? "at least " : "", label_count,
                                  image_count, JoinNames(image_files)));
  };
  // A limit must not hide that these are the labels of something else.
  if (found.total && result.total) check(*found.total, *result.total);
  check(found.labels.size(), result.images.count);
  result.labels = std::move(found.labels);
  return result;
}

}  // namespace tercet::files
