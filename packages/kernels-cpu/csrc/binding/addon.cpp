// The module: what `Addon` of @q/tensor asks for, one instance per JavaScript environment and no other state.
#include "driver.h"

namespace {

class CpuAddon final : public Napi::Addon<CpuAddon> {
 public:
  CpuAddon(Napi::Env env, Napi::Object exports) {
    constructor_ = Napi::Persistent(q::cpu::DriverObject::define(env));
    DefineAddon(exports, {
      InstanceValue("abi", Napi::String::New(env, q::kAbi)),
      InstanceMethod<&CpuAddon::devices>("devices"),
      InstanceMethod<&CpuAddon::open>("open"),
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

  Napi::FunctionReference constructor_;
};

}  // namespace

NODE_API_ADDON(CpuAddon)
