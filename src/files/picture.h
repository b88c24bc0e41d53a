// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "files/byte_reader.h"
#include "tercet/mpc/spec.h"

namespace tercet::files {

/// One picture, channel after channel.
struct Picture {
  mpc::Shape3 shape;
  std::vector<std::uint8_t> pixels;
};

/// Reads one PNG picture, up to the end of the file: grey (of 1 to 8 bits), colour or palette,
/// interlaced or not, of 8 bits a channel. Channels that say nothing are left out where `expected`
/// has them not: opacity that is full everywhere, and of three equal channels two. All else that is
/// not `expected` fails, before the pixels are unpacked where the size is another.
Picture ReadPng(ByteReader& reader, const mpc::Shape3& expected);
/// The same of a PGM or PPM picture (P2, P3, P5, P6) with values up to 255.
Picture ReadPnm(ByteReader& reader, const mpc::Shape3& expected);

}  // namespace tercet::files
