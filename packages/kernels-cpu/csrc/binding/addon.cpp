// The module: what `Addon` of @q/tensor asks for, one instance per JavaScript environment and no other state.
#include "../ceilings/ceilings.h"
#include "../driver/workers.h"
#include "driver.h"

namespace {

/// Measures off the JavaScript thread, with threads of its own.
class CeilingsWorker final : public Napi::AsyncWorker {
 public:
  CeilingsWorker(Napi::Env env, int threads)
      : AsyncWorker(env), deferred_(Napi::Promise::Deferred::New(env)), threads_(threads) {}
  Napi::Promise promise() const { return deferred_.Promise(); }

 protected:
  void Execute() override {
    q::cpu::ThreadPool pool(threads_);
    result_ = q::cpu::measure_ceilings(pool, q::cpu::detect_features());
  }
  void OnOK() override {
    Napi::Object result = Napi::Object::New(Env());
    result.Set("readBytesPerSecond", result_.read_bytes);
    result.Set("f32FlopsPerSecond", result_.f32_flops);
    result.Set("vnniOpsPerSecond", result_.vnni_ops);
    result.Set("amxOpsPerSecond", result_.amx_ops);
    deferred_.Resolve(result);
  }
  void OnError(const Napi::Error& error) override { deferred_.Reject(error.Value()); }

 private:
  Napi::Promise::Deferred deferred_;
  int threads_;
  q::cpu::Ceilings result_{};
};

class CpuAddon final : public Napi::Addon<CpuAddon> {
 public:
  CpuAddon(Napi::Env env, Napi::Object exports) {
    constructor_ = Napi::Persistent(q::cpu::DriverObject::define(env));
    DefineAddon(exports, {
                             InstanceValue("abi", Napi::String::New(env, q::kAbi)),
                             InstanceMethod<&CpuAddon::devices>("devices"),
                             InstanceMethod<&CpuAddon::open>("open"),
                             InstanceMethod<&CpuAddon::ceilings>("ceilings"),
                         });
  }

 private:
  Napi::Value devices(const Napi::CallbackInfo& info) {
    Napi::Array devices = Napi::Array::New(info.Env(), 1);
    devices.Set(0u, q::cpu::describe(info.Env(), q::cpu::detect_features(), q::cpu::physical_cores()));
    Napi::Object result = Napi::Object::New(info.Env());
    result.Set("devices", devices);
    return result;
  }

  /// (index, { threads?, isa? }): a driver. `isa` lowers the instruction set, for tests.
  Napi::Value open(const Napi::CallbackInfo& info) {
    const Napi::Object options = info[1].IsObject() ? info[1].As<Napi::Object>() : Napi::Object::New(info.Env());
    const Napi::Value wanted = options.Get("threads");
    const int threads = wanted.IsNumber() ? wanted.As<Napi::Number>().Int32Value() : q::cpu::physical_cores();
    return constructor_.New({Napi::Number::New(info.Env(), threads), options.Get("isa")});
  }

  /// (threads?): a promise of what the machine can do.
  Napi::Value ceilings(const Napi::CallbackInfo& info) {
    auto* worker = new CeilingsWorker(
        info.Env(), info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : q::cpu::physical_cores());
    const Napi::Promise promise = worker->promise();
    worker->Queue();
    return promise;
  }

  Napi::FunctionReference constructor_;
};

}  // namespace

NODE_API_ADDON(CpuAddon)
