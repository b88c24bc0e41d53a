// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "tercet/base/error.h"
#include "tercet/ring/kernels.h"

namespace tercet::ring {
namespace {

TEST(KernelsChoice, PortableComesFirstAndEveryNameIsFound) {
  const auto available = AvailableKernels();
  ASSERT_FALSE(available.empty());
  EXPECT_STREQ(available.front()->name, "portable");
  for (const Kernels* kernels : available) EXPECT_EQ(&KernelsByName(kernels->name), kernels);
}

TEST(KernelsChoice, UnknownNameIsRefusedAndKnownOnesAreListed) {
  ::setenv("TERCET_KERNELS", "abacus", 1);
  try {
    ActiveKernels();
    FAIL() << "an unknown name was accepted";
  } catch (const ConfigError& error) {
    EXPECT_EQ(error.Place(), "TERCET_KERNELS");
    EXPECT_THAT(error.what(), ::testing::HasSubstr("abacus"));
    EXPECT_THAT(error.what(), ::testing::HasSubstr("portable"));
  }
  ::setenv("TERCET_KERNELS", "portable", 1);
  EXPECT_STREQ(ActiveKernels().name, "portable");
  ::unsetenv("TERCET_KERNELS");
  EXPECT_STREQ(ActiveKernels().name, "portable") << "the choice is made once";
}

}  // namespace
}  // namespace tercet::ring
