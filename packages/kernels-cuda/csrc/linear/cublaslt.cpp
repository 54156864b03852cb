// Column-major cuBLASLt sees row-major out[rows, n] as out^T (n x rows) = W^T' (k x n, transposed) . x^T (k x rows).
// One plan (descriptors and the best algorithm of the heuristic) is kept per shape. Split sums go through the workspace
// in compute precision, in a fixed order.
#include "cublaslt.h"
#include <dlfcn.h>

namespace q::cuda {
namespace {

// Values of the library's enumerations.
constexpr int kComputeF32 = 68, kTypeF32 = 0, kTypeF16 = 2, kTypeBf16 = 14;
constexpr int kTransposeA = 3, kEpilogue = 7, kBiasPointer = 8, kBiasType = 26;
constexpr int kOperationTranspose = 1, kEpilogueDefault = 1, kEpilogueBias = 4;
constexpr int kMostWorkspace = 1, kReductions = 3, kAlignmentA = 5;
constexpr uint32_t kReductionInComputeType = 2;
constexpr size_t kWorkspaceBytes = 32 << 20;

struct Heuristic {  // cublasLtMatmulHeuristicResult_t
  uint64_t algo[8];
  size_t workspace;
  int state;
  float waves;
  int reserved[4];
};

void succeed(int status, const char* what) {
  if (status != 0)
    throw CommandError(std::string("linear: cuBLASLt ") + what + " failed with status " + std::to_string(status));
}

int type_code(DType dtype) { return dtype == DType::f32 ? kTypeF32 : dtype == DType::f16 ? kTypeF16 : kTypeBf16; }

uint32_t alignment(const void* p) {
  const uintptr_t a = reinterpret_cast<uintptr_t>(p) | 256;
  return static_cast<uint32_t>(a & (~a + 1));
}

void destroy(CublasLt& lt, CublasLt::Plan& plan) {
  if (plan.desc) lt.MatmulDescDestroy(plan.desc);
  for (void* layout : {plan.weight, plan.x, plan.out}) {
    if (layout) lt.MatrixLayoutDestroy(layout);
  }
}

CublasLt::Plan make_plan(CublasLt& lt, const CublasProduct& p) {
  CublasLt::Plan plan{};
  const int type = type_code(p.dtype);
  void* preference = nullptr;
  try {
    succeed(lt.MatmulDescCreate(&plan.desc, kComputeF32, kTypeF32), "MatmulDescCreate");
    const int transpose = kOperationTranspose;
    const uint32_t epilogue = p.bias ? kEpilogueBias : kEpilogueDefault;
    succeed(lt.MatmulDescSetAttribute(plan.desc, kTransposeA, &transpose, sizeof transpose), "MatmulDescSetAttribute");
    succeed(lt.MatmulDescSetAttribute(plan.desc, kEpilogue, &epilogue, sizeof epilogue), "MatmulDescSetAttribute");
    if (p.bias) {
      succeed(lt.MatmulDescSetAttribute(plan.desc, kBiasPointer, &p.bias, sizeof p.bias), "MatmulDescSetAttribute");
      succeed(lt.MatmulDescSetAttribute(plan.desc, kBiasType, &type, sizeof type), "MatmulDescSetAttribute");
    }
    succeed(lt.MatrixLayoutCreate(&plan.weight, type, p.k, p.n, p.k), "MatrixLayoutCreate");
    succeed(lt.MatrixLayoutCreate(&plan.x, type, p.k, p.rows, p.k), "MatrixLayoutCreate");
    succeed(lt.MatrixLayoutCreate(&plan.out, type, p.n, p.rows, p.ldo), "MatrixLayoutCreate");
    succeed(lt.MatmulPreferenceCreate(&preference), "MatmulPreferenceCreate");
    const uint64_t most = kWorkspaceBytes;
    succeed(lt.MatmulPreferenceSetAttribute(preference, kMostWorkspace, &most, sizeof most),
            "MatmulPreferenceSetAttribute");
    succeed(lt.MatmulPreferenceSetAttribute(preference, kReductions, &kReductionInComputeType,
                                            sizeof kReductionInComputeType),
            "MatmulPreferenceSetAttribute");
    const void* operands[4] = {p.weight, p.x, p.residual ? p.residual : p.out, p.out};
    for (int i = 0; i < 4; ++i) {
      const uint32_t bytes = alignment(operands[i]);
      succeed(lt.MatmulPreferenceSetAttribute(preference, kAlignmentA + i, &bytes, sizeof bytes),
              "MatmulPreferenceSetAttribute");
    }
    Heuristic best{};
    int found = 0;
    const int status = lt.MatmulAlgoGetHeuristic(lt.handle, plan.desc, plan.weight, plan.x, plan.out, plan.out,
                                                 preference, 1, &best, &found);
    plan.usable = status == 0 && found > 0 && best.state == 0 && best.workspace <= kWorkspaceBytes;
    for (int i = 0; i < 8; ++i) plan.algo[i] = best.algo[i];
    plan.workspace = best.workspace;
  } catch (...) {
    if (preference) lt.MatmulPreferenceDestroy(preference);
    destroy(lt, plan);
    throw;
  }
  lt.MatmulPreferenceDestroy(preference);
  return plan;
}

template <class F>
bool find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  return function != nullptr;
}

}  // namespace

