// SPDX-License-Identifier: Apache-2.0
#pragma once

/// TERCET_ADDRESS_SANITIZER and TERCET_THREAD_SANITIZER are 1 in builds with these sanitizers, and
/// else 0. GCC and Clang say it in different ways.
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TERCET_ADDRESS_SANITIZER 1
#endif
#if __has_feature(thread_sanitizer)
#define TERCET_THREAD_SANITIZER 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define TERCET_ADDRESS_SANITIZER 1
#elif !defined(TERCET_ADDRESS_SANITIZER)
#define TERCET_ADDRESS_SANITIZER 0
#endif
#if defined(__SANITIZE_THREAD__)
#define TERCET_THREAD_SANITIZER 1
#elif !defined(TERCET_THREAD_SANITIZER)
#define TERCET_THREAD_SANITIZER 0
#endif
