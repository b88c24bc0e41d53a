# SPDX-License-Identifier: Apache-2.0
# Toolchain for arm64 on a Debian of another architecture, with its cross-compiler and its packages for arm64
# (scripts/install-dependencies --with-arm64). Tests run by qemu-user: its processor `max` has SVE too.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -cpu max)
set(ENV{PKG_CONFIG_LIBDIR} /usr/lib/aarch64-linux-gnu/pkgconfig:/usr/share/pkgconfig)
# xtensor is headers alone, but Debian's package for arm64 cannot be installed beside that of another architecture.
file(GLOB xtensor_dirs /usr/lib/*-linux-gnu/cmake/xtensor)
if(xtensor_dirs)
  list(GET xtensor_dirs 0 xtensor_DIR)
endif()
