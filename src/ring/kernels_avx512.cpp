// SPDX-License-Identifier: Apache-2.0
#define TERCET_ISA avx512
#define TERCET_ISA_NAME "avx512"
#define TERCET_VECTOR_BYTES 64
#define TERCET_VNNI 0
#include "ring/kernels_vector.inl"