CublasLt* open_cublaslt(int) {
  void* library = nullptr;
  for (const char* name : {"libcublasLt.so.13", "libcublasLt.so.12"}) {
    if ((library = dlopen(name, RTLD_NOW | RTLD_LOCAL))) break;
  }
  if (!library) return nullptr;
  auto* lt = new CublasLt{};
  lt->library = library;
#define Q_FIND(name) find(library, "cublasLt" #name, lt->name)
  const bool complete = Q_FIND(Create) && Q_FIND(Destroy) && Q_FIND(MatmulDescCreate) && Q_FIND(MatmulDescDestroy) &&
                        Q_FIND(MatmulDescSetAttribute) && Q_FIND(MatrixLayoutCreate) && Q_FIND(MatrixLayoutDestroy) &&
                        Q_FIND(MatmulPreferenceCreate) && Q_FIND(MatmulPreferenceDestroy) &&
                        Q_FIND(MatmulPreferenceSetAttribute) && Q_FIND(MatmulAlgoGetHeuristic) && Q_FIND(Matmul);
#undef Q_FIND
  if (complete && lt->Create(&lt->handle) == 0) return lt;
  dlclose(library);
  delete lt;
  return nullptr;
}

void close_cublaslt(CublasLt* lt) {
  if (!lt) return;
  for (auto& entry : lt->plans) destroy(*lt, entry.second);
  lt->Destroy(lt->handle);
  dlclose(lt->library);
  delete lt;
}

bool cublas_product(Context& context, const CublasProduct& p) {
  CublasLt& lt = *context.cublaslt;
  const uint64_t aligned = alignment(p.weight) | static_cast<uint64_t>(alignment(p.x)) << 16 |
                           static_cast<uint64_t>(alignment(p.out)) << 32 |
                           static_cast<uint64_t>(alignment(p.residual)) << 48;
  const CublasLt::Key key{p.rows, p.n, p.k, p.ldo, static_cast<int>(p.dtype), p.bias != nullptr, p.residual != nullptr,
                          aligned};
  auto at = lt.plans.find(key);
  if (at == lt.plans.end()) at = lt.plans.emplace(key, make_plan(lt, p)).first;
  CublasLt::Plan& plan = at->second;
  if (!plan.usable) return false;
  if (p.bias)
    succeed(lt.MatmulDescSetAttribute(plan.desc, kBiasPointer, &p.bias, sizeof p.bias), "MatmulDescSetAttribute");
  void* workspace = plan.workspace ? context.workspace.take(plan.workspace) : nullptr;
  const float alpha = 1.f, beta = p.residual ? 1.f : 0.f;
  succeed(lt.Matmul(lt.handle, plan.desc, &alpha, p.weight, plan.weight, p.x, plan.x, &beta,
                    p.residual ? p.residual : p.out, plan.out, p.out, plan.out, plan.algo, workspace, plan.workspace,
                    context.stream),
          "Matmul");
  return true;
}

}  // namespace q::cuda
