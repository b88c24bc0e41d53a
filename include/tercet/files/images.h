// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "tercet/files/data_options.h"
#include "tercet/mpc/spec.h"

namespace tercet::files {

/// Images of one data set, bytes 0..255, image after image, each channels x height x width.
struct Images {
  mpc::Shape3 shape;
  std::size_t count = 0;
  std::vector<std::uint8_t> pixels;
};

/// A part of a data set that comes in one piece. The items are put into a random order: i from
/// count - 1 down to 1 is swapped with floor(r (i + 1) / 2^64), r the next number of mt19937_64
/// seeded with `seed`. The first round(test_part x count) of this order are the test part, the rest
/// the training part; both keep this order.
struct Subset {
  bool test = false;  ///< the test part, else the training part
  double test_part = 0;
  std::uint64_t seed = 0;
  bool operator==(const Subset&) const = default;
};
/// The indices of its items among `count`. Thread safe.
std::vector<std::size_t> SubsetIndices(const Subset& subset, std::size_t count);

/// What an argument such as --images names: "FILE[,FILE...]", read one after the other, and with
/// "@test:PART:SEED" or "@train:PART:SEED" behind only a subset of them: "beats.u8.gz@test:0.2:1".
/// A text that names an existing file as it stands is that file, "-" standard input, and a folder
/// may stand for the pictures in it.
struct DataFiles {
  std::vector<std::filesystem::path> files;
  std::optional<Subset> subset;
};
/// ConfigError (place: `text`) for an empty file name or a subset with numbers out of range. Thread
/// safe.
DataFiles ParseDataFiles(const std::string& text);

/// Reads images. Formats, each also packed with gzip or xz, which is recognised by content:
///   IDX   magic 0x00000803
///   .npy  whole or floating-point numbers, N x features, N x H x W, N x C x H x W or N x H x W x
///   C,
///         in C or Fortran order
///   PNG   a picture of 1 to 8 bits a channel; PGM and PPM of values up to 255
///   .csv  (by its name, or any text) a row of numbers an image, and a column of labels
///   .bin  (by its name) records of CIFAR-10, 3073 bytes: a label, then 3 x 32 x 32 pixels; or of
///         CIFAR-100, with two labels
///   .u8   (by its name) images of shape `expected` one after the other, without a header
///   folder  of pictures, in the order of their names; or of folders of them, one a class, in the
///         order of the classes' names. Hidden files and .csv are left out.
/// docs/data.md tells a user of them, and DataOptions what must be said besides.
///
/// `file` is an argument as DataFiles says. `limit` 0 reads all, else at most so many, of a subset
/// its first ones, and the counts alone of files behind it. ConfigError names the file and what was
/// found and expected: missing, truncated, wrong magic, no image, shape other than `expected` (when
/// not empty), a number that is no pixel. Of formats whose items have all the same length no more
/// is read or unpacked than their header and `limit` ask for. At most 4 GiB of pixels at once, of a
/// packed file 256 MiB, of a table 512 MiB of text, of a picture 128 MiB; a subset is drawn from
/// the whole. Several gzip members or xz streams in one file are read in turn. Thread safe.
Images LoadImages(const std::filesystem::path& file, std::size_t limit, const mpc::Shape3& expected,
                  const DataOptions& options = {});
/// One file from memory; `name` stands for it in messages and tells .bin, .u8 and .csv.
Images ParseImages(const std::vector<std::uint8_t>& bytes, const std::string& name,
                   std::size_t limit, const mpc::Shape3& expected, const DataOptions& options = {});

/// Labels: IDX (magic 0x00000801), .npy (one-dimensional, whole numbers), .csv (one column, or one
/// of labels), .bin (of CIFAR's records), .u8 (a byte each) or a folder of one folder for each
/// class; packed and put together like images, but for at most 16 MiB once unpacked (of .bin and
/// .csv 256 MiB). Each must be that of one of `classes` classes (1 or more; InternalError else) and
/// fit a byte. ConfigError as above. Thread safe.
std::vector<std::uint8_t> LoadLabels(const std::filesystem::path& file, std::size_t limit,
                                     std::size_t classes, const DataOptions& options = {});
/// One file from memory; `name` stands for it in messages and tells .bin, .u8 and .csv.
std::vector<std::uint8_t> ParseLabels(const std::vector<std::uint8_t>& bytes,
                                      const std::string& name, std::size_t limit,
                                      std::size_t classes, const DataOptions& options = {});

/// Images with their labels.
struct LabelledImages {
  Images images;
  std::vector<std::uint8_t> labels;  ///< one an image, or none
};
/// Both at once. Without a `labels` argument the labels are those in the image files, or none where
/// these hold none; one without a subset has that of the images. Labels of a table of files and
/// labels go to the pictures of these names (as they stand in their folder). ConfigError as above,
/// and when the subsets differ or there are not as many labels as images, also where `limit` leaves
/// some of both unread; no more labels are read than it takes to see that. Thread safe.
LabelledImages LoadLabelledImages(const std::filesystem::path& images,
                                  const std::filesystem::path& labels, std::size_t limit,
                                  const mpc::Shape3& expected, std::size_t classes,
                                  const DataOptions& options = {});

/// A warning for images that use next to nothing of the range of a pixel: their numbers probably
/// mean something else. Thread safe.
std::optional<std::string> RangeWarning(const Images& images);

}  // namespace tercet::files
