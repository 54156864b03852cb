// NVIDIA's cuBLASLt, opened at run time when it is installed; Q needs neither its headers nor its library. Only what is
// called is declared.
#pragma once
#include <cstdint>
#include <map>
#include <tuple>
#include "context.h"

namespace q::cuda {

/// One product as cuBLASLt sees it: out[rows, n] = x[rows, k] . W[n, k]^T (+ bias[n]) (+ residual, laid out like out).
struct CublasProduct {
  const void* x;
  const void* weight;
  const void* bias;      // of the product's dtype, or null
  const void* residual;  // null, or like out (may be out)
  void* out;
  int64_t rows, n, k;
  int64_t ldo;
  DType dtype;  // of all of them: f32, f16 or bf16; sums in f32
};

struct CublasLt {
  // Functions of the library, by their names without the prefix cublasLt.
  int (*Create)(void** handle);
  int (*Destroy)(void* handle);
  int (*MatmulDescCreate)(void** desc, int compute_type, int scale_type);
  int (*MatmulDescDestroy)(void* desc);
  int (*MatmulDescSetAttribute)(void* desc, int attribute, const void* value, size_t bytes);
  int (*MatrixLayoutCreate)(void** layout, int type, uint64_t rows, uint64_t columns, int64_t leading);
  int (*MatrixLayoutDestroy)(void* layout);
  int (*MatmulPreferenceCreate)(void** preference);
  int (*MatmulPreferenceDestroy)(void* preference);
  int (*MatmulPreferenceSetAttribute)(void* preference, int attribute, const void* value, size_t bytes);
  int (*MatmulAlgoGetHeuristic)(void* handle, void* desc, void* a, void* b, void* c, void* d, void* preference,
                                int wanted, void* results, int* found);
  int (*Matmul)(void* handle, void* desc, const void* alpha, const void* a, void* a_layout, const void* b,
                void* b_layout, const void* beta, const void* c, void* c_layout, void* d, void* d_layout,
                const void* algo, void* workspace, size_t workspace_bytes, cudaStream_t stream);

  struct Plan {
    void* desc;
    void* weight;
    void* x;
    void* out;
    uint64_t algo[8];
    size_t workspace;
    bool usable;
  };
  using Key = std::tuple<int64_t, int64_t, int64_t, int64_t, int, bool, bool,
                         uint64_t>;  // rows, n, k, ldo, dtype, bias, residual, alignment
  std::map<Key, Plan> plans;
  void* library;
  void* handle;
};

/// Opens libcublasLt.so.13 or .12; null when neither is there or it does not work. The device must be current.
CublasLt* open_cublaslt(int device);
void close_cublaslt(CublasLt* lt);

/// Enqueues the product; false when the library has no algorithm for it (nothing is enqueued then). Throws CommandError
/// when the call itself fails.
bool cublas_product(Context& context, const CublasProduct& product);

}  // namespace q::cuda
