// NativeCuda (src/probe.ts) and the Driver contract (tensor/src/driver/driver.ts) over q::cuda::Device.
#include <napi.h>
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <system_error>
#include <thread>
#include "runtime/device.h"

namespace q::cuda {
namespace {

Napi::Error failure_error(Napi::Env env, const Failure& failure) {
  Napi::Error error = Napi::Error::New(env, failure.message);
  error.Set("code", failure.code);
  if (!failure.command.empty()) error.Set("command", failure.command);
  if (failure.wanted_bytes >= 0) error.Set("wantedBytes", static_cast<double>(failure.wanted_bytes));
  if (failure.free_bytes >= 0) error.Set("freeBytes", static_cast<double>(failure.free_bytes));
  return error;
}

template <class F>
auto call(Napi::Env env, F&& f) {
  try {
    return f();
  } catch (const Failure& failure) {
    throw failure_error(env, failure);
  } catch (const Napi::Error&) {
    throw;
  } catch (const std::exception& error) {
    throw failure_error(env, Failure("device", error.what()));
  }
}

/// An argument that must be a whole number which is not negative; throws Failure 'command'.
int64_t whole(const Napi::CallbackInfo& info, size_t at, const char* name) {
  const double value = at < info.Length() && info[at].IsNumber() ? info[at].As<Napi::Number>().DoubleValue() : -1;
  if (!(value >= 0 && value <= 9007199254740992.0) || value != static_cast<double>(static_cast<int64_t>(value)))
    throw Failure("command", std::string(name) + " must be a whole number of at least 0");
  return static_cast<int64_t>(value);
}

Napi::Object features(Napi::Env env, const DeviceFacts& facts) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("computeCapability",
             std::to_string(facts.compute_capability / 10) + "." + std::to_string(facts.compute_capability % 10));
  object.Set("multiprocessors", facts.multiprocessors);
  object.Set("l2Bytes", static_cast<double>(facts.l2_bytes));
  object.Set("sharedBytesPerBlock", static_cast<double>(facts.shared_bytes_per_block));
  object.Set("driverVersion", version_text(facts.driver_version));
  object.Set("runtimeVersion", version_text(facts.runtime_version));
  object.Set("builtFor", Q_CUDA_ARCH_LIST);
  if (!facts.peers.empty()) object.Set("peerAccess", facts.peers);
  return object;
}

Napi::Object driver_info(Napi::Env env, const DeviceFacts& facts) {
  Napi::Object object = Napi::Object::New(env);
  object.Set("type", "cuda");
  object.Set("index", facts.index);
  object.Set("name", facts.name);
  object.Set("totalBytes", static_cast<double>(facts.total_bytes));
  object.Set("mapsFiles", false);
  Napi::Array dtypes = Napi::Array::New(env);
  for (const char* name : {"f32", "f16", "bf16"}) {
    if (facts.compute_capability >= 80 || std::string(name) != "bf16") dtypes.Set(dtypes.Length(), name);
  }
  object.Set("activationDtypes", dtypes);
  object.Set("features", features(env, facts));
  return object;
}

/// Tells objects of this addon from others.
constexpr napi_type_tag kDriverTag{0x5163756461447276, 0x8f1c2f6ab0d44e19};

/// One promise or held reference, from the JavaScript thread to a device thread and back.
struct Ticket {
  std::unique_ptr<Napi::Promise::Deferred> promise;
  Napi::Reference<Napi::Uint8Array> held;
  Outcome outcome;
  bool wants_data = false;
};

Napi::Value outcome_value(Napi::Env env, Ticket& ticket) {
  if (!ticket.wants_data) return env.Undefined();
  constexpr size_t kCopied = 64u << 10;
  const size_t bytes = ticket.outcome.bytes;
  if (bytes > kCopied)
    return Napi::ArrayBuffer::New(env, ticket.outcome.data, bytes, [](Napi::Env, void* data) { std::free(data); });
  Napi::ArrayBuffer buffer = Napi::ArrayBuffer::New(env, bytes);
  if (bytes) std::memcpy(buffer.Data(), ticket.outcome.data, bytes);
  std::free(ticket.outcome.data);
  return buffer;
}

class DriverObject : public Napi::ObjectWrap<DriverObject> {
 public:
  static Napi::Function define(Napi::Env env) {
    return DefineClass(env, "CudaDriver",
                       {InstanceAccessor<&DriverObject::Info>("info"),
                        InstanceMethod<&DriverObject::Alloc>("alloc"),
                        InstanceMethod<&DriverObject::Release>("release"),
                        InstanceMethod<&DriverObject::Submit>("submit"),
                        InstanceMethod<&DriverObject::Write>("write"),
                        InstanceMethod<&DriverObject::Read>("read"),
                        InstanceMethod<&DriverObject::OpenFile>("openFile"),
                        InstanceMethod<&DriverObject::CloseFile>("closeFile"),
                        InstanceMethod<&DriverObject::CopyFrom>("copyFrom"),
                        InstanceMethod<&DriverObject::ReadFile>("readFile"),
                        InstanceMethod<&DriverObject::MapFile>("mapFile"),
                        InstanceMethod<&DriverObject::Flush>("flush"),
                        InstanceMethod<&DriverObject::Group>("group"),
                        InstanceMethod<&DriverObject::Cancel>("cancel"),
                        InstanceMethod<&DriverObject::BeginCapture>("beginCapture"),
                        InstanceMethod<&DriverObject::EndCapture>("endCapture"),
                        InstanceMethod<&DriverObject::Replay>("replay"),
                        InstanceMethod<&DriverObject::ReleaseProgram>("releaseProgram"),
                        InstanceMethod<&DriverObject::Memory>("memory"),
                        InstanceMethod<&DriverObject::Close>("close")});
  }

