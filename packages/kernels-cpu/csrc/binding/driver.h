// The Driver of @q/tensor (driver.ts) as a JavaScript object: every method runs on the JavaScript thread, checks its
// arguments and queues a task. Nothing here waits, and no memory of a tensor is touched.
#pragma once
#include <napi.h>
#include "../driver/features.h"
#include "../driver/tasks.h"

namespace q::cpu {

/// `info` of a driver: the machine and what it can do.
Napi::Object describe(Napi::Env env, const CpuFeatures& features, int threads);

class DriverObject final : public Napi::ObjectWrap<DriverObject> {
 public:
  static Napi::Function define(Napi::Env env);
  /// (threads: number, isa?: string)
  explicit DriverObject(const Napi::CallbackInfo& info);
  ~DriverObject() override;

 private:
  using Info = const Napi::CallbackInfo&;
  /// The method with its Failure thrown as a DriverFailure, or given as a rejection.
  template <auto method>
  Napi::Value guarded(Info info);
  template <auto method>
  Napi::Value guarded_promise(Info info);

  Napi::Value alloc(Info info);
  void release(Info info);
  void submit(Info info);
  void write(Info info);
  Napi::Value read(Info info);
  Napi::Value open_file(Info info);
  void close_file(Info info);
  void read_file(Info info);
  Napi::Value map_file(Info info);
  Napi::Value flush(Info info);
  void group(Info info);
  void cancel(Info info);
  void begin_capture(Info info);
  Napi::Value end_capture(Info info);
  void replay(Info info);
  void release_program(Info info);
  Napi::Value memory(Info info);
  Napi::Value close(Info info);

  /// Something JavaScript waits for, or memory it lends to the queue.
  struct Pending {
    std::optional<Napi::Promise::Deferred> promise;
    Napi::ObjectReference held;
    bool closes = false;
  };
  uint64_t add_pending(Napi::Env env, Pending pending);
  void settle(Napi::Env env);
  /// Settles one promise; an environment that ends takes it along.
  void settle(Napi::Env env, Pending& pending, const Done& done);
  /// Stops the queue, dropping what has not begun, and frees everything; also when the environment ends.
  void shut_down();
  static void at_exit(void* self);

  /// The queue, for a call that is allowed now: not after close, and not while recording unless said.
  Queue& queue(bool while_recording = false);
  char* bytes_of(int64_t id, int64_t offset, int64_t bytes, bool writes);
  std::shared_ptr<File> file_of(int64_t id);

  std::atomic<int64_t> allocated_{0};  // outlives queue_ and the buffers
  napi_env env_;
  Napi::ThreadSafeFunction notify_;
  std::unique_ptr<Queue> queue_;
  Buffers buffers_;
  std::unordered_map<int64_t, std::shared_ptr<File>> files_;
  std::unordered_map<int64_t, std::shared_ptr<Program>> programs_;
  std::shared_ptr<Program> recording_;
  std::unordered_map<uint64_t, Pending> pending_;
  uint64_t next_pending_ = 1, group_ = 0;
  int64_t next_id_ = 1;
  bool closed_ = false;
};

}  // namespace q::cpu
