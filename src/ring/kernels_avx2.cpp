// SPDX-License-Identifier: Apache-2.0
#define TERCET_ISA avx2
#define TERCET_ISA_NAME "avx2"
#define TERCET_VECTOR_BYTES 32
#define TERCET_VNNI 0
#include "ring/kernels_vector.inl"