  explicit DriverObject(const Napi::CallbackInfo& info) : Napi::ObjectWrap<DriverObject>(info) {
    call(info.Env(), [&] {
      const int64_t index = whole(info, 0, "index");
      const Probe probe = probe_devices();
      for (const DeviceFacts& facts : probe.devices) {
        if (facts.index == index && facts.problem.empty()) device_ = std::make_unique<Device>(facts);
      }
      if (!device_)
        throw Failure("device", "there is no device cuda:" + std::to_string(index) + " (" + probe.status_text + ")");
    });
    info.This().As<Napi::Object>().TypeTag(&kDriverTag);
    finished_ = Napi::ThreadSafeFunction::New(
        info.Env(), Napi::Function::New(info.Env(), [](const Napi::CallbackInfo&) {}), "q_cuda", 0, 1);
    finished_.Unref(info.Env());
    // At the end of the environment: no device thread may outlive it.
    hook_ = new std::function<void()>([this] { stop(); });
    napi_add_env_cleanup_hook(info.Env(), run_hook, hook_);
  }

  ~DriverObject() override {
    if (hook_) {
      napi_remove_env_cleanup_hook(Env(), run_hook, hook_);
      stop();
    }
  }

 private:
  static void run_hook(void* hook) { (*static_cast<std::function<void()>*>(hook))(); }

  void stop() {
    if (!hook_) return;
    delete hook_;
    hook_ = nullptr;
    if (closing_.joinable()) closing_.join();
    device_->shut_down();
    if (!released_) finished_.Release();
    released_ = true;
  }

  /// Hands a ticket back to JavaScript; called on a device thread.
  void post(Ticket* ticket) {
    const napi_status status =
        finished_.NonBlockingCall(ticket, [this](Napi::Env env, Napi::Function, Ticket* back) { settle(env, back); });
    if (status != napi_ok) {
      std::free(ticket->outcome.data);
      ticket->outcome.data = nullptr;  // the environment is ending; the handles in the ticket end with it
    }
  }

  void settle(Napi::Env env, Ticket* raw) {
    std::unique_ptr<Ticket> ticket(raw);
    if (static_cast<napi_env>(env) == nullptr) return;
    Napi::HandleScope scope(env);
    const Pending pending(*this, env);
    try {
      ticket->held.Reset();
      if (!ticket->promise) return;
      if (ticket->outcome.failure) {
        ticket->promise->Reject(failure_error(env, *ticket->outcome.failure).Value());
      } else {
        ticket->promise->Resolve(outcome_value(env, *ticket));
      }
    } catch (const Napi::Error&) {
      // Only in a thread or process that is being ended: nobody waits any more.
    }
  }

