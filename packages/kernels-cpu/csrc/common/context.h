// What a CPU kernel is given: threads to run on and scratch memory. Every command X of native/q_ops.h is implemented by
//   void run(const XArgs& args, Context& context);
// in csrc/<family>/. Its arguments have passed the rules of the command table (`check` in q_ops.h): every tensor holds
// the elements that the sizes say, in a dtype that the table names, and what is written lies apart from what is read.
// What depends on the content of tensors, such as indices, is checked by the kernel, which throws CommandError.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <stdexcept>
#include <string>
#include "q_ops.h"

namespace q::cpu {

struct CommandError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// The command that runs was called off; ends it. No failure.
struct Cancelled {};

/// Splits [0, count) into contiguous ranges over the threads of the queue and waits for all of them.
/// `grain`: fewest items worth a thread. body(begin, end, thread) with thread < threads().
/// Throws Cancelled, after all threads have left the body, when the command was called off before the end.
class Workers {
 public:
  virtual ~Workers() = default;
  virtual int threads() const = 0;
  /// Whether the command was called off: a body whose items take milliseconds asks between them and returns.
  virtual bool cancelled() const = 0;
  virtual void parallel(int64_t count, int64_t grain,
                        const std::function<void(int64_t begin, int64_t end, int thread)>& body) = 0;
};

/// 64-byte aligned memory that lives until the command returns, or until it is given back to a mark; it is kept and
/// reused by later commands.
class Scratch {
 public:
  struct Mark {
    size_t block, used;
  };
  virtual ~Scratch() = default;
  virtual void* take(size_t bytes) = 0;
  virtual Mark mark() const = 0;
  /// Gives back what was taken since.
  virtual void rewind(Mark mark) = 0;
  template <class T>
  T* take_array(size_t count) {
    return static_cast<T*>(take(count * sizeof(T)));
  }
};

enum class Isa : int { scalar = 0, avx2 = 1, avx512 = 2 };  // avx2: + FMA + F16C; avx512: F, BW, VL, DQ (+ CD)

/// Instruction sets that this machine has and this process may use (a test can lower `isa`).
struct CpuFeatures {
  Isa isa;
  bool avx512_vnni, avx512_bf16, avx512_fp16, avx512_vbmi, amx_tile, amx_int8, amx_bf16;
};

struct Context {
  Workers& workers;
  Scratch& scratch;
  const CpuFeatures& features;
};

}  // namespace q::cpu
