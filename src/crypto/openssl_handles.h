// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>

/// Owners of OpenSSL's objects.
namespace tercet::crypto {

template <auto free>
struct Freer {
  template <class T>
  void operator()(T* object) const {
    free(object);
  }
};

using BioHandle = std::unique_ptr<BIO, Freer<BIO_free>>;
using CipherHandle = std::unique_ptr<EVP_CIPHER_CTX, Freer<EVP_CIPHER_CTX_free>>;
using KeyHandle = std::unique_ptr<EVP_PKEY, Freer<EVP_PKEY_free>>;
using CertificateHandle = std::unique_ptr<X509, Freer<X509_free>>;
using ExtensionHandle = std::unique_ptr<X509_EXTENSION, Freer<X509_EXTENSION_free>>;
using BigNumberHandle = std::unique_ptr<BIGNUM, Freer<BN_free>>;

}  // namespace tercet::crypto