  /// Ends one pending ticket when it goes out of scope.
  struct Pending {
    DriverObject& driver;
    Napi::Env env;
    Pending(DriverObject& driver, Napi::Env env) : driver(driver), env(env) {}
    ~Pending() {
      if (--driver.pending_ > 0) return;
      try {
        driver.finished_.Unref(env);
        driver.Unref();
      } catch (const Napi::Error&) {
        // as in settle: what ends takes the references along
      }
    }
  };

  /// While tickets are pending, neither the process ends nor is this object collected.
  Ticket* ticket(Napi::Env env) {
    if (pending_++ == 0) {
      finished_.Ref(env);
      Ref();
    }
    return new Ticket;
  }

  void drop(Napi::Env env, Ticket* ticket) {
    const Pending pending(*this, env);
    delete ticket;
  }

  /// Starts something that ends with a promise; a failure to start rejects it.
  template <class F>
  Napi::Value promised(Napi::Env env, bool wants_data, F&& start) {
    Ticket* ticket = this->ticket(env);
    ticket->promise = std::make_unique<Napi::Promise::Deferred>(env);
    ticket->wants_data = wants_data;
    const Napi::Promise promise = ticket->promise->Promise();
    try {
      start([this, ticket](Outcome outcome) {
        ticket->outcome = std::move(outcome);
        post(ticket);
      });
    } catch (const Failure& failure) {
      ticket->promise->Reject(failure_error(env, failure).Value());
      drop(env, ticket);
    }
    return promise;
  }

  Napi::Value Info(const Napi::CallbackInfo& info) { return driver_info(info.Env(), device_->facts()); }

  Napi::Value Alloc(const Napi::CallbackInfo& info) {
    return call(info.Env(), [&] {
      return Napi::Number::New(info.Env(), static_cast<double>(device_->alloc(whole(info, 0, "bytes"))));
    });
  }
  void Release(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->release(whole(info, 0, "buffer")); });
  }
  void Submit(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] {
      if (info.Length() < 2 || !info[1].IsTypedArray() ||
          info[1].As<Napi::TypedArray>().TypedArrayType() != napi_float64_array)
        throw Failure("command", "submit takes a code and a Float64Array");
      const Napi::Float64Array words = info[1].As<Napi::Float64Array>();
      device_->submit(static_cast<int>(std::min<int64_t>(whole(info, 0, "code"), INT32_MAX)), words.Data(),
                      words.ElementLength());
    });
  }
  void Write(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] {
      if (info.Length() < 3 || !info[2].IsTypedArray())
        throw Failure("command", "write takes a buffer, an offset and a Uint8Array");
      Napi::Uint8Array data = info[2].As<Napi::Uint8Array>();
      const size_t bytes = data.ByteLength();
      if (bytes <= WriteRing::kLargest)
        return device_->write(whole(info, 0, "buffer"), whole(info, 1, "offset"), data.Data(), bytes, [] {});
      Ticket* held = ticket(info.Env());
      held->held = Napi::Persistent(data);
      try {
        device_->write(whole(info, 0, "buffer"), whole(info, 1, "offset"), data.Data(), bytes,
                       [this, held] { post(held); });
      } catch (...) {
        drop(info.Env(), held);
        throw;
      }
    });
  }
  Napi::Value Read(const Napi::CallbackInfo& info) {
    return promised(info.Env(), true, [&](Done done) {
      device_->read(whole(info, 0, "buffer"), whole(info, 1, "offset"), whole(info, 2, "bytes"), std::move(done));
    });
  }
  Napi::Value Flush(const Napi::CallbackInfo& info) {
    return promised(info.Env(), false, [&](Done done) { device_->flush(std::move(done)); });
  }
  Napi::Value OpenFile(const Napi::CallbackInfo& info) {
    return call(info.Env(), [&] {
      return Napi::Number::New(info.Env(), static_cast<double>(device_->open_file(info[0].ToString().Utf8Value())));
    });
  }
  void CloseFile(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->close_file(whole(info, 0, "file")); });
  }
  void ReadFile(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] {
      device_->read_file(whole(info, 0, "file"), whole(info, 1, "fileOffset"), whole(info, 2, "buffer"),
                         whole(info, 3, "offset"), whole(info, 4, "bytes"));
    });
  }
  Napi::Value CopyFrom(const Napi::CallbackInfo& info) {
    return call(info.Env(), [&] {
      if (info.Length() < 1 || !info[0].IsObject() || !info[0].As<Napi::Object>().CheckTypeTag(&kDriverTag))
        return Napi::Boolean::New(info.Env(), false);
      DriverObject* source = Unwrap(info[0].As<Napi::Object>());
      device_->copy_from(*source->device_, whole(info, 1, "sourceBuffer"), whole(info, 2, "sourceOffset"),
                         whole(info, 3, "buffer"), whole(info, 4, "offset"), whole(info, 5, "bytes"));
      return Napi::Boolean::New(info.Env(), true);
    });
  }
  Napi::Value MapFile(const Napi::CallbackInfo& info) {
    throw failure_error(info.Env(),
                        Failure("file", "a CUDA device does not map files (info.mapsFiles is false); use readFile"));
  }
  void Group(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->group(whole(info, 0, "group")); });
  }
  void Cancel(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->cancel(whole(info, 0, "group")); });
  }
  void BeginCapture(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->begin_capture(); });
  }
  Napi::Value EndCapture(const Napi::CallbackInfo& info) {
    return call(info.Env(), [&] { return Napi::Number::New(info.Env(), static_cast<double>(device_->end_capture())); });
  }
  void Replay(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->replay(whole(info, 0, "program")); });
  }
  void ReleaseProgram(const Napi::CallbackInfo& info) {
    call(info.Env(), [&] { device_->release_program(whole(info, 0, "program")); });
  }
  Napi::Value Memory(const Napi::CallbackInfo& info) {
    return call(info.Env(), [&] {
      const Device::MemoryUse use = device_->memory();
      Napi::Object object = Napi::Object::New(info.Env());
      object.Set("allocatedBytes", static_cast<double>(use.allocated_bytes));
      object.Set("freeBytes", static_cast<double>(use.free_bytes));
      return object;
    });
  }
  Napi::Value Close(const Napi::CallbackInfo& info) {
    return promised(info.Env(), false, [&](Done done) {
      if (closing_.joinable() || device_->closed()) throw Failure("closed", "the driver is closed");
      device_->mark_closed();
      const auto shut = [this, done = std::move(done)] {
        device_->shut_down();
        done({});
      };
      try {
        closing_ = std::thread(shut);
      } catch (const std::system_error&) {
        shut();  // the system starts no more threads: this one waits
      }
    });
  }

  std::unique_ptr<Device> device_;
  Napi::ThreadSafeFunction finished_;
  std::function<void()>* hook_ = nullptr;
  std::thread closing_;
  int64_t pending_ = 0;
  bool released_ = false;
};

/// CudaProbe of src/probe.ts.
Napi::Value probe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const Probe found = probe_devices();
  Napi::Array devices = Napi::Array::New(env);
  for (const DeviceFacts& facts : found.devices) {
    Napi::Object device = Napi::Object::New(env);
    device.Set("index", facts.index);
    if (facts.problem.empty())
      device.Set("info", driver_info(env, facts));
    else
      device.Set("problem", facts.problem);
    devices.Set(devices.Length(), device);
  }
  Napi::Object result = Napi::Object::New(env);
  result.Set("status", found.status);
  result.Set("statusText", found.status_text);
  if (!found.library_problem.empty()) result.Set("libraryProblem", found.library_problem);
  result.Set("driverVersion", version_text(found.driver_version));
  result.Set("runtimeVersion", version_text(found.runtime_version));
  result.Set("builtFor", Q_CUDA_ARCH_LIST);
#ifdef Q_CUDA_PTX
  result.Set("hasPtx", true);
#else
  result.Set("hasPtx", false);
#endif
  result.Set("devices", devices);
  return result;
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  auto constructor = std::make_shared<Napi::FunctionReference>(Napi::Persistent(DriverObject::define(env)));
  exports.Set("abi", kAbi);
  exports.Set("probe", Napi::Function::New(env, probe));
  exports.Set("open", Napi::Function::New(env, [constructor](const Napi::CallbackInfo& info) -> Napi::Value {
                return constructor->New({info[0]});
              }));
  return exports;
}

}  // namespace
}  // namespace q::cuda

Napi::Object Init(Napi::Env env, Napi::Object exports) { return q::cuda::init(env, exports); }
NODE_API_MODULE(q_cuda, Init)
